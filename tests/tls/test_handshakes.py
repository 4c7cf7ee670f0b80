"""Handshakes and ends as other TLS stacks and hostile peers make them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Starter
from tests.harness.thread import ThreadServer, core_counts

from .client import TLSClient, context
from .conftest import Certificates, server_certificate
from .test_tls import Secure, app, secure, trusting

__all__ = ["secure", "trusting"]

pytestmark = pytest.mark.ours


class Bare:
    """A client whose records are in our hands."""

    def __init__(self, server: ThreadServer, made: ssl.SSLContext, name: str = "localhost") -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = made.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.c = server.connect()
        self.c.sock.settimeout(5)

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self.c.close()

    def push(self) -> None:
        self.c.send(self.outgoing.read())

    def pull(self) -> bool:
        """False at the end of the TCP stream."""
        data = self.c.sock.recv(65536)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return bool(data)

    def shake(self) -> Bare:
        while True:
            try:
                self.tls.do_handshake()
                self.push()
                return self
            except ssl.SSLWantReadError:
                self.push()
                assert self.pull(), "the server ended the connection in the handshake"

    def read_all(self) -> tuple[bytes, bool]:
        """To the end: what came, and whether close_notify was its end."""
        got = b""
        while True:
            try:
                data = self.tls.read(65536)
                if not data:
                    return got, True
                got += data
            except ssl.SSLWantReadError:
                self.pull()
            except ssl.SSLZeroReturnError:
                return got, True
            except ssl.SSLEOFError:
                return got, False


# ------------------------------------------------------------------- openssl s_client


def s_client(
    server: ThreadServer, *options: str, request: str = "GET /tls HTTP/1.1\nHost: a\nConnection: close\n\n"
) -> str:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-crlf", "-ign_eof", *options],
        input=request,
        capture_output=True,
        text=True,
        timeout=20,
        # a sanitizer that is loaded into us is not meant for other programs
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(("flag", "name"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_s_client(secure: Secure, certificates: Certificates, flag: str, name: str) -> None:
    out = s_client(secure(), flag, "-CAfile", certificates.ca, "-verify_hostname", "localhost", "-alpn", "h2,http/1.1")
    assert "HTTP/1.1 200 OK" in out and name in out
    assert "Verify return code: 0 (ok)" in out
    assert "ALPN protocol: http/1.1" in out
    assert "Secure Renegotiation IS supported" in out or name == "TLSv1.3"


@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
def test_s_client_resumes(secure: Secure, tmp_path: Any, flag: str) -> None:
    server, session = secure(), str(tmp_path / "session")
    assert "New, TLSv1" in s_client(server, flag, "-sess_out", session)
    out = s_client(server, flag, "-sess_in", session)
    assert "Reused, TLSv1" in out and "HTTP/1.1 200 OK" in out


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1"])
def test_versions_that_are_broken_are_refused(secure: Secure, flag: str) -> None:
    assert "HTTP/1.1" not in s_client(secure(), flag, "-cipher", "DEFAULT@SECLEVEL=0")


def test_no_protocol_in_common_is_no_error(secure: Secure, trusting: ssl.SSLContext) -> None:
    # RFC 7301 3.2 would have an alert; OpenSSL by way of CPython goes on without ALPN, as uvicorn does.
    trusting.set_alpn_protocols(["spdy/3"])
    with TLSClient(secure().address, trusting) as c:
        assert c.tls.selected_alpn_protocol() is None
        assert c.get("/").response().status == 200


def test_sessions_of_tls_1_3_are_resumed(secure: Secure, certificates: Certificates) -> None:
    server = secure()
    made = context(certificates.ca, minimum_version=ssl.TLSVersion.TLSv1_3)
    with TLSClient(server.address, made) as c:
        c.get("/").response()  # the tickets come with the answer
        session = c.tls.session
    with socket.create_connection(server.address) as plain:  # type: ignore[arg-type]
        with made.wrap_socket(plain, server_hostname="localhost", session=session) as second:
            second.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert second.recv(100).startswith(b"HTTP/1.1 200 ")
            assert second.session_reused


def test_the_ticket_comes_without_a_request(secure: Secure, trusting: ssl.SSLContext) -> None:
    """It may leave with the first answer, but does not wait for it."""
    trusting.minimum_version = ssl.TLSVersion.TLSv1_3
    with Bare(secure(), trusting).shake() as bare:
        assert bare.pull()
        with pytest.raises(ssl.SSLWantReadError):
            bare.tls.read()
        assert bare.tls.session is not None and bare.tls.session.has_ticket


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_records_however_they_arrive(secure: Secure, trusting: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    """In one segment with the handshake's end, octet by octet, many at once: each is read, and none twice."""
    trusting.minimum_version = trusting.maximum_version = version
    want = b"HTTP/1.1 200 "
    with Bare(secure(), trusting).shake() as bare:

        def answers(n: int, body: bytes = b"0") -> None:
            got = b""
            while got.count(want) < n or not got.endswith(b"\r\n\r\n" + body):
                try:
                    got += bare.tls.read(65536)
                except ssl.SSLWantReadError:
                    assert bare.pull()
            assert got.count(want) == n

        bare.tls.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for octet in bare.outgoing.read():
            bare.c.send(bytes([octet]))
            time.sleep(0.0005)
        answers(1)
        for _ in range(20):
            bare.tls.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        records = bare.outgoing.read()
        bare.c.send(records[:1000])
        time.sleep(0.02)
        bare.c.send(records[1000:])
        answers(20)
        bare.tls.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))
        bare.push()
        answers(1, b"300000")


def test_a_client_that_closes_is_not_lingered_for(secure: Secure, trusting: ssl.SSLContext) -> None:
    server = secure()
    before = core_counts()["connections"]
    with TLSClient(server.address, trusting) as c:
        assert c.get("/", "Connection: close").response().closes
    end = time.monotonic() + 1.5
    while core_counts()["connections"] > before:
        assert time.monotonic() < end
        time.sleep(0.01)


# ------------------------------------------------------------------- time


@pytest.mark.parametrize("pause", [0.05, 5.0], ids=["drips", "stops"])
def test_the_handshake_has_a_time_and_not_each_octet(secure: Secure, trusting: ssl.SSLContext, pause: float) -> None:
    server = secure(timeout_first_byte=0.5)
    with Bare(server, trusting) as bare:
        with pytest.raises(ssl.SSLWantReadError):
            bare.tls.do_handshake()
        hello = bare.outgoing.read()
        begin = time.monotonic()
        ended = threading.Event()

        def drip() -> None:
            for octet in hello:
                bare.c.send(bytes([octet]))
                if ended.wait(pause):
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            bare.c.expect_close(5)
        finally:
            ended.set()
            thread.join()
        assert 0.3 < time.monotonic() - begin < 3


def test_handshakes_that_stand_still_hold_up_nobody(secure: Secure, trusting: ssl.SSLContext) -> None:
    server = secure()
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            bare = stack.enter_context(Bare(server, trusting))
            with pytest.raises(ssl.SSLWantReadError):
                bare.tls.do_handshake()
            bare.c.send(bare.outgoing.read()[:100])
        with TLSClient(server.address, trusting) as c:
            begin = time.monotonic()
            assert c.get("/").response().status == 200
            assert time.monotonic() - begin < 2


@pytest.mark.parametrize("cut", [1, 5, 6, 50, 200, 10_000])
def test_a_client_that_leaves_in_the_handshake(secure: Secure, trusting: ssl.SSLContext, cut: int) -> None:
    server = secure()
    for reset in (False, True):
        with Bare(server, trusting) as bare:
            with pytest.raises(ssl.SSLWantReadError):
                bare.tls.do_handshake()
            bare.c.send(bare.outgoing.read()[:cut])
            if reset:
                bare.c.reset()
            else:
                bare.c.half_close().expect_close(5)
    with TLSClient(server.address, trusting) as c:
        assert c.get("/").response().status == 200


# ------------------------------------------------------------------- ends


def test_a_client_that_ended_its_side_gets_the_answer(secure: Secure, trusting: ssl.SSLContext) -> None:
    with Bare(secure(), trusting).shake() as bare:
        bare.tls.write(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            bare.tls.unwrap()  # close_notify, behind the request (RFC 8446 6.1)
        bare.push()
        got, notified = bare.read_all()
        assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"998999") and notified


def test_and_also_when_it_shut_the_socket_after_its_close_notify(secure: Secure, trusting: ssl.SSLContext) -> None:
    with Bare(secure(), trusting).shake() as bare:
        bare.tls.write(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            bare.tls.unwrap()
        bare.push()
        bare.c.half_close()
        got, notified = bare.read_all()
        assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"998999") and notified


@pytest.mark.logs("ASGI callable returned without completing response")
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_response_that_fails_in_the_middle_does_not_look_complete(
    secure: Secure, trusting: ssl.SSLContext, version: str
) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    server = secure(failing)
    with Bare(server, trusting).shake() as bare:
        bare.tls.write(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version.encode())
        bare.push()
        try:
            got, notified = bare.read_all()
        except ConnectionResetError:
            return
        # Without chunks close_notify would be the end of the content (RFC 9112 9.8).
        assert b"0\r\n\r\n" not in got and not (notified and version == "1.0")


def test_data_behind_close_notify_is_nothing(secure: Secure, trusting: ssl.SSLContext) -> None:
    with Bare(secure(), trusting).shake() as bare:
        bare.tls.write(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            bare.tls.unwrap()
        bare.c.send(bare.outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        got, _ = bare.read_all()
        assert got.endswith(b"998999")


@pytest.mark.parametrize("flip", [0, 3, 4, 10, -1], ids=["type", "length", "length", "content", "tag"])
def test_a_record_that_was_changed_on_its_way_ends_the_connection(
    secure: Secure, trusting: ssl.SSLContext, flip: int
) -> None:
    server = secure()
    with Bare(server, trusting).shake() as bare:
        bare.tls.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        record = bytearray(bare.outgoing.read())
        record[flip] ^= 0x40
        bare.c.send(bytes(record))
        bare.c.half_close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            got, _ = bare.read_all()
            assert not got
    with TLSClient(server.address, trusting) as c:
        assert c.get("/").response().status == 200


# ------------------------------------------------------------------- SNI


def test_a_context_for_each_name(start: Starter, certificates: Certificates) -> None:
    folder = certificates.folder
    if not (folder / "other.pem").exists():
        server_certificate(folder, "other", 31)

    def factory(config: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        made = default()
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        other.load_cert_chain(folder / "other.pem", folder / "other_key.pem")
        other.set_alpn_protocols(["http/1.1"])

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            if name == "other.example":
                connection.context = other
            elif name == "unknown.example":
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            return None

        made.sni_callback = choose
        return made

    server = start(app, ssl_context_factory=factory, ssl_certfile=certificates.cert, ssl_keyfile=certificates.key)
    made = context(certificates.ca)
    made.check_hostname = False
    for name, number in (("localhost", "0B"), ("other.example", "1F"), ("localhost", "0B")):
        with Bare(server, made, name).shake() as bare:
            found = bare.tls.getpeercert()
            assert found is not None and found["serialNumber"] == number
            bare.tls.write(b"GET /tls HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            bare.push()
            got, notified = bare.read_all()
            told = json.loads(got.partition(b"\r\n\r\n")[2])
            assert notified and told["cipher_suite"] is not None
            assert (told["server_cert"] is None) == (name == "other.example")
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"), Bare(server, made, "unknown.example") as bare:
        bare.shake()
