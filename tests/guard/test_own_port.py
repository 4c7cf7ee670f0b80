"""Health checks on the server's own port: answered without the application, whatever the loop does."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..harness.client import Client
from ..workers.conftest import Workers
from .conftest import Guarded, health
from .test_rescue import ask, said

pytestmark = pytest.mark.ours

APP = "tests.guard.rescue_app:app"
HEALTH = ("--health-path", "/healthz")

Launch = Callable[..., Workers]


@pytest.fixture
def launch() -> Iterator[Launch]:
    started: list[Workers] = []

    def go(*options: str, app: str = APP, **more: Any) -> Workers:
        started.append(Workers(app, *options, **more))
        return started[-1]

    yield go
    for server in started:
        server.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[Guarded]:
    with Guarded(APP, *HEALTH) as it:
        yield it


class Probes:
    """A probe every 100 ms, each on a connection of its own, and every 100 ms on one that is kept."""

    def __init__(self, server: Workers) -> None:
        self.port = server.port
        self.statuses: list[Any] = []
        self.slowest = 0.0
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(kept,)) for kept in (False, True)]

    def _run(self, kept: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1.0)
        while not self._end.wait(0.1):
            begin = time.monotonic()
            try:
                if kept:
                    connection.request("GET", "/healthz")
                    response = connection.getresponse()
                    self.statuses.append((response.status, response.read()))
                else:
                    status, text = health(self.port)
                    self.statuses.append((status, text.encode()))
            except (OSError, http.client.HTTPException) as exc:
                self.statuses.append(repr(exc))
                connection.close()
            self.slowest = max(self.slowest, time.monotonic() - begin)
        connection.close()

    def __enter__(self) -> Probes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


REQUESTS = [
    ("GET", "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"ok\n", False),
    ("query", "GET /healthz?full=1&x=%20 HTTP/1.1\r\nHost: a\r\n\r\n", b"ok\n", False),
    ("HEAD", "HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"", False),
    (
        "many fields",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nUser-Agent: kube-probe/1.30\r\n\r\n",
        b"ok\n",
        False,
    ),
    ("keep-alive", "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", b"ok\n", False),
    ("close", "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"ok\n", True),
    ("HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n", b"ok\n", True),
]


def check(client: Client, request: str, text: bytes, closes: bool) -> None:
    method = request.partition(" ")[0]
    client.send(request)
    response = client.response(method, timeout=0.5)
    assert response.status == 200
    assert response.body == text
    assert response.get("content-length") == "3"
    assert response.get("cache-control") == "no-store"
    assert response.closes == closes


@pytest.mark.parametrize(("request_", "text", "closes"), [r[1:] for r in REQUESTS], ids=[r[0] for r in REQUESTS])
def test_answers_while_the_loop_is_free(server: Guarded, request_: str, text: bytes, closes: bool) -> None:
    with server.connect() as client:
        assert ask(client)["path"] == "/"
        check(client, request_, text, closes)
        if closes:
            client.expect_closed_clean()
            return
        check(client, request_, text, closes)
        assert ask(client, "/after")["path"] == "/after"


@pytest.mark.parametrize(("request_", "text", "closes"), [r[1:] for r in REQUESTS], ids=[r[0] for r in REQUESTS])
@pytest.mark.parametrize("kept", [True, False])
def test_answers_while_the_loop_is_blocked(
    server: Guarded, request_: str, text: bytes, closes: bool, kept: bool
) -> None:
    with server.connect() as blocker, contextlib.ExitStack() as stack:
        client = stack.enter_context(server.connect()) if kept else None
        if client is not None:
            ask(client)
        blocker.get("/sleep?0.6")
        time.sleep(0.05)
        if client is None:
            client = stack.enter_context(server.connect())
        check(client, request_, text, closes)
        if closes:
            client.expect_closed_clean(0.4)
        else:
            check(client, request_, text, closes)
            client.get("/after")
        assert said(blocker)["path"] == "/sleep"
        if not closes:
            assert said(client)["path"] == "/after"


OTHERS = [
    ("POST", "POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy", 200),
    ("content", "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy", 200),
    ("longer path", "GET /healthzz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("no Host", "GET /healthz HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("space before the colon", "GET /healthz HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
    ("folded", "GET /healthz HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", 400),
    ("bare LF", "GET /healthz HTTP/1.1\nHost: a\n\n", 400),
    ("no HTTP", "hello\r\n\r\n", 400),
    ("halves", "GET /heal", 0),
]


@pytest.mark.parametrize(("request_", "status"), [r[1:] for r in OTHERS], ids=[r[0] for r in OTHERS])
@pytest.mark.parametrize("kept", [True, False])
def test_what_is_not_plainly_a_health_check_waits_for_the_loop(
    server: Guarded, request_: str, status: int, kept: bool
) -> None:
    with server.connect() as blocker, contextlib.ExitStack() as stack:
        client = stack.enter_context(server.connect()) if kept else None
        if client is not None:
            ask(client)
        blocker.get("/sleep?0.5")
        time.sleep(0.05)
        if client is None:
            client = stack.enter_context(server.connect())
        client.send(request_)
        time.sleep(0.2)
        client.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.sock.recv(1)
        assert said(blocker)["path"] == "/sleep"
        if status == 0:
            client.send("thz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.response().body == b"ok\n"
        else:
            assert client.response().status == status


@pytest.mark.parametrize("how", ["/sleep", "/compute", "/hold", "/starve"])
@pytest.mark.parametrize(("workers", "loop"), [(1, "auto"), (1, "asyncio"), (2, "auto")])
def test_probes_never_fail_while_all_workers_are_blocked(launch: Launch, how: str, workers: int, loop: str) -> None:
    server = launch(*HEALTH, "--workers", str(workers), "--loop", loop)
    clients: dict[int, Client] = {}
    while len(clients) < workers:
        client = server.connect()
        clients.setdefault(ask(client)["pid"], client)
    with Probes(server) as probes:
        time.sleep(0.3)
        for client in clients.values():
            client.get(f"{how}?1.5")
        for client in clients.values():
            said(client)
        time.sleep(0.5 if how != "/starve" else 2.0)
    assert len(probes.statuses) > 20
    assert set(probes.statuses) == {(200, b"ok\n")}
    assert probes.slowest < 0.5
    assert server.stop() == 0


def test_with_two_workers_the_free_one_does_the_rest(launch: Launch) -> None:
    server = launch(*HEALTH, "--workers", "2")
    blocker = server.connect()
    ask(blocker)
    with Probes(server) as probes:
        blocker.get("/sleep?1.5")
        time.sleep(0.1)
        for _ in range(10):
            with server.connect() as client:
                assert ask(client, "/", 0.5)["path"] == "/"
        said(blocker)
    assert set(probes.statuses) == {(200, b"ok\n")}


def test_new_connections_with_other_requests_are_kept_and_served_in_full(launch: Launch) -> None:
    """More than are kept: the others wait in the kernel."""
    server = launch(*HEALTH)
    blocker = server.connect()
    ask(blocker)
    blocker.get("/sleep?1.5")
    time.sleep(0.1)
    clients = [server.connect() for _ in range(300)]
    for number, client in enumerate(clients):
        client.post(f"/{number}", b"x" * number)
    gone = clients.pop()
    gone.close()
    with Client(server.address) as late:
        assert said(blocker)["path"] == "/sleep"
        assert ask(late)["path"] == "/"
    for number, client in enumerate(clients):
        answer = said(client)
        assert (answer["path"], answer["octets"], answer["client"]) == (f"/{number}", number, list(client.local))
    for client in clients:
        client.close()
    before = server.descriptors()
    for _ in range(5):
        blocker.get("/sleep?0.2")
        time.sleep(0.05)
        for _ in range(10):
            server.connect().close()
        said(blocker)
    time.sleep(0.2)
    assert server.descriptors() <= before
    assert server.stop() == 0


def test_a_stop_during_a_block_serves_those_that_were_kept(launch: Launch) -> None:
    server = launch(*HEALTH)
    blocker = server.connect()
    ask(blocker)
    blocker.get("/sleep?1.0")
    time.sleep(0.1)
    clients = [server.connect().get("/kept") for _ in range(20)]
    time.sleep(0.1)
    server.signal(signal.SIGTERM)
    for client in clients:
        assert said(client)["path"] == "/kept"
    assert said(blocker)["path"] == "/sleep"
    assert server.wait() in (0, -signal.SIGTERM)


def test_it_is_not_logged_and_not_counted_as_a_request(launch: Launch) -> None:
    server = launch(*HEALTH, "--limit-max-requests", "3")
    mark = server.log.mark()
    for _ in range(10):
        assert health(server.port) == (200, "ok\n")
    with server.connect() as client:
        assert ask(client, "/one")["path"] == "/one"
    server.log.wait_for("GET /one", mark)
    assert "healthz" not in server.log.text(mark)
    assert server.alive


def test_a_proxy_header_comes_first_all_the_same(launch: Launch) -> None:
    server = launch(*HEALTH, "--proxy-protocol")
    header = "PROXY TCP4 192.0.2.1 198.51.100.7 4000 443\r\n"
    blocker = server.connect()
    blocker.send(header)
    ask(blocker)
    kept = server.connect()
    kept.send(header)
    ask(kept)
    blocker.get("/sleep?1.0")
    time.sleep(0.1)
    kept.get("/healthz")
    assert kept.response(timeout=0.5).body == b"ok\n"
    new = server.connect()
    new.send(header + "GET /new HTTP/1.1\r\nHost: a\r\n\r\n")
    said(blocker)
    assert said(new)["client"] == ["192.0.2.1", 4000]
    assert ask(kept)["client"] == ["192.0.2.1", 4000]


def test_unix_sockets_have_it_too(launch: Launch, tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    server = launch(*HEALTH, "--uds", path)
    blocker = server.connect()
    ask(blocker)
    blocker.get("/sleep?1.0")
    time.sleep(0.1)
    with server.connect() as client:
        client.get("/healthz")
        assert client.response(timeout=0.5).body == b"ok\n"
        client.get("/next")
        said(blocker)
        answer = said(client)
        assert (answer["path"], answer["client"], answer["server"]) == ("/next", None, [path, None])


def test_an_address_of_its_own_answers_as_well() -> None:
    with Guarded(APP, "--health-bind", "127.0.0.1:0", "--health-path", "/live") as server:
        server.health_port = server.find_health()
        blocker = server.connect()
        ask(blocker)
        for _ in range(2):
            assert health(server.health_port, "/live") == (200, "ok\n")
            assert health(server.port, "/live") == (200, "ok\n")
            blocker.get("/sleep?0.5")
            time.sleep(0.05)
        said(blocker)
        said(blocker)


def test_not_ready_while_it_ends(launch: Launch) -> None:
    server = launch(*HEALTH)
    kept, blocker = server.connect(), server.connect()
    kept.get("/healthz")
    assert kept.response().status == 200
    ask(blocker)
    blocker.get("/wait?0")
    said(blocker)
    blocker.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")  # it is waited for
    time.sleep(0.1)
    server.signal(signal.SIGTERM)
    server.log.wait_for("Shutting down")
    kept.get("/healthz")
    try:
        response = kept.response()
        assert response.status == 503
        assert response.closes
    except AssertionError as exc:  # an idle connection may have been closed before
        assert re.search("no response", str(exc))
    blocker.send("x")
    assert said(blocker)["octets"] == 1
