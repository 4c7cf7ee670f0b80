"""TLS over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Pool, Starter
from tests.harness.client import Client
from tests.harness.process import ServerProcess
from tests.harness.thread import Receive, Scope, Send, ThreadServer
from tests.websocket.raw import WebSocket

from .client import TLSClient, context
from .conftest import Certificates

pytestmark = pytest.mark.ours
Launch = Callable[..., ServerProcess]
Secure = Callable[..., ThreadServer]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["scheme"]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"] == "/tls":
        body = json.dumps({"scheme": scope["scheme"], **scope["extensions"]["tls"]}).encode()
        await respond(send, [body])
    elif scope["path"] == "/big":
        await respond(send, [bytes(65536)] * 160)
    elif scope["path"] == "/file":
        length = (b"content-length", scope["query_string"])
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.pathsend", "path": scope["state"]["path"]})
    elif scope["path"] == "/small":
        await respond(send, [b"%03d" % i for i in range(1000)])
    elif scope["path"] == "/whole":
        await respond(send, [bytes(10_000_000)])
    else:
        length = 0
        while True:
            message = await receive()
            length += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await respond(send, [str(length).encode()])


async def respond(send: Send, pieces: list[bytes]) -> None:
    length = str(sum(map(len, pieces))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1]})


# IANA's registry of TLS parameters
SUITES = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
}


@pytest.fixture
def secure(start: Starter, certificates: Certificates) -> Callable[..., ThreadServer]:
    """A server with the certificate; the test's own, as what holds it is looked at."""

    def go(application: Any = app, **options: Any) -> ThreadServer:
        return start(application, ssl_certfile=certificates.cert, ssl_keyfile=certificates.key, **options)

    return go


@pytest.fixture
def trusting(certificates: Certificates) -> ssl.SSLContext:
    return context(certificates.ca)


# ------------------------------------------------------------------- handshakes


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_request(secure: Secure, certificates: Certificates, version: ssl.TLSVersion) -> None:
    server = secure()
    made = context(certificates.ca, minimum_version=version, maximum_version=version)
    made.set_alpn_protocols(["h2", "http/1.1"])
    with TLSClient(server.address, made) as c:
        assert c.tls.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
        assert c.tls.selected_alpn_protocol() == "http/1.1"
        for _ in range(3):
            found = json.loads(c.get("/tls").response().body)
            assert found["scheme"] == "https"
            assert found["tls_version"] == {ssl.TLSVersion.TLSv1_2: 0x0303, ssl.TLSVersion.TLSv1_3: 0x0304}[version]
            assert found["client_cert_chain"] == [] and found["client_cert_name"] is None
            assert found["cipher_suite"] == SUITES[c.tls.cipher()[0]]
            assert ssl.PEM_cert_to_DER_cert(found["server_cert"]) == c.tls.getpeercert(True)


@pytest.mark.stays("descriptors", "uvloop has a libuv of its own, with a pipe")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_in_other_loops(secure: Secure, trusting: ssl.SSLContext, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = secure(app, loop=loop)
    with TLSClient(server.address, trusting) as c:
        assert c.post("/", bytes(300_000)).response().body == b"300000"
        assert len(c.get("/big").response().body) == 160 * 65536


def test_sessions_are_resumed(secure: Secure, certificates: Certificates) -> None:
    server = secure()
    made = context(certificates.ca, maximum_version=ssl.TLSVersion.TLSv1_2)
    with TLSClient(server.address, made) as c:
        c.get("/").response()
        session = c.tls.session
    with socket.create_connection(server.address) as plain:  # type: ignore[arg-type]
        with made.wrap_socket(plain, server_hostname="localhost", session=session) as second:
            assert second.session_reused


def test_a_handshake_octet_by_octet(secure: Secure, trusting: ssl.SSLContext) -> None:
    server = secure()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with server.connect() as c:
        c.sock.settimeout(5)
        while True:
            done = False
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                done = True
            for octet in outgoing.read():
                c.send(bytes([octet]))
            if done:
                break
            incoming.write(c.sock.recv(7))
        tls.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        c.send(outgoing.read())
        got = b""
        while b"\r\n\r\n0" not in got:
            incoming.write(c.sock.recv(100))
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    got += tls.read(1000)
        assert got.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_says_nothing_is_dropped(secure: Secure) -> None:
    server = secure(app, timeout_first_byte=0.3)
    for data in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
        with server.connect() as c:
            begin = time.monotonic()
            c.send(data).expect_closed_clean(5)
            assert 0.2 < time.monotonic() - begin < 3


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"G",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000),
    ],
    ids=lambda data: data[:7].decode(),
)
def test_plain_http_on_the_tls_port_is_answered_so(secure: Secure, records: Any, data: bytes) -> None:
    server = secure()
    with server.connect() as c:
        r = c.send(data).response()
        assert r.status == 400 and r.closes and "TLS" in r.text
        c.half_close().expect_closed_clean()
    records.wait_for("This port speaks TLS, and the request was sent without it. (127.0.0.1:")


@pytest.mark.parametrize(
    "data", [b"\0" * 300, b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", b"\x80\x2e\x01\0\x02" + b"x" * 60]
)
def test_garbage_is_refused_and_the_server_goes_on(secure: Secure, trusting: ssl.SSLContext, data: bytes) -> None:
    server = secure()
    with server.connect() as c:
        c.send(data).expect_close(5)
    with TLSClient(server.address, trusting) as c:
        assert c.get("/").response().status == 200


def test_a_client_that_does_not_trust_us(secure: Secure) -> None:
    server = secure()
    with pytest.raises(ssl.SSLCertVerificationError):
        TLSClient(server.address, ssl.create_default_context())


def test_renegotiation_is_refused_and_a_key_update_is_not(secure: Secure) -> None:
    server = secure()
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    base = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-quiet", "-ign_eof"]
    request = "GET / HTTP/1.1\nHost: a\nConnection: close\n\n"
    done = subprocess.run([*base, "-tls1_3", "-crlf"], input=request, capture_output=True, text=True, timeout=20)
    assert "HTTP/1.1 200 OK" in done.stdout
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_3", "-crlf"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("K\n")  # a key update of both sides
        process.stdin.flush()
        time.sleep(0.3)
        process.stdin.write(request)
        process.stdin.flush()
        out = process.stdout.read()
    assert "KEYUPDATE" in out and "HTTP/1.1 200 OK" in out
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_2", "-crlf"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("R\n")
        process.stdin.flush()
        time.sleep(0.3)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        out = process.stdout.read()
    assert "RENEGOTIATING" in out and "HTTP/1.1" not in out


def test_curl(secure: Secure, certificates: Certificates) -> None:
    server = secure()
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    url = f"https://localhost:{server.port}"
    base = ["curl", "-sS", "--resolve", f"localhost:{server.port}:127.0.0.1", "--cacert", certificates.ca]
    # a sanitizer that is loaded into us is not meant for other programs
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [*base, f"{url}/", f"{url}/small", "--data-binary", "x" * 100_000],
        capture_output=True,
        timeout=20,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"100000" + b"".join(b"%03d" % i for i in range(1000))


# ------------------------------------------------------------------- client certificates


def test_a_client_certificate(start: Starter, certificates: Certificates) -> None:
    options = {"ssl_certfile": certificates.cert, "ssl_keyfile": certificates.key, "ssl_ca_certs": certificates.ca}
    server = start(app, **options, ssl_cert_reqs=ssl.CERT_REQUIRED)
    with TLSClient(server.address, context(certificates.ca, certificates.client)) as c:
        found = json.loads(c.get("/tls").response().body)
        assert found["client_cert_name"] == "CN=alice,O=Example\\, Inc.,C=DE"
        assert len(found["client_cert_chain"]) == 2, "OpenSSL's clients send what they find of the chain"
        for pem, name in zip(found["client_cert_chain"], (certificates.alice, certificates.ca), strict=True):
            with open(name) as file:
                assert ssl.PEM_cert_to_DER_cert(pem) == ssl.PEM_cert_to_DER_cert(file.read())
        assert found["client_cert_error"] is None
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with TLSClient(server.address, context(certificates.ca)) as c:
            c.tls.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert c.tls.recv(100) == b"", "answered"
            raise ConnectionError
    optional = start(app, **options, ssl_cert_reqs=ssl.CERT_OPTIONAL)
    with TLSClient(optional.address, context(certificates.ca)) as c:
        assert json.loads(c.get("/tls").response().body)["client_cert_chain"] == []


# ------------------------------------------------------------------- settings


def options_of(certificates: Certificates, **names: str) -> list[str]:
    return [f"--{flag.replace('_', '-')}={getattr(certificates, value)}" for flag, value in names.items()]


def test_a_key_with_a_password(launch: Launch, certificates: Certificates, trusting: ssl.SSLContext) -> None:
    options = options_of(certificates, ssl_certfile="cert", ssl_keyfile="locked")
    server = launch("tests.tls.test_tls:app", "--lifespan", "off", *options, "--ssl-keyfile-password", "secret")
    with TLSClient(server.address, trusting) as c:
        assert c.get("/").response().status == 200
    for more, hint in ((["--ssl-keyfile-password", "wrong"], ""), ([], "needs --ssl-keyfile-password")):
        failed = launch("tests.tls.test_tls:app", *options, *more, wait=False)
        assert failed.wait() == 3
        assert "TLS: cannot use --ssl-certfile" in failed.log.text() and hint in failed.log.text()
        assert "Traceback" not in failed.log.text()


@pytest.mark.parametrize(
    ("names", "more", "text"),
    [
        ({"ssl_certfile": "garbage", "ssl_keyfile": "key"}, [], "cannot use --ssl-certfile"),
        ({"ssl_certfile": "cert", "ssl_keyfile": "alice_key"}, [], "cannot use --ssl-certfile"),
        ({"ssl_keyfile": "key"}, [], "--ssl-certfile is missing"),
        ({"ssl_certfile": "cert", "ssl_keyfile": "key", "ssl_ca_certs": "garbage"}, [], "cannot use --ssl-ca-certs"),
        ({"ssl_certfile": "cert", "ssl_keyfile": "key"}, ["--ssl-ciphers=nonsense"], "cannot use --ssl-ciphers"),
    ],
)
def test_what_cannot_be_used_is_told(
    launch: Launch, certificates: Certificates, names: dict[str, str], more: list[str], text: str
) -> None:
    process = launch("tests.tls.test_tls:app", *options_of(certificates, **names), *more, wait=False)
    assert process.wait() == 3
    assert text in process.log.text() and "Traceback" not in process.log.text()


def test_a_missing_file_is_told(launch: Launch, certificates: Certificates) -> None:
    process = launch("tests.tls.test_tls:app", "--ssl-certfile=/no/such.pem", wait=False)
    assert process.wait() == 2
    assert "/no/such.pem" in process.log.text()


def test_a_context_of_ones_own(start: Starter, certificates: Certificates, trusting: ssl.SSLContext) -> None:
    names: list[str | None] = []

    def factory(config: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(certificates.cert, certificates.key)
        made.sni_callback = lambda sock, name, context: names.append(name)
        return made

    server = start(app, ssl_context_factory=factory)
    with TLSClient(server.address, trusting) as c:
        assert json.loads(c.get("/tls").response().body)["server_cert"] is None
    assert names == ["localhost"]


# ------------------------------------------------------------------- bodies


def test_bodies_both_ways(secure: Secure, trusting: ssl.SSLContext) -> None:
    server = secure()
    with TLSClient(server.address, trusting) as c:
        for size in (0, 1, 16383, 16384, 16385, 5_000_000):
            assert c.post("/", bytes(size)).response().body == str(size).encode()
        assert c.get("/small").response().body == b"".join(b"%03d" % i for i in range(1000))
        assert len(c.get("/whole").response().body) == 10_000_000
        assert len(c.get("/big").response().body) == 160 * 65536


def test_a_file(secure: Secure, trusting: ssl.SSLContext, tmp_path: Any) -> None:
    content = bytes(range(256)) * 12_000
    (tmp_path / "file").write_bytes(content)

    async def file(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["path"] = str(tmp_path / "file")
        await app(scope, receive, send)

    with TLSClient(secure(file).address, trusting) as c:
        for _ in range(2):
            assert c.get(f"/file?{len(content)}").response().body == content


def test_pipelined_requests(secure: Secure, trusting: ssl.SSLContext) -> None:
    server = secure()
    with TLSClient(server.address, trusting) as c:
        c.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        assert all(c.response().body == b"0" for _ in range(200))


def test_a_slow_reader_gets_all_and_holds_the_application(secure: Secure, trusting: ssl.SSLContext) -> None:
    sent = [0]

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(400):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            sent[0] += 1
        await send({"type": "http.response.body", "body": b"end"})

    server = secure(stream)
    with TLSClient(server.address, trusting, receive_buffer=16384) as c:
        c.get("/")
        time.sleep(0.7)
        assert 0 < sent[0] < 200, "26 MB would have gone into memory"
        body = c.response(timeout=40).body
        assert len(body) == 400 * 65536 + 3 and body.endswith(b"end")


def test_an_application_that_does_not_read_holds_the_client(secure: Secure, trusting: ssl.SSLContext) -> None:
    loops: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        go = asyncio.Event()
        loops.put((asyncio.get_running_loop(), go))
        await go.wait()
        await app(scope, receive, send)

    server = secure(late)
    with TLSClient(server.address, trusting) as c:
        size = 30_000_000
        c.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")
        c.sock.settimeout(1)
        left = size
        with pytest.raises(TimeoutError):
            while left:
                c.sock.send(bytes(min(left, 16384)))
                left -= min(left, 16384)
        assert left > 5_000_000
        c.sock.close()
        loop, go = loops.get(timeout=5)
        loop.call_soon_threadsafe(go.set)


# ------------------------------------------------------------------- ends


def test_the_server_ends_with_close_notify(secure: Secure, trusting: ssl.SSLContext) -> None:
    server = secure()
    with TLSClient(server.address, trusting) as c:
        assert c.get("/", "Connection: close").response().closes
        c.expect_closed_clean()  # an end without it would be ssl.SSLEOFError


def noting(got: queue.Queue[Any]) -> Any:
    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            got.put(message)
            if message["type"] == "http.disconnect":
                return
            if not message["more_body"] and scope["path"] == "/answer":
                await respond(send, [b"answer"])
                return

    return note


def test_close_notify_after_the_request_lets_the_answer_come(secure: Secure, trusting: ssl.SSLContext) -> None:
    server = secure(noting(queue.Queue()))
    with TLSClient(server.address, trusting) as c:
        c.send(b"GET /answer HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(ssl.SSLError, TimeoutError):
            c.sock.settimeout(0.01)
            c.tls.unwrap()
        # that client reads no more of it, but the server did not fail
    with TLSClient(server.address, trusting) as c:
        assert c.get("/answer").response().body == b"answer"


def test_an_end_without_close_notify_is_no_end_of_content(secure: Secure, trusting: ssl.SSLContext) -> None:
    got: queue.Queue[Any] = queue.Queue()
    server = secure(noting(got))
    with TLSClient(server.address, trusting) as c:
        c.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        assert got.get(timeout=5)["body"] == b"half"
        socket.socket.shutdown(c.sock, socket.SHUT_WR)  # TCP's end, under the TLS
        assert got.get(timeout=5) == {"type": "http.disconnect"}


def test_after_a_half_close_without_close_notify_nothing_is_answered(secure: Secure, trusting: ssl.SSLContext) -> None:
    server = secure()
    with TLSClient(server.address, trusting) as c:
        c.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        socket.socket.shutdown(c.sock, socket.SHUT_WR)
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert c.expect_close(5) == b""


# ------------------------------------------------------------------- WebSocket


def test_websocket(secure: Secure, trusting: ssl.SSLContext) -> None:
    server = secure()
    with TLSClient(server.address, trusting) as c:
        ws = WebSocket(c).opened()
        assert ws.message() == "wss"
        for text in ("a", "x" * 70_000, "ü" * 300_000):
            assert ws.text(text).message() == text
        ws.send(b"".join(b"\x81\x81\0\0\0\0x" for _ in range(300)))
        assert all(ws.message() == "x" for _ in range(300))
        ws.end()


# ------------------------------------------------------------------- workers, renewal, PROXY


def serial(address: Any, trusting: ssl.SSLContext) -> str:
    with TLSClient(address, trusting) as c:
        assert c.get("/").response().status == 200
        found = c.tls.getpeercert()
        assert found
        return str(found["serialNumber"])


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_hangup_reads_the_certificate_again(
    launch: Launch, certificates: Certificates, trusting: ssl.SSLContext, tmp_path: Any, workers: tuple[str, ...]
) -> None:
    import signal

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(certificates.cert, cert)
    shutil.copy(certificates.key, key)
    options = [
        "--lifespan",
        "off",
        "--ssl-certfile",
        str(cert),
        "--ssl-keyfile",
        str(key),
        "--timeout-keep-alive",
        "30",
    ]
    server = launch("tests.tls.test_tls:app", *options, *workers)
    assert serial(server.address, trusting) == "0B"
    with TLSClient(server.address, trusting) as old:
        assert old.get("/").response().status == 200
        shutil.copy(certificates.renewed, cert)
        shutil.copy(certificates.renewed_key, key)
        mark = server.log.mark()
        server.signal(signal.SIGHUP)
        if not workers:
            server.log.wait_for("The TLS certificate was read again", mark)
            assert serial(server.address, trusting) == "0C"
            found = json.loads(old.get("/tls").response().body)
            assert ssl.PEM_cert_to_DER_cert(found["server_cert"]) == old.tls.getpeercert(True)
            cert.write_text("nothing")
            mark = server.log.mark()
            server.signal(signal.SIGHUP)
            server.log.wait_for("TLS: cannot use --ssl-certfile .* What was read before stays in use", mark)
            assert serial(server.address, trusting) == "0C"
            assert old.get("/").response().status == 200
        else:
            end = time.monotonic() + 15
            while serial(server.address, trusting) != "0C":
                assert time.monotonic() < end
                time.sleep(0.05)
    assert "Traceback" not in server.log.text()


def test_a_proxy_header_comes_in_front_of_the_handshake(
    launch: Launch, certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    options = options_of(certificates, ssl_certfile="cert", ssl_keyfile="key")
    server = launch("tests.arrival.app:app", "--proxy-protocol", *options)
    header = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with server.connect() as c:
        c.sock.settimeout(5)
        c.send(header[:10]).wait_taken()
        c.send(header[10:] + outgoing.read())  # the hello in one piece with the rest of the header
        while True:
            incoming.write(c.sock.recv(10000))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        tls.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        c.send(outgoing.read())
        got = b""
        while b"}" not in got:
            incoming.write(c.sock.recv(10000))
            with contextlib.suppress(ssl.SSLWantReadError):
                got += tls.read(10000)
    found = json.loads(got.partition(b"\r\n\r\n")[2])
    assert (found["client"], found["scheme"]) == (["192.0.2.1", 56324], "https")


def test_plain_http_behind_a_proxy_header_is_told_so_too(launch: Launch, certificates: Certificates) -> None:
    options = options_of(certificates, ssl_certfile="cert", ssl_keyfile="key")
    server = launch("tests.arrival.app:app", "--proxy-protocol", *options)
    header, request = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for pieces in ((header + request,), (header, request), (header + request[:1], request[1:])):
        mark = server.log.mark()
        with server.connect() as c:
            r = c.send_read(*pieces).response()
            assert r.status == 400 and "TLS" in r.text
            c.half_close().expect_closed_clean()
        server.log.wait_for(r"\(192\.0\.2\.1:56324, answered 400\)", mark)


def test_the_address_in_the_log(pool: Pool, certificates: Certificates) -> None:
    server = pool(*options_of(certificates, ssl_certfile="cert", ssl_keyfile="key"))
    assert server.log.find(r"Capicorn running on https://127\.0\.0\.1:\d+ ")
    with Client(server.address) as c:
        assert c.get("/").response().status == 400
