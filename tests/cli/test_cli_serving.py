"""Where and what it serves, and what environment and flags change."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Launch = Callable[..., Any]


def ask(sock: socket.socket, path: str = "/") -> bytes:
    with sock:
        sock.settimeout(20)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while part := sock.recv(65536):
            data += part
    return data


def test_the_life_of_a_server_is_told_in_uvicorns_lines(launch: Launch) -> None:
    process = launch()
    port = process.port
    process.get("/x?y=1")
    process.signal(15)
    assert process.exit_code() == -15
    expected = [
        rf"INFO:     Started server process \[{process.proc.pid}\]",
        r"INFO:     Waiting for application startup\.",
        r"app: lifespan\.startup",
        r"INFO:     Application startup complete\.",
        rf"INFO:     Capicorn running on http://127\.0\.0\.1:{port} \(Press CTRL\+C to quit\)",
        r"INFO:     Shutting down",
        r"INFO:     Waiting for application shutdown\.",
        r"app: lifespan\.shutdown",
        r"INFO:     Application shutdown complete\.",
        rf"INFO:     Finished server process \[{process.proc.pid}\]",
    ]
    access = r'INFO:     127\.0\.0\.1:\d+ - "GET /x\?y=1 HTTP/1\.1" 200 OK'
    lines = [line for line in process.lines if not re.fullmatch(access, line)]
    assert len(lines) == len(process.lines) - 1
    assert len(lines) == len(expected), process.text
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.parametrize(
    "flags", [("--bind", "127.0.0.1:0"), ("-b", "127.0.0.1:0"), ("--host", "127.0.0.1", "--port", "0")]
)
def test_bind_and_host_say_the_same(launch: Launch, flags: tuple[str, ...]) -> None:
    process = launch(*flags, port=None)
    assert process.get()[0].status == 200


def test_ipv6(launch: Launch) -> None:
    process = launch("--host", "::1")
    port = int(process.wait_for(r"running on http://\[::1\]:(\d+) ")[1])
    assert b" 200 " in ask(socket.create_connection(("::1", port)))


def test_a_name_with_several_addresses_has_one_port(launch: Launch) -> None:
    process = launch("--host", "localhost")
    port = process.port
    for family, _, _, _, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
        sock = socket.socket(family)
        sock.connect(address)
        assert b" 200 " in ask(sock)


def test_a_unix_socket_is_open_to_all_and_removed_at_the_end(launch: Launch, folder: Path) -> None:
    path = folder / "s"
    process = launch("--uds", str(path))
    process.wait_for(re.escape(f"Capicorn running on unix socket {path} (Press CTRL+C to quit)"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    assert b'"client": null' in ask(sock)
    process.signal(15)
    process.exit_code()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_and_keeps_its_mode(launch: Launch, folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    path.chmod(0o600)
    process = launch("--uds", str(path))
    process.wait_for("running on unix socket")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_inherited_descriptor(launch: Launch) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        process = launch("--fd", str(sock.fileno()), pass_fds=(sock.fileno(),))
        process.wait_for(re.escape(f"Capicorn running on socket {sock.getsockname()} (Press CTRL+C to quit)"))
        assert b" 200 " in ask(socket.create_connection(sock.getsockname()))


@pytest.mark.parametrize(
    ("flags", "app"),
    [
        ((), "apps:Two"),
        (("--interface", "asgi2"), "apps:Two"),
        (("--factory",), "apps:factory"),
        ((), "apps:factory"),
        (("--lifespan", "off"), "apps:only_http"),
        (("--interface", "wsgi"), "apps:wsgi"),
        (("--loop", "asyncio"), "apps:app"),
        (("--loop", "none"), "apps:app"),
        (("--http", "h11", "--ws", "wsproto", "--workers", "1"), "apps:app"),
        (("--log-level", "trace"), "apps:app"),
    ],
)
def test_kinds_of_applications_and_loops(launch: Launch, flags: tuple[str, ...], app: str) -> None:
    process = launch(*flags, app=app)
    assert process.get()[0].status == 200


def test_a_wsgi_app_gets_the_path_and_streams(launch: Launch) -> None:
    process = launch("--interface", "wsgi", app="apps:wsgi")
    response, body = process.get("/p")
    assert (response.headers["x-length"], body) == ("0", b"one two /p")


def test_a_factory_without_the_flag_is_used_and_named(launch: Launch) -> None:
    process = launch(app="apps:factory")
    process.wait_for(r"^WARNING: +ASGI app factory detected\. Using it, but please consider setting the --factory flag")


def test_an_app_without_lifespan_is_served_and_that_is_said(launch: Launch) -> None:
    process = launch(app="apps:only_http")
    assert process.get()[1] == b"ok"
    process.wait_for(r"^INFO: +ASGI 'lifespan' protocol appears unsupported\.$")


def test_names_of_implementations_are_explained_at_debug_level(launch: Launch) -> None:
    process = launch("--http", "httptools", "--ws", "websockets", "--log-level", "debug")
    process.wait_for(r"^DEBUG: +http='httptools': Capicorn has one HTTP implementation")
    process.wait_for(r"^DEBUG: +ws='websockets': ")


def test_own_environment_variables_are_stronger_than_uvicorns_and_flags_than_both(launch: Launch) -> None:
    env = {"UVICORN_ROOT_PATH": "/theirs", "CAPICORN_ROOT_PATH": "/own", "UVICORN_HEADERS": "X-One:1 X-Two:2"}
    response, body = launch(env=env).get()
    assert json.loads(body)["root_path"] == "/own"
    assert (response.headers["x-one"], response.headers["x-two"]) == ("1", "2")
    assert json.loads(launch("--root-path", "/flag", env=env).get()[1])["root_path"] == "/flag"


def test_app_and_port_may_come_from_the_environment(launch: Launch) -> None:
    process = launch(app=None, port=None, env={"UVICORN_APP": "apps:app", "CAPICORN_PORT": "0"})
    assert process.get()[0].status == 200


def test_env_file_is_read_before_the_app(launch: Launch, folder: Path) -> None:
    pytest.importorskip("dotenv")
    (folder / "my.env").write_text("FROM_FILE=early\n")
    (folder / "late.py").write_text("import os\nassert os.environ['FROM_FILE'] == 'early'\nfrom apps import app\n")
    process = launch("--env-file", "my.env", app="late:app")
    assert json.loads(process.get()[1])["env"]["FROM_FILE"] == "early"
    process.wait_for("Loading environment from 'my.env'")


def test_app_dir_is_where_the_app_is_looked_up(launch: Launch, folder: Path) -> None:
    (folder / "sub").mkdir()
    os.rename(folder / "apps.py", folder / "sub" / "apps.py")
    assert launch("--app-dir", "sub").get()[0].status == 200


def test_default_headers(launch: Launch) -> None:
    response, _ = launch("--header", "X-A: b", "--header", "Server:other").get()
    assert (response.headers["x-a"], response.headers.get_all("server")) == ("b", ["other"])
    response, _ = launch("--no-server-header").get()
    assert "server" not in response.headers
    assert launch().get()[0].headers["server"] == "capicorn"


def test_max_requests_end_the_process(launch: Launch) -> None:
    process = launch("--limit-max-requests", "2")
    process.get()
    process.get()
    assert process.exit_code() == 0
    process.wait_for(r"Maximum request limit of 2 exceeded\. Terminating process\.$")
    process.wait_for("app: lifespan.shutdown")


def test_forwarded_fields_of_a_trusted_proxy(launch: Launch) -> None:
    headers = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
    seen = json.loads(launch().get("/", headers)[1])
    assert (seen["client"], seen["scheme"]) == (["1.2.3.4", 0], "https")
    seen = json.loads(launch("--no-proxy-headers").get("/", headers)[1])
    assert (seen["client"][0], seen["scheme"]) == ("127.0.0.1", "http")
    seen = json.loads(launch(env={"FORWARDED_ALLOW_IPS": "10.0.0.0/8"}).get("/", headers)[1])
    assert seen["client"][0] == "127.0.0.1"
