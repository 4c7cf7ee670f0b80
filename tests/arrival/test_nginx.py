"""Behind nginx: TCP and unix socket, kept connections, WebSocket, server-sent events, fields and PROXY headers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.process import ServerProcess, free_port
from tests.websocket.raw import WebSocket

APP = "tests.arrival.app:app"
BINARY = shutil.which("nginx") or ("/usr/sbin/nginx" if os.path.exists("/usr/sbin/nginx") else None)
pytestmark = [
    pytest.mark.ours,
    pytest.mark.skipif(BINARY is None, reason="nginx is not installed (Debian and Ubuntu: apt install nginx-light)"),
]

CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log off; client_max_body_size 0;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    upstream app {{ server {upstream}; keepalive 8; }}
    map $http_upgrade $connection_field {{ default upgrade; "" ""; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection $connection_field;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


class Nginx:
    """One worker in front of `upstream`."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        self.address = ("127.0.0.1", free_port())
        text = CONFIGURATION.format(folder=folder, upstream=upstream, port=self.address[1])
        if os.geteuid() == 0:
            text = "user root;\n" + text  # unix sockets in folders that are root's
        (folder / "nginx.conf").write_text(text)
        assert BINARY is not None
        self.process = subprocess.Popen(
            [BINARY, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 10
        while True:
            try:
                Client(self.address).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, self.errors()
                time.sleep(0.02)

    def errors(self) -> str:
        return (self.folder / "error.log").read_text() if (self.folder / "error.log").exists() else ""

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module", params=["tcp", "unix"])
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, Any]]:
    folder = tmp_path_factory.mktemp("nginx")
    if request.param == "tcp":
        server = ServerProcess(APP)
        upstream = f"127.0.0.1:{server.port}"
    else:
        server = ServerProcess(APP, "--uds", str(folder / "app.sock"), "--forwarded-allow-ips", "*")
        upstream = f"unix:{folder / 'app.sock'}"
    try:
        nginx = Nginx(folder, upstream)
        try:
            yield nginx, server
        finally:
            nginx.stop()
        assert "Traceback" not in server.log.text()
    finally:
        server.kill()


def told(c: Client) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(c.response().body)
    return found


def test_the_client_is_the_one_in_front(proxied: Any) -> None:
    nginx, _ = proxied
    with Client(nginx.address) as c:
        for _ in range(5):
            found = told(c.get("/x"))
            assert found["client"] == ["127.0.0.1", 0] and found["scheme"] == "http"


@pytest.mark.parametrize(
    ("trusted", "client"),
    [
        ("127.0.0.1,unix", "203.0.113.9"),  # nginx and who asks it: what both say counts
        ("unix", "127.0.0.1"),  # nginx alone
        ("127.0.0.1", None),  # nobody: it comes by a Unix socket
    ],
)
def test_a_made_up_field_is_not_believed(
    launch: Callable[..., ServerProcess], tmp_path: Path, trusted: str, client: str | None
) -> None:
    server = launch(APP, "--uds", str(tmp_path / "app.sock"), "--forwarded-allow-ips", trusted)
    nginx = Nginx(tmp_path, f"unix:{server.address}")
    try:
        with Client(nginx.address) as c:
            found = told(c.get("/x", "X-Forwarded-For: 203.0.113.9"))
        assert found["client"] == (None if client is None else [client, 0])
    finally:
        nginx.stop()


def test_many_requests_and_bodies_over_kept_connections(proxied: Any) -> None:
    nginx, _ = proxied
    with Client(nginx.address) as c:
        for size in [0, 1, 1000, 100_000, 3_000_000] * 3:
            assert told(c.post("/x", bytes(size)))["length"] == size
        c.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
        assert all(told(c)["length"] == 0 for _ in range(50))
    assert "upstream prematurely closed" not in nginx.errors()


def test_an_upstream_connection_that_timed_out_is_no_error(
    launch: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = launch(APP, "--timeout-keep-alive", "0.2")
    nginx = Nginx(tmp_path, f"127.0.0.1:{server.port}")
    try:
        with Client(nginx.address) as c:
            for pause in (0.1, 0.19, 0.2, 0.21, 0.3):
                assert told(c.get("/x"))["path"] == "/x"
                time.sleep(pause)
    finally:
        nginx.stop()


def test_websocket(proxied: Any) -> None:
    nginx, _ = proxied
    with Client(nginx.address) as c:
        ws = WebSocket(c, "/ws", offer="permessage-deflate").opened()
        flags, _, data = ws.frame()
        assert flags & 0x80 and data
        for _ in range(20):
            ws.text("x" * 50)
            assert ws.frame()[0] & 0x80
        ws.end()


def test_server_sent_events_come_one_by_one_and_end_with_the_client(proxied: Any) -> None:
    nginx, server = proxied
    mark = server.log.mark()
    with Client(nginx.address) as c:
        assert c.get("/sse").head().status == 200
        begin = time.monotonic()
        got = b""
        while b"data: 3\n\n" not in got:
            got += c.read_some()
        assert time.monotonic() - begin < 1.5
    server.log.wait_for("the client has gone", mark, 2)


def test_a_restart_with_workers_loses_no_request(launch: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = launch(APP, "--workers", "2", "--uds", str(tmp_path / "app.sock"))
    nginx = Nginx(tmp_path, f"unix:{tmp_path / 'app.sock'}")
    try:
        mark = server.log.mark()
        server.signal(signal.SIGHUP)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            with Client(nginx.address) as c:
                for _ in range(20):  # nginx ends a connection after some requests
                    assert c.get("/x").response().status == 200
        server.log.wait_for("Finished server process", mark)
    finally:
        nginx.stop()
