"""--proxy-protocol: whose header is believed, and what becomes of a connection without one."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pool
from tests.harness.client import Client
from tests.harness.process import ServerProcess

pytestmark = pytest.mark.ours
APP = "tests.arrival.app:app"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
V2 = SIGNATURE + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack("!HH", 56324, 443)
V2_6 = (
    SIGNATURE + b"\x21\x21\0\x24" + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + bytes(15) + b"\x01\x01\0\0\x50"
)
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def proxied(pool: Pool) -> ServerProcess:
    return pool("--proxy-protocol", app=APP)


def told(c: Client) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(c.response().body)
    return found


@pytest.mark.parametrize(
    ("header", "client", "server"),
    [
        (V1, ["192.0.2.1", 56324], ["198.51.100.7", 443]),
        (b"PROXY TCP6 2001:db8::1 ::1 7 80\r\n", ["2001:db8::1", 7], ["::1", 80]),
        (V2, ["192.0.2.1", 56324], ["198.51.100.7", 443]),
        (V2[:15] + b"\x10" + V2[16:] + b"\x04\0\1x", ["192.0.2.1", 56324], ["198.51.100.7", 443]),
        (V2_6, ["2001:db8::1", 256], ["::1", 80]),
    ],
)
def test_its_addresses_are_the_connections(proxied: ServerProcess, header: bytes, client: Any, server: Any) -> None:
    with proxied.connect() as c:
        for _ in range(2):  # of every request on it
            found = told(c.send(header + GET))
            assert (found["client"], found["server"], found["scheme"]) == (client, server, "http")
            header = b""


@pytest.mark.parametrize(
    "header",
    [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN a b c d\r\n", SIGNATURE + b"\x20\0\0\0", SIGNATURE + b"\x21\0\0\0"],
)
def test_without_addresses_the_connections_own_count(proxied: ServerProcess, header: bytes) -> None:
    with proxied.connect() as c:
        assert told(c.send(header + GET))["client"] == list(c.local)


@pytest.mark.parametrize("header", [V1, V2])
def test_it_may_come_octet_by_octet(proxied: ServerProcess, header: bytes) -> None:
    with proxied.connect() as c:
        c.send_read(*(bytes([octet]) for octet in header), GET[:5], GET[5:])
        assert told(c)["client"] == ["192.0.2.1", 56324]


def test_content_and_the_next_request_come_behind_it(proxied: ServerProcess) -> None:
    with proxied.connect() as c:
        body = bytes(200_000)
        c.send(V2 + b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + body + GET)
        assert told(c)["length"] == 200_000
        assert told(c)["length"] == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (GET, "The connection does not begin with a PROXY header"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 99999\r\n" + GET, "A port in the PROXY line is not a number up to 65535"),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n" + GET, "The PROXY line does not end in CRLF"),
        (b"PROXY " + b"x" * 120, "The PROXY line is longer than 107 octets"),
        (SIGNATURE + b"\x31\x11\0\0", "The PROXY header's version is not 2"),
        (V2[:14] + b"\0\x04abcd", "The PROXY header is shorter than its addresses"),
        (V1 + V1 + GET, "Invalid HTTP request"),
    ],
)
def test_a_wrong_one_ends_the_connection_and_is_told(proxied: ServerProcess, data: bytes, reason: str) -> None:
    mark = proxied.log.mark()
    with proxied.connect() as c:
        rest = c.send(data).expect_close()
    assert rest == b"" or (data.startswith(V1 + V1) and rest.startswith(b"HTTP/1.1 400 "))
    proxied.log.wait_for(reason.replace(".", r"\."), mark)


def test_a_connection_that_ends_in_it_is_told_and_one_that_says_nothing_is_not(proxied: ServerProcess) -> None:
    mark = proxied.log.mark()
    with proxied.connect() as c:
        c.half_close().expect_closed_clean()
    assert "PROXY" not in proxied.log.text(mark)
    with proxied.connect() as c:
        c.send(V1[:9]).half_close().expect_closed_clean()
    proxied.log.wait_for("The connection ended in it", mark)


def test_it_has_to_come_in_the_time_of_the_first_octet(launch: Callable[..., ServerProcess]) -> None:
    server = launch(APP, "--proxy-protocol", "--timeout-first-byte", "0.3")
    with server.connect() as c:
        begin = time.monotonic()
        c.send(V1[:20]).expect_closed_clean(5)
        assert 0.2 < time.monotonic() - begin < 3


def test_others_than_the_proxies_speak_http_and_are_not_believed(launch: Callable[..., ServerProcess]) -> None:
    server = launch(APP, "--proxy-protocol", "--proxy-allow-from", "192.0.2.0/24")
    with server.connect() as c:
        assert told(c.send(GET))["client"] == list(c.local)
    with server.connect() as c:
        assert c.send(V1 + GET).response().status == 400


def test_without_the_flag_it_is_no_request(pool: Pool) -> None:
    with pool(app=APP).connect() as c:
        assert c.send(V1 + GET).response().status == 400


def test_forwarded_fields_are_believed_of_the_client_that_it_names(launch: Callable[..., ServerProcess]) -> None:
    server = launch(APP, "--proxy-protocol", "--forwarded-allow-ips", "192.0.2.1")
    forwarded = GET.replace(b"Host", b"X-Forwarded-For: 203.0.113.9\r\nHost")
    with server.connect() as c:
        assert told(c.send(V1 + forwarded))["client"] == ["203.0.113.9", 0]
    with server.connect() as c:
        assert told(c.send(b"PROXY TCP4 192.0.2.2 1.1.1.1 9 9\r\n" + forwarded))["client"] == ["192.0.2.2", 9]


def test_over_a_unix_socket(launch: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = launch(APP, "--proxy-protocol", "--uds", str(tmp_path / "s"))
    with server.connect() as c:
        assert told(c.send(V1 + GET))["client"] == ["192.0.2.1", 56324]
    server = launch(APP, "--proxy-protocol", "--proxy-allow-from", "127.0.0.1", "--uds", str(tmp_path / "t"))
    with server.connect() as c:
        assert told(c.send(GET))["client"] is None


def test_the_access_log_has_the_client(proxied: ServerProcess) -> None:
    mark = proxied.log.mark()
    with proxied.connect() as c:
        c.send(V1 + GET.replace(b"/x", b"/logged")).response()
    proxied.log.wait_for(r'192\.0\.2\.1:56324 - "GET /logged HTTP/1\.1" 200', mark)


@pytest.mark.parametrize(("value", "on"), [("True", True), ('"auto"', True), ('"off"', False), ('"v1"', True)])
def test_gunicorns_names(launch: Callable[..., ServerProcess], tmp_path: Path, value: str, on: bool) -> None:
    (tmp_path / "conf.py").write_text(f"proxy_protocol = {value}\nproxy_allow_ips = '127.0.0.1'\n")
    server = launch(APP, "-c", str(tmp_path / "conf.py"))
    assert "unknown here" not in server.log.text()
    with server.connect() as c:
        c.send(V1 + GET)
        assert c.response().status == (200 if on else 400)
