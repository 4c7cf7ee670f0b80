"""Opening handshakes as RFC 6455 section 4 has them, and all the ways in which they can be wrong."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.harness.client import Response
from tests.harness.thread import Served

from .raw import FIN, RSV1, TEXT, WebSocket, frame

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
GOOD = [
    "GET /chat HTTP/1.1",
    "Host: server.example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
]


class App:
    """Notes what it was called with; accepts, or answers 200."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


def ask(serve: Served, *lines: str, more: bytes = b"") -> tuple[App, Response, Any]:
    app = App()
    c = serve(app)
    c.send("\r\n".join([*lines, "", ""]).encode("latin-1") + more)
    return app, c.head(), c


def without(name: str) -> list[str]:
    lines = [line for line in GOOD if not line.startswith(name + ":")]
    assert len(lines) == len(GOOD) - 1
    return lines


def with_(name: str, *values: str) -> list[str]:
    return [*without(name), *(f"{name}: {v}" for v in values)]


def test_4_2_2_the_rfcs_own_example(serve: Served) -> None:
    app, r, _ = ask(serve, *GOOD, "Origin: http://example.com", "Sec-WebSocket-Protocol: chat, superchat")
    assert r.status == 101
    assert r.get("sec-websocket-accept") == ACCEPT
    assert r.get("sec-websocket-protocol") is None  # the application chose none
    assert r.get("content-length") is None and r.get("transfer-encoding") is None
    assert app.scopes[0]["subprotocols"] == ["chat", "superchat"]
    assert (b"origin", b"http://example.com") in app.scopes[0]["headers"]


@pytest.mark.parametrize(
    "lines",
    [
        with_("Upgrade", "WebSocket"),
        with_("Upgrade", "WEBSOCKET"),
        with_("Connection", "upgrade"),
        with_("Connection", "UPGRADE"),
        with_("Connection", "keep-alive, Upgrade"),
        with_("Connection", "Upgrade,keep-alive"),
        with_("Connection", " ,, Upgrade ,"),
        with_("Connection", "keep-alive", "Upgrade"),
        [line.split(":")[0].upper() + ":" + line.split(":", 1)[1] if ":" in line else line for line in GOOD],
        [line.split(":")[0].lower() + ":" + line.split(":", 1)[1] if ":" in line else line for line in GOOD],
        [line.replace(": ", ":") for line in GOOD],
        [line.replace(": ", ":\t  ") + ("  \t" if ":" in line else "") for line in GOOD],
        [GOOD[0], *reversed(GOOD[1:])],
        [*GOOD, "Content-Length: 0"],
        ["GET http://server.example.com/chat HTTP/1.1", *GOOD[1:]],
        ["GET /chat?q=%20&x=\xe9 HTTP/1.1".encode("latin-1").decode("latin-1"), *GOOD[1:]],
    ],
    ids=lambda lines: lines[0][4:20] + lines[-1][:40],
)
def test_4_2_1_right_ones(serve: Served, lines: list[str]) -> None:
    if "\xe9" in lines[0]:
        lines = [lines[0].replace("\xe9", "%E9"), *lines[1:]]
    app, r, c = ask(serve, *lines, more=frame(TEXT, b"early"))
    assert r.status == 101, r
    assert r.get("sec-websocket-accept") == ACCEPT
    assert app.scopes[0]["type"] == "websocket" and app.scopes[0]["path"] == "/chat"
    ws = WebSocket.__new__(WebSocket)
    ws.c = c
    assert ws.message() == "early"
    ws.end()


KEYS = {
    "empty": "",
    "15 octets": base64.b64encode(bytes(15)).decode(),
    "17 octets": base64.b64encode(bytes(17)).decode(),
    "18 octets": base64.b64encode(bytes(18)).decode(),
    "32 octets": base64.b64encode(bytes(32)).decode(),
    "no padding": KEY.rstrip("="),
    "half padding": KEY[:-1],
    "more padding": KEY + "=",
    "padding inside": "dGhlIHNhbXBsZ===b25jZQ==",
    "not base 64": "dGhlIHNhbXBsZSBub25j*Q==",
    "url alphabet": "dGhlIHNhbXBsZSBub25j-_==",
    "a space inside": "dGhlIHNhbXBs ZSBub25jZQ==",
    "a list": KEY + ", " + KEY,
    "24 of padding": "=" * 24,
    "24 of A": "A" * 24,
    "latin-1": "dGhlIHNhbXBsZSBub25j\xe9Q==",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_4_2_1_a_key_is_base_64_of_16_octets(serve: Served, key: str) -> None:
    app, r, _ = ask(serve, *with_("Sec-WebSocket-Key", key))
    assert r.status == 400 and not app.scopes


WRONG = {
    "no key": without("Sec-WebSocket-Key"),
    "two keys": with_("Sec-WebSocket-Key", KEY, KEY),
    "two different keys": with_("Sec-WebSocket-Key", KEY, base64.b64encode(bytes(16)).decode()),
    "no version": without("Sec-WebSocket-Version"),
    "no host": without("Host"),
    "two hosts": with_("Host", "a", "a"),
    "head": ["HEAD /chat HTTP/1.1", *GOOD[1:]],
    "post": ["POST /chat HTTP/1.1", *GOOD[1:], "Content-Length: 0"],
    "lower case get": ["get /chat HTTP/1.1", *GOOD[1:]],
    "connect": ["CONNECT server.example.com:80 HTTP/1.1", *GOOD[1:]],
    "options of all": ["OPTIONS * HTTP/1.1", *GOOD[1:]],
    "two versions": with_("Sec-WebSocket-Version", "13", "13"),
}


@pytest.mark.parametrize("lines", WRONG.values(), ids=WRONG)
def test_4_2_1_wrong_ones(serve: Served, lines: list[str]) -> None:
    app, r, _ = ask(serve, *lines)
    assert r.status in (400, 405, 426), r
    assert not app.scopes


@pytest.mark.parametrize(
    "version",
    ["7", "8", "0", "12", "14", "25", "255", "256", "-13", "+13", "013", "13.0", "13, 8", "8, 13", "x", "", "\xb2"],
)
def test_4_4_another_version_is_told_ours(serve: Served, version: str) -> None:
    app, r, _ = ask(serve, *with_("Sec-WebSocket-Version", version))
    assert r.status in (400, 426) and not app.scopes
    if version in ("7", "8", "0", "12", "14", "25", "255"):
        assert r.status == 426
    if r.status == 426:
        assert r.get("sec-websocket-version") == "13"
        # RFC 9110 15.5.22: a 426 has an Upgrade field, and its name in Connection.
        assert (r.get("upgrade") or "").lower() == "websocket"
        assert "upgrade" in (r.get("connection") or "").lower()


NOT_ASKED = {
    "HTTP/1.0 (RFC 9110 7.8)": ["GET /chat HTTP/1.0", *GOOD[1:]],
    "no upgrade": without("Upgrade"),
    "no connection": without("Connection"),
    "connection without upgrade": with_("Connection", "keep-alive"),
    "connection with another token": with_("Connection", "Upgrade-Insecure"),
    "connection: websocket": with_("Connection", "websocket"),
    "another protocol": with_("Upgrade", "h2c"),
    "part of a token": with_("Upgrade", "websocketx"),
    "with a version": with_("Upgrade", "websocket/13"),
    "quoted": with_("Upgrade", '"websocket"'),
}


@pytest.mark.parametrize("lines", NOT_ASKED.values(), ids=NOT_ASKED)
def test_what_does_not_ask_for_a_websocket_is_http(serve: Served, lines: list[str]) -> None:
    app, r, _ = ask(serve, *lines)
    assert r.status in (200, 400, 426), r
    assert not app.scopes or [s["type"] for s in app.scopes] == ["http"]


@pytest.mark.parametrize("chunked", [False, True])
def test_content_in_a_handshake_is_never_taken_for_frames(serve: Served, chunked: bool) -> None:
    inside = frame(TEXT, b"smuggled")
    content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inside), inside) if chunked else inside
    field = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(inside)}"
    app, r, _ = ask(serve, *GOOD, field, more=content)
    # Then it is no handshake: refused, or a request that has content (RFC 9110 7.8 lets us ignore Upgrade).
    assert r.status in (200, 400)
    assert [s["type"] for s in app.scopes] == ["http"] * (r.status == 200)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b, c"], ["a", "b", "c"]),
        (["Sec-WebSocket-Protocol: , a ,, b\t,"], ["a", "b"]),
        (["sec-websocket-protocol: A,a"], ["A", "a"]),
        ([], []),
    ],
)
def test_4_1_protocols_in_several_lines(serve: Served, lines: list[str], expected: list[str]) -> None:
    app, r, _ = ask(serve, *GOOD, *lines)
    assert r.status == 101
    assert app.scopes[0]["subprotocols"] == expected


D = "permessage-deflate"
DECLINED = [
    "", ",", "x", f"x{D}", f"{D}x", f"{D}; server_max_window_bits=", f"{D}; server_max_window_bits=0",
    f"{D}; server_max_window_bits=07", f"{D}; server_max_window_bits=010", f"{D}; server_max_window_bits=1e1",
    f"{D}; server_max_window_bits=-9", f"{D}; server_max_window_bits=+9", f"{D}; server_max_window_bits=9.0",
    f"{D}; server_max_window_bits=99999999999999999999", f"{D}; server_max_window_bits=4294967306",
    f"{D}; server_max_window_bits=0x9", f"{D}; server_max_window_bits=9; server_max_window_bits=9",
    f"{D}; client_max_window_bits=7", f"{D}; client_max_window_bits=16", f"{D}; client_max_window_bits=",
    f"{D}; client_max_window_bits=\xb9", f"{D}; client_max_window_bits; client_max_window_bits",
    f"{D}; client_max_window_bits=9; client_max_window_bits", f"{D}; client_no_context_takeover=true",
    f"{D}; client_no_context_takeover=", f"{D}; server_no_context_takeover=0",
    f"{D}; server_no_context_takeover; server_no_context_takeover", f"{D}; mux", f"{D}; =", f"{D}; =9",
]  # fmt: skip
TAKEN = [
    D, f" {D} ", f"{D};client_max_window_bits", f"{D} ; client_max_window_bits=9",
    f'{D}; server_max_window_bits="10"', f'{D}; client_max_window_bits="15"', f"x; y=z, {D}", f'x; y="a\\b", {D}',
    f"{D}; server_max_window_bits=16, {D}; mux, {D}; client_max_window_bits", f"{D}, {D}; server_no_context_takeover",
    f'{D}; server_max_window_bits="1\\0"', f", , {D}, ,",
]  # fmt: skip


@pytest.mark.parametrize("offer", DECLINED)
def test_7692_7_1_offers_that_are_declined(serve: Served, offer: str) -> None:
    _, r, c = ask(serve, *GOOD, f"Sec-WebSocket-Extensions: {offer}", more=frame(TEXT, b"x" * 500))
    if r.status == 400 and (offer.strip(", ") == "" or offer.endswith(("=", "; =9")) or "\xb9" in offer):
        return  # not even a list of extensions (RFC 6455 9.1)
    assert r.status == 101, r
    assert r.get("sec-websocket-extensions") is None
    ws = WebSocket.__new__(WebSocket)
    ws.c = c
    assert ws.message() == "x" * 500
    ws.end()


@pytest.mark.parametrize("offer", TAKEN)
def test_7692_7_1_offers_that_are_taken(serve: Served, offer: str) -> None:
    _, r, c = ask(serve, *GOOD, f"Sec-WebSocket-Extensions: {offer}")
    assert r.status == 101, r
    answer = r.get("sec-websocket-extensions")
    assert answer is not None and answer.split(";")[0] == D and "," not in answer and '"' not in answer
    ws = WebSocket.__new__(WebSocket)
    ws.c = c
    ws.send(frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", flags=FIN | RSV1))  # RFC 7692 7.2.3.1
    _, opcode, data = ws.frame()
    assert opcode == TEXT and data
    ws.end()


def test_9_1_extensions_in_several_lines_are_one_list(serve: Served) -> None:
    _, r, _ = ask(
        serve, *GOOD, "Sec-WebSocket-Extensions: foo", f"Sec-WebSocket-Extensions: {D}; server_max_window_bits=10"
    )
    answer = r.get("sec-websocket-extensions")
    assert answer is not None and "server_max_window_bits=10" in answer


def test_the_first_offer_that_can_be_met_is_answered(serve: Served) -> None:
    _, r, _ = ask(
        serve, *GOOD, f"Sec-WebSocket-Extensions: {D}; server_max_window_bits=10; server_no_context_takeover, {D}"
    )
    answer = r.get("sec-websocket-extensions")
    assert answer is not None and "server_max_window_bits=10" in answer and "server_no_context_takeover" in answer
