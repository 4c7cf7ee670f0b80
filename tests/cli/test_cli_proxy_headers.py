"""Whom the X-Forwarded fields are believed, and what they make of a scope."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from capicorn.middleware.proxy_headers import ProxyHeaders, ProxyHeadersMiddleware, TrustedHosts


def resolved(
    trusted: Any, client: Any, *fields: tuple[str, str], kind: str = "http"
) -> tuple[tuple[str, int] | None, str]:
    scope = {
        "type": kind,
        "scheme": "ws" if kind == "websocket" else "http",
        "client": client,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields],
    }
    ProxyHeaders(trusted).resolve(scope)
    return scope["client"], scope["scheme"]


FOR, PROTO, FWD = "x-forwarded-for", "x-forwarded-proto", "forwarded"
PEER = ("127.0.0.1", 5)


@pytest.mark.parametrize(
    ("trusted", "client", "fields", "expected"),
    [
        ("127.0.0.1", PEER, [(FOR, "1.2.3.4")], ("1.2.3.4", 0)),
        ("127.0.0.1", PEER, [(FOR, "6.6.6.6, 1.2.3.4")], ("1.2.3.4", 0)),
        ("127.0.0.1", PEER, [(FOR, "6.6.6.6"), (FOR, "1.2.3.4")], ("1.2.3.4", 0)),
        ("127.0.0.1, 1.2.3.4", PEER, [(FOR, "6.6.6.6, 1.2.3.4")], ("6.6.6.6", 0)),
        (["127.0.0.1", "1.2.3.0/24"], PEER, [(FOR, "6.6.6.6, 1.2.3.4")], ("6.6.6.6", 0)),
        ("127.0.0.1", PEER, [(FOR, "127.0.0.1, 127.0.0.1")], ("127.0.0.1", 0)),
        ("*", PEER, [(FOR, "6.6.6.6, 1.2.3.4")], ("6.6.6.6", 0)),
        (["*"], None, [(FOR, "6.6.6.6")], ("6.6.6.6", 0)),
        ("10.0.0.1", PEER, [(FOR, "1.2.3.4")], PEER),
        ("127.0.0.1", None, [(FOR, "1.2.3.4")], None),
        ("unix", None, [(FOR, "6.6.6.6, 1.2.3.4")], ("1.2.3.4", 0)),
        ("unix", PEER, [(FOR, "1.2.3.4")], PEER),
        ("127.0.0.1", PEER, [(FOR, "")], PEER),
        ("127.0.0.1", PEER, [(FOR, "1.2.3.4:88")], ("1.2.3.4", 88)),
        ("127.0.0.1", PEER, [(FOR, "[2001:db8::1]:88")], ("2001:db8::1", 88)),
        ("127.0.0.1", PEER, [(FOR, "2001:db8::1")], ("2001:db8::1", 0)),
        ("127.0.0.1", PEER, [(FOR, "1.2.3.4:99999")], ("1.2.3.4:99999", 0)),
        ("127.0.0.1", PEER, [(FOR, "1.2.3.4:\u00b2")], ("1.2.3.4:\u00b2", 0)),
        ("127.0.0.1", PEER, [(FOR, "1.2.3.4, [::1")], ("[::1", 0)),
        ("127.0.0.1", PEER, [(FOR, "unknown")], ("unknown", 0)),
        ("127.0.0.1", ("::ffff:127.0.0.1", 5), [(FOR, "1.2.3.4")], ("1.2.3.4", 0)),
        ("::1", ("0:0:0:0:0:0:0:1", 5), [(FOR, "1.2.3.4")], ("1.2.3.4", 0)),
        ("a-socket", ("a-socket", 0), [(FOR, "1.2.3.4")], ("1.2.3.4", 0)),
        ("127.0.0.1", PEER, [(FWD, "for=1.2.3.4")], ("1.2.3.4", 0)),
        ("127.0.0.1", PEER, [(FWD, 'For="1.2.3.4:88"; proto=https;by=_us')], ("1.2.3.4", 88)),
        ("127.0.0.1", PEER, [(FWD, 'for="[2001:db8::1]:88"')], ("2001:db8::1", 88)),
        ("127.0.0.1", PEER, [(FWD, 'for="[2001:db8::1]:_x"')], ("2001:db8::1", 0)),
        ("127.0.0.1", PEER, [(FWD, "for=6.6.6.6, for=1.2.3.4")], ("1.2.3.4", 0)),
        ("127.0.0.1", PEER, [(FWD, "for=6.6.6.6"), (FWD, "for=1.2.3.4")], ("1.2.3.4", 0)),
        ("127.0.0.1, 1.2.3.4", PEER, [(FWD, "for=9.9.9.9,for=6.6.6.6 , for=1.2.3.4")], ("6.6.6.6", 0)),
        ("*", PEER, [(FWD, "for=6.6.6.6,, for=1.2.3.4,")], ("6.6.6.6", 0)),
        ("127.0.0.1", PEER, [(FWD, "for=_secret")], ("_secret", 0)),
        ("127.0.0.1", PEER, [(FWD, "for=unknown")], ("unknown", 0)),
        ("127.0.0.1", PEER, [(FWD, "proto=https")], PEER),
        ("127.0.0.1, 1.2.3.4", PEER, [(FWD, "for=6.6.6.6, by=x, for=1.2.3.4")], ("1.2.3.4", 0)),
        # what the client wrote in front of our proxy's element does not hide it
        ("127.0.0.1", PEER, [(FWD, 'for="6.6.6.6, for=1.2.3.4')], ("1.2.3.4", 0)),
        ("127.0.0.1", PEER, [(FWD, 'for="6.6.6.6\\, for="1.2.3.4:5"')], ("1.2.3.4", 5)),
        ("127.0.0.1", PEER, [(FWD, 'for="6.6.6.6;a=", for="1.2.3.4:5"')], ("1.2.3.4", 5)),
        ("127.0.0.1", PEER, [(FWD, "((((, for=1.2.3.4")], ("1.2.3.4", 0)),
        ("127.0.0.1", PEER, [(FWD, 'for=1.2.3.4;ext="a, b"')], ("1.2.3.4", 0)),
        ("127.0.0.1", PEER, [(FWD, "for=1.2.3.4, ((((")], PEER),
        ("127.0.0.1", PEER, [(FWD, "for=1.2.3.4;for=6.6.6.6")], PEER),
        ("127.0.0.1", PEER, [(FWD, "," * 5000)], PEER),
        ("127.0.0.1", PEER, [(FWD, "")], PEER),
        ("10.0.0.1", PEER, [(FWD, "for=1.2.3.4")], PEER),
        # one kind counts
        ("127.0.0.1", PEER, [(FWD, "for=6.6.6.6"), (FOR, "1.2.3.4")], ("1.2.3.4", 0)),
        ("127.0.0.1", PEER, [(FWD, "for=6.6.6.6"), (PROTO, "https")], PEER),
    ],
)
def test_the_client(trusted: Any, client: Any, fields: list[tuple[str, str]], expected: Any) -> None:
    assert resolved(trusted, client, *fields)[0] == expected


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("http", ["https"], "https"),
        ("http", [" https "], "https"),
        ("http", ["https", "http"], "http"),
        ("http", ["javascript"], "http"),
        ("http", ["https,http"], "http"),
        ("websocket", ["https"], "wss"),
        ("websocket", ["http"], "ws"),
        ("websocket", ["wss"], "wss"),
    ],
)
def test_the_scheme(kind: str, values: list[str], expected: str) -> None:
    assert resolved("127.0.0.1", PEER, *((PROTO, value) for value in values), kind=kind)[1] == expected


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("auto", (("1.2.3.4", 0), "http")),
        ("x-forwarded", (("1.2.3.4", 0), "http")),
        ("forwarded", (("6.6.6.6", 0), "https")),
    ],
)
def test_which_field_the_proxies_set_can_be_said(setting: str, expected: Any) -> None:
    scope = {
        "type": "http",
        "scheme": "http",
        "client": PEER,
        "headers": [(b"x-forwarded-for", b"1.2.3.4"), (b"forwarded", b"for=6.6.6.6;proto=https")],
    }
    ProxyHeaders("127.0.0.1", setting).resolve(scope)
    assert (scope["client"], scope["scheme"]) == expected
    only = {**scope, "client": PEER, "scheme": "http", "headers": [(b"forwarded", b"for=6.6.6.6")]}
    ProxyHeaders("127.0.0.1", setting).resolve(only)
    assert only["client"] == (PEER if setting == "x-forwarded" else ("6.6.6.6", 0))


@pytest.mark.parametrize(
    ("kind", "field", "expected"),
    [
        ("http", "for=1.2.3.4;proto=https", "https"),
        ("http", "for=1.2.3.4;Proto=HTTPS", "https"),
        ("http", 'proto="https";for=1.2.3.4', "https"),
        ("http", "for=1.2.3.4;proto=https, for=127.0.0.1;proto=http", "https"),
        ("http", "for=6.6.6.6;proto=https, for=1.2.3.4;proto=http", "http"),
        ("http", "for=1.2.3.4;proto=gopher", "http"),
        ("websocket", "for=1.2.3.4;proto=https", "wss"),
    ],
)
def test_the_scheme_of_forwarded(kind: str, field: str, expected: str) -> None:
    assert resolved("127.0.0.1", PEER, (FWD, field), kind=kind)[1] == expected


def test_a_long_name_is_not_remembered() -> None:
    hosts = TrustedHosts("127.0.0.1")
    assert "9" * 3000 not in hosts
    assert hosts._remembered.cache_info().currsize == 0


def test_the_middleware_leaves_lifespan_alone() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    middleware: Any = ProxyHeadersMiddleware(app, trusted_hosts="*")
    asyncio.run(middleware({"type": "lifespan"}, None, None))
    asyncio.run(middleware({"type": "http", "client": None, "headers": [(b"x-forwarded-for", b"1.1.1.1")]}, None, None))
    assert seen == [{"type": "lifespan"}, {**seen[1], "client": ("1.1.1.1", 0)}]
