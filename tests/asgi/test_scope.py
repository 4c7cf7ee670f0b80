"""The HTTP scope: keys, types and values as the ASGI specification (HTTP, 2.3) and uvicorn have them."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.apps.basic import ok, reply
from tests.conftest import Starter
from tests.harness.client import Client
from tests.harness.thread import Receive, Scope, Send, Served

KEYS = {"type", "asgi", "http_version", "server", "client", "scheme", "root_path", "headers", "state", "method", "path",
        "raw_path", "query_string"}  # fmt: skip
EXTENSIONS = {"http.response.pathsend", "http.response.zerocopysend", "http.response.trailers",
              "http.response.early_hint", "http.response.push", "tls"}  # fmt: skip
"""What a server may offer; `extensions` is only there when it offers something."""


class Recorder:
    """An application that keeps the scopes it was called with."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)  # type: ignore[arg-type]
        await ok(scope, receive, send)


def scope_of(serve: Served, request: str) -> tuple[dict[str, Any], Client]:
    app = Recorder()
    c = serve(app)
    c.send(request)
    assert c.response().status == 200
    (scope,) = app.scopes
    return scope, c


def get(target: str = "/", *fields: str, version: str = "1.1", method: str = "GET") -> str:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: a", *fields, "", ""])


def test_keys(serve: Served) -> None:
    scope, _ = scope_of(serve, get())
    assert type(scope) is dict
    assert set(scope) - {"extensions"} == KEYS


def test_extensions(serve: Served) -> None:
    scope, _ = scope_of(serve, get())
    if "extensions" not in scope:
        return
    assert type(scope["extensions"]) is dict
    assert scope["extensions"], "nothing is offered, so the key has to be absent"
    assert set(scope["extensions"]) <= EXTENSIONS
    assert all(type(v) is dict for v in scope["extensions"].values())


def test_types_and_values(serve: Served) -> None:
    scope, c = scope_of(serve, get("/caf%C3%A9%20x?a=b%20c&d", "X-One: 1"))
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": scope["asgi"]["spec_version"]}
    assert scope["http_version"] == "1.1"
    assert (scope["method"], type(scope["method"])) == ("GET", str)
    assert (scope["path"], type(scope["path"])) == ("/café x", str)
    assert (scope["raw_path"], type(scope["raw_path"])) == (b"/caf%C3%A9%20x", bytes)
    assert (scope["query_string"], type(scope["query_string"])) == (b"a=b%20c&d", bytes)
    assert (scope["scheme"], type(scope["scheme"])) == ("http", str)
    assert (scope["root_path"], type(scope["root_path"])) == ("", str)
    assert type(scope["headers"]) is list
    assert scope["headers"] == [(b"host", b"a"), (b"x-one", b"1")]
    assert all(type(h) is tuple and type(h[0]) is bytes and type(h[1]) is bytes for h in scope["headers"])
    assert scope["client"] == (c.local[0], c.local[1])
    assert scope["server"] == c.address
    assert type(scope["client"]) is tuple and type(scope["server"]) is tuple
    assert type(scope["client"][1]) is int and type(scope["server"][1]) is int
    assert scope["state"] == {} and type(scope["state"]) is dict


def test_spec_version(serve: Served) -> None:
    """2.4 would promise that send() raises OSError after a disconnect; Starlette then stops listening for it."""
    scope, _ = scope_of(serve, get())
    assert scope["asgi"]["spec_version"] == "2.3"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_http_version(serve: Served, version: str) -> None:
    scope, _ = scope_of(serve, get(version=version))
    assert (scope["http_version"], type(scope["http_version"])) == (version, str)


@pytest.mark.parametrize(
    ("target", "path", "raw", "query"),
    [
        ("/", "/", b"/", b""),
        ("/?", "/", b"/", b""),
        ("/a%2Fb", "/a/b", b"/a%2Fb", b""),
        ("/%25", "/%", b"/%25", b""),
        ("/%2525", "/%25", b"/%2525", b""),
        ("/a+b", "/a+b", b"/a+b", b""),
        ("/%ff", "/\ufffd", b"/%ff", b""),
        ("/%C3", "/\ufffd", b"/%C3", b""),
        ("/%F0%9F%90%B9", "/🐹", b"/%F0%9F%90%B9", b""),
        ("/%e4%bd%a0", "/你", b"/%e4%bd%a0", b""),
        ("/a?b?c", "/a", b"/a", b"b?c"),
        ("/a?%C3%A9", "/a", b"/a", b"%C3%A9"),
        ("//a//b", "//a//b", b"//a//b", b""),
        ("/a/../b", "/a/../b", b"/a/../b", b""),
        ("/%zz", "/%zz", b"/%zz", b""),
        ("/%4", "/%4", b"/%4", b""),
        ("/a%00b", "/a\0b", b"/a%00b", b""),
        ("/%0d%0a", "/\r\n", b"/%0d%0a", b""),
    ],
)
def test_paths(serve: Served, target: str, path: str, raw: bytes, query: bytes) -> None:
    """Decoded once, as UTF-8 with what is not UTF-8 replaced (urllib's unquote); raw and query as they came."""
    app = Recorder()
    c = serve(app)
    c.send(get(target))
    r = c.response()
    if r.status == 400 and ("%zz" in target or "%4" == target[1:] or "%00" in target):
        return  # a server may refuse these
    (scope,) = app.scopes
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw, query)


def test_asterisk(serve: Served) -> None:
    scope, _ = scope_of(serve, get("*", method="OPTIONS"))
    assert (scope["path"], scope["raw_path"]) == ("*", b"*")


@pytest.mark.ours
def test_absolute_form_replaces_host(serve: Served) -> None:
    """RFC 9112 3.2.2."""
    scope, _ = scope_of(serve, get("http://example.org:81/x?y", "X: z"))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/x", b"/x", b"y")
    assert [v for n, v in scope["headers"] if n == b"host"] == [b"example.org:81"]


def test_headers_keep_order_duplicates_underscores_and_octets(serve: Served) -> None:
    scope, _ = scope_of(serve, get("/", "B: 1", "A_b: 2", "b: 3", "X: \xe9", "Empty:"))
    assert scope["headers"] == [
        (b"host", b"a"),
        (b"b", b"1"),
        (b"a_b", b"2"),
        (b"b", b"3"),
        (b"x", b"\xe9"),
        (b"empty", b""),
    ]


def test_every_request_has_a_scope_of_its_own(serve: Served) -> None:
    """Frameworks write into it; nothing of that may be seen by the next request of the connection."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(
            {k: (list(v) if k == "headers" else dict(v) if isinstance(v, dict) else v) for k, v in scope.items()}
        )
        scope["headers"].append((b"mine", b"1"))
        scope["headers"][0] = (b"host", b"changed")
        scope["path"] = "/changed"
        scope["app"] = app
        scope["asgi"]["version"] = "9"
        scope["state"]["x"] = 1
        scope["client"] = None
        scope.setdefault("extensions", {})["mine"] = {}
        await ok(scope, receive, send)

    c = serve(app)
    for _ in range(4):
        c.send(get("/p", "X: y"))
        assert c.response().status == 200
    assert all(s == seen[0] for s in seen)
    assert set(seen[0]) - {"extensions"} == KEYS


@pytest.mark.parametrize("root", ["/api", "/api/v1"])
def test_root_path_is_in_path_and_raw_path(start: Starter, root: str) -> None:
    app = Recorder()
    with start(app, root_path=root).connect() as c:
        c.send(get("/x%20y?z"))
        assert c.response().status == 200
    (scope,) = app.scopes
    assert scope["root_path"] == root
    assert scope["path"] == root + "/x y"
    assert scope["raw_path"] == root.encode() + b"/x%20y"
    assert scope["query_string"] == b"z"


def test_unix_socket(start: Starter, tmp_path: Path) -> None:
    """No client; the server is its path."""
    app = Recorder()
    path = str(tmp_path / "s")
    with start(app, uds=path).connect() as c:
        c.send(get())
        assert c.response().status == 200
    (scope,) = app.scopes
    assert scope["client"] is None
    assert scope["server"] == (path, None)


def test_ipv6(start: Starter) -> None:
    if not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text():
        pytest.skip("no IPv6 here")
    app = Recorder()
    with start(app, host="::1").connect() as c:
        c.send(get())
        assert c.response().status == 200
    (scope,) = app.scopes
    assert scope["client"] == ("::1", c.local[1])
    assert scope["server"][0] == "::1"


def test_ipv4_client_of_a_socket_for_both_families(start: Starter) -> None:
    if not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text():
        pytest.skip("no IPv6 here")
    app = Recorder()
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as both:
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        both.bind(("::", 0))
        port = both.getsockname()[1]
        start(app, fd=both.fileno())
        with Client(("127.0.0.1", port)) as c:
            for _ in range(2):
                c.send(get())
                assert c.response().status == 200
            expected = ("::ffff:127.0.0.1", c.local[1])
    assert [scope["client"] for scope in app.scopes] == [expected] * 2
    assert [scope["server"] for scope in app.scopes] == [("::ffff:127.0.0.1", port)] * 2


def test_each_of_many_clients_has_its_own_address(start: Starter) -> None:
    """More than there are places in the table of those that ask often; in turns, so that they displace each other."""
    app = Recorder()
    server = start(app)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(300)]
        for _ in range(2):
            for c in clients:
                c.send(get())
                assert c.response().status == 200
        locals_ = [(c.local[0], c.local[1]) for c in clients]
    assert [scope["client"] for scope in app.scopes] == locals_ * 2
    assert {scope["server"] for scope in app.scopes} == {server.address}


def test_state_is_a_shallow_copy_for_each_request(start: Starter) -> None:
    shared: list[int] = []
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"].update(shared=shared, n=0)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            seen.append(dict(scope["state"]))
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append(dict(scope["state"]))
        scope["state"]["n"] += 1
        scope["state"]["own"] = True
        scope["state"]["shared"].append(1)
        await ok(scope, receive, send)

    server = start(app, lifespan="on")
    with server.connect() as c:
        for _ in range(2):
            c.send(get())
            assert c.response().status == 200
    server.stop()
    assert [s["n"] for s in seen] == [0, 0, 0]
    assert not any("own" in s for s in seen)
    assert all(s["shared"] is shared for s in seen)
    assert shared == [1, 1]


def test_forwarded_fields_of_a_trusted_peer(start: Starter) -> None:
    app = Recorder()
    with start(app, forwarded_allow_ips="127.0.0.1").connect() as c:
        c.send(get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"))
        assert c.response().status == 200
    (scope,) = app.scopes
    assert (scope["client"], scope["scheme"]) == (("1.2.3.4", 0), "https")


def test_forwarded_fields_of_a_stranger(start: Starter) -> None:
    app = Recorder()
    with start(app, forwarded_allow_ips="10.0.0.1").connect() as c:
        c.send(get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"))
        assert c.response().status == 200
        peer = c.local
    (scope,) = app.scopes
    assert (scope["client"], scope["scheme"]) == ((peer[0], peer[1]), "http")


def test_forwarded_fields_switched_off(start: Starter) -> None:
    app = Recorder()
    with start(app, proxy_headers=False).connect() as c:
        c.send(get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"))
        assert c.response().status == 200
    (scope,) = app.scopes
    assert scope["scheme"] == "http"
    assert scope["client"][0] == "127.0.0.1"


def test_forwarded_fields_do_not_stay_for_the_next_request(start: Starter) -> None:
    app = Recorder()
    with start(app, forwarded_allow_ips="*").connect() as c:
        for field in ("X-Forwarded-For: 1.2.3.4", "X-Other: 1", "X-Forwarded-For: 5.6.7.8"):
            c.send(get("/", field))
            assert c.response().status == 200
        peer = (c.local[0], c.local[1])
    assert [s["client"] for s in app.scopes] == [("1.2.3.4", 0), peer, ("5.6.7.8", 0)]


def test_large_number_of_distinct_fields_on_one_connection(serve: Served) -> None:
    """Names that were seen are kept ready; names made up by a client may not grow without an end (see soak)."""
    app = Recorder()
    c = serve(app)
    for i in range(300):
        c.send(get("/", f"X-{i}: {i}"))
        assert c.response().status == 200
    assert [dict(s["headers"])[f"x-{i}".encode()] for i, s in enumerate(app.scopes)] == [
        str(i).encode() for i in range(300)
    ]


async def answer_with_process(scope: Scope, receive: Receive, send: Send) -> None:
    await reply(send, str(os.getpid()).encode())


def test_served_in_this_process(serve: Served) -> None:
    assert serve(answer_with_process).get("/").response().text == str(os.getpid())
