"""While a worker's loop is blocked, what waits on its connections is served by its siblings."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..harness.client import Client
from ..tls.conftest import Certificates, certificates
from ..workers.conftest import Workers

__all__ = ["certificates"]

pytestmark = pytest.mark.ours

APP = "tests.guard.rescue_app:app"
SOON = 0.5
"""Seconds in which what is rescued has to be answered; the blocks last longer."""


def said(client: Client, timeout: float = 10.0) -> dict[str, Any]:
    """What the application says of the next answer's request."""
    response = client.response(timeout=timeout)
    assert response.status == 200
    return dict(json.loads(response.body))


def ask(client: Client, target: str = "/", timeout: float = 10.0) -> dict[str, Any]:
    client.get(target)
    return said(client, timeout)


class Blocked:
    """A worker that a request blocks: a context, on whose end it is not blocked any more."""

    def __init__(self, client: Client, how: str, seconds: float) -> None:
        self.client = client
        self.pid = ask(client)["pid"]
        self.target = f"{how}?{seconds}"
        self.begun = 0.0
        self.answer: dict[str, Any] = {}

    def __enter__(self) -> Blocked:
        self.client.get(self.target)
        self.begun = time.monotonic()
        time.sleep(0.05)
        return self

    def __exit__(self, *exc: object) -> None:
        self.answer = said(self.client)
        if exc == (None, None, None):
            assert self.answer["pid"] == self.pid

    def ends_in(self, seconds: float) -> float:
        return self.begun + seconds - time.monotonic()


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


def clients_of(server: Workers, number: int, at_least: int = 2) -> tuple[list[Client], dict[int, list[Client]]]:
    """So many connections that were used once, also by the number of their worker; each of two has some."""
    clients = [server.connect() for _ in range(number)]
    by_worker: dict[int, list[Client]] = collections.defaultdict(list)
    for client in clients:
        by_worker[ask(client)["pid"]].append(client)
    assert len(by_worker) >= at_least
    return clients, by_worker


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("how", ["/sleep", "/compute", "/hold"])
@pytest.mark.parametrize(("workers", "loop"), [(4, "auto"), (2, "auto"), (2, "asyncio")])
def test_64_kept_connections_and_new_ones_wait_for_nobody(launch: Launch, how: str, workers: int, loop: str) -> None:
    server = launch("--workers", str(workers), "--loop", loop)
    clients, by_worker = clients_of(server, 64)
    slowest: list[float] = []
    pids: set[int] = set()
    with Blocked(server.connect(), how, 2.0) as blocked:

        def one(client: Client) -> None:
            for turn in range(3):
                begin = time.monotonic()
                answer = ask(client, f"/{turn}")
                slowest.append(time.monotonic() - begin)
                pids.add(answer["pid"])
                assert answer["path"] == f"/{turn}"
                assert answer["client"] == list(client.local)

        threads = [threading.Thread(target=one, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in range(10):
            begin = time.monotonic()
            with server.connect() as client:
                pids.add(ask(client)["pid"])
            slowest.append(time.monotonic() - begin)
        assert blocked.ends_in(2.0) > 0
    assert len(slowest) == 64 * 3 + 10
    assert max(slowest) < SOON
    assert blocked.pid not in pids
    assert by_worker[blocked.pid]
    for client in clients:
        assert ask(client)["client"] == list(client.local)
    assert server.stop() == 0


def test_a_thread_that_keeps_the_gil_blocks_nobody_else(launch: Launch) -> None:
    """The loop is woken by one of the requests, and then waits for the GIL: it has read nothing of it yet."""
    server = launch("--workers", "2")
    _, by_worker = clients_of(server, 16)
    blocker = server.connect()
    pid = ask(blocker)["pid"]
    ask(blocker, "/starve?1.5")
    time.sleep(0.3)
    for client in by_worker[pid]:
        client.get("/waits")
    for client in by_worker[pid]:
        assert said(client, SOON)["pid"] != pid


def test_pipelined_requests_are_answered_in_order_and_logged_once(launch: Launch) -> None:
    server = launch("--workers", "2")
    _, by_worker = clients_of(server, 12)
    mark = server.log.mark()
    with Blocked(server.connect(), "/sleep", 1.5) as blocked:
        waiting = by_worker[blocked.pid]
        for index, client in enumerate(waiting):
            client.send("".join(f"GET /c{index}/n{n} HTTP/1.1\r\nHost: a\r\n\r\n" for n in range(6)))
        for index, client in enumerate(waiting):
            for n in range(6):
                answer = said(client, SOON)
                assert (answer["path"], answer["client"]) == (f"/c{index}/n{n}", list(client.local))
                assert answer["pid"] != blocked.pid
    assert server.stop() == 0
    text = server.log.text(mark)
    for index, client in enumerate(waiting):
        for n in range(6):
            assert text.count(f'{client.local[0]}:{client.local[1]} - "GET /c{index}/n{n} HTTP/1.1" 200') == 1


def test_content_of_every_size_arrives_whole(launch: Launch) -> None:
    server = launch("--workers", "2")
    _, by_worker = clients_of(server, 12)
    with Blocked(server.connect(), "/compute", 2.0) as blocked:
        for client, size in zip(by_worker[blocked.pid], (0, 1, 5000, 70000, 3_000_000), strict=False):
            body = os.urandom(size)
            sender = threading.Thread(target=client.post, args=("/upload", body))
            sender.start()
            answer = said(client, 1.0)
            sender.join()
            assert answer["octets"] == size
            assert answer["sha256"] == hashlib.sha256(body).hexdigest()
        assert blocked.ends_in(2.0) > 0


def test_a_connection_that_has_said_nothing_yet_is_rescued_with_its_first_request(launch: Launch) -> None:
    server = launch("--workers", "2")
    silent = [server.connect() for _ in range(12)]
    time.sleep(0.1)  # they are accepted
    with Blocked(server.connect(), "/sleep", 1.5) as blocked:
        for client in silent:
            answer = ask(client, "/first", SOON)
            assert answer["pid"] != blocked.pid
            assert answer["client"] == list(client.local)


def test_half_a_request_stays_where_it_is(launch: Launch) -> None:
    server = launch("--workers", "2")
    _, by_worker = clients_of(server, 12)
    blocker = server.connect()
    pid = ask(blocker)["pid"]
    client = by_worker[pid][0]
    client.send_read("GET /half HTTP/1.1\r\nHo")
    with Blocked(blocker, "/sleep", 1.0):
        client.send("st: a\r\n\r\n")
    answer = said(client)
    assert (answer["path"], answer["pid"]) == ("/half", pid)
    assert ask(client, "/whole")["path"] == "/whole"


def test_a_connection_that_ends_with_its_response_ends_for_the_client_at_once(launch: Launch) -> None:
    """Although the blocked worker has it open still."""
    server = launch("--workers", "2")
    _, by_worker = clients_of(server, 12)
    with Blocked(server.connect(), "/sleep", 2.0) as blocked:
        first, second = by_worker[blocked.pid][:2]
        first.get("/", "Connection: close")
        assert said(first, SOON)["pid"] != blocked.pid
        first.expect_closed_clean(SOON)
        second.send("GET / HTTP/1.1\r\n\r\n")  # no Host: refused
        assert second.response(timeout=SOON).status == 400
        second.expect_closed_clean(SOON)


def test_the_client_that_a_proxy_names_stays_the_client(launch: Launch) -> None:
    server = launch("--workers", "2", "--proxy-protocol")
    mark = server.log.mark()
    clients = []
    for n in range(12):
        client = server.connect()
        client.send(f"PROXY TCP4 192.0.2.{n} 198.51.100.7 4000{n % 10} 443\r\n")
        assert ask(client)["client"] == [f"192.0.2.{n}", 40000 + n % 10]
        clients.append(client)
    begins = [server.connect() for _ in range(4)]  # the header comes while it is blocked: they wait
    time.sleep(0.1)
    blocker = server.connect()
    blocker.send("PROXY UNKNOWN\r\n")
    with Blocked(blocker, "/sleep", 1.5) as blocked:
        for n, client in enumerate(clients):
            answer = ask(client, f"/rescued{n}", SOON)
            assert answer["client"] == [f"192.0.2.{n}", 40000 + n % 10]
            assert answer["server"] == ["198.51.100.7", 443]
            assert answer["pid"] != blocked.pid
        for client in begins:
            client.send("PROXY TCP6 2001:db8::1 2001:db8::2 7 8\r\n")
    for client in begins:
        assert ask(client)["client"] == ["2001:db8::1", 7]
    server.log.wait_for(r'192.0.2.3:40003 - "GET /rescued3 HTTP/1.1" 200', mark)


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_unix_sockets_and_workers_that_are_spawned(launch: Launch, tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "s")
    server = launch("--workers", "2", "--worker-start", kind, "--uds", path)
    _, by_worker = clients_of(server, 12)
    with Blocked(server.connect(), "/sleep", 1.5) as blocked:
        for client in by_worker[blocked.pid]:
            answer = ask(client, "/", SOON)
            assert answer["pid"] != blocked.pid
            assert (answer["client"], answer["server"]) == (None, [path, None])


def test_without_rescue_they_wait(launch: Launch) -> None:
    server = launch("--workers", "2", "--no-rescue")
    _, by_worker = clients_of(server, 12)
    with Blocked(server.connect(), "/sleep", 0.8) as blocked:
        waiting = by_worker[blocked.pid]
        for client in waiting:
            client.get("/waits")
    for client in waiting:
        assert said(client)["pid"] == blocked.pid


def test_tls_connections_wait_and_are_answered(launch: Launch, certificates: Certificates) -> None:
    import ssl

    server = launch("--workers", "2", "--ssl-certfile", certificates.cert, "--ssl-keyfile", certificates.key)
    context = ssl.create_default_context(cafile=certificates.ca)
    clients = []
    for _ in range(8):
        client = server.connect()
        client.sock = context.wrap_socket(client.sock, server_hostname="127.0.0.1")
        clients.append(client)
    workers = [ask(client)["pid"] for client in clients]
    with Blocked(clients[0], "/sleep", 1.0) as blocked:
        for client in clients[1:]:
            client.get("/")
    for client, pid in zip(clients[1:], workers[1:], strict=True):
        assert said(client)["pid"] == pid
    assert blocked.pid == workers[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_when_all_are_blocked_everything_waits_and_is_answered(launch: Launch, workers: int) -> None:
    """Longer than connections may be idle."""
    server = launch("--workers", str(workers), "--timeout-keep-alive", "1")
    clients, by_worker = clients_of(server, 16, workers)
    new: list[Client] = []
    blockers = [found[0] for found in by_worker.values()]
    for blocker in blockers:
        blocker.get("/sleep?2.2")
    time.sleep(0.2)
    for client in clients:
        if client not in blockers:
            client.get("/waits")
    for _ in range(4):
        new.append(server.connect().get("/new"))
    for client in clients:
        assert said(client)["path"] == ("/sleep" if client in blockers else "/waits")
    for client in new:
        assert said(client)["path"] == "/new"


def test_a_sibling_that_is_killed_takes_only_its_own_connections_with_it(launch: Launch) -> None:
    server = launch("--workers", "3", "--no-access-log")
    clients, by_worker = clients_of(server, 48, 3)
    blocker = server.connect()
    with Blocked(blocker, "/sleep", 3.0) as blocked:
        victim = next(pid for pid in by_worker if pid != blocked.pid)
        answered: list[Client] = []
        lost: list[int] = []
        wrong: list[str] = []

        def one(client: Client) -> None:
            pid = next(pid for pid, found in by_worker.items() if client in found)
            for n in range(100):
                try:
                    answer = ask(client, f"/{n}", 8.0)
                except (AssertionError, OSError):
                    lost.append(pid)
                    return
                if answer["path"] != f"/{n}":
                    wrong.append(f"{answer['path']} for /{n}")
                pid = answer["pid"]
            answered.append(client)

        threads = [threading.Thread(target=one, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        os.kill(victim, signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert not wrong
    assert len(answered) + len(lost) == 48
    # the victim's own, and what it had just received of the blocked worker's
    assert set(lost) <= {victim, blocked.pid}
    assert answered
    server.wait_children(3)
    with server.connect() as client:
        assert ask(client)["path"] == "/"


def test_a_sibling_without_free_descriptors_closes_idle_ones_for_those_that_come(launch: Launch) -> None:
    server = launch("--workers", "2", "--timeout-keep-alive", "60")
    _, by_worker = clients_of(server, 60)
    blocker = server.connect()
    pid = ask(blocker)["pid"]
    (sibling,) = (other for other in by_worker if other != pid)
    used = max(int(fd) for fd in os.listdir(f"/proc/{sibling}/fd")) + 1
    resource.prlimit(sibling, resource.RLIMIT_NOFILE, (used + 2, used + 2))
    mark = server.log.mark()
    with Blocked(blocker, "/sleep", 2.0):
        waiting = by_worker[pid]
        for client in waiting:
            if client is not blocker:
                client.get("/rescued")
        for client in waiting:
            if client is not blocker:
                assert said(client, 1.5)["pid"] == sibling
    server.log.wait_for("Cannot accept a connection: Too many open files. The connection that was idle longest", mark)
    assert server.children()


def test_hundreds_of_blocks_leave_no_descriptor_behind(launch: Launch) -> None:
    server = launch("--workers", "2", "--no-access-log", "--block-warn", "0")
    clients, by_worker = clients_of(server, 8)
    blockers = {pid: by_worker[pid][0] for pid in by_worker}
    others = [client for client in clients if client not in blockers.values()]
    moved = 0

    def total() -> int:
        time.sleep(0.3)
        return sum(descriptors(pid) for pid in blockers)

    before = total()
    for cycle in range(200):
        pid = list(blockers)[cycle % 2]
        blockers[pid].get("/sleep?0.06")
        time.sleep(0.001)
        for client in others:
            client.get(f"/{cycle}")
        for client in others:
            answer = said(client)
            assert answer["path"] == f"/{cycle}"
            moved += answer["pid"] != pid
        assert said(blockers[pid])["pid"] == pid
    assert moved > 200
    assert total() == before
    for client in clients:
        client.close()
    assert total() == before - len(clients)
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_or_a_reload_during_a_block_loses_nothing(launch: Launch, number: int) -> None:
    server = launch("--workers", "2", "--timeout-graceful-shutdown", "10")
    _, by_worker = clients_of(server, 16)
    before = server.children()
    blocker = server.connect()
    pid = ask(blocker)["pid"]
    mark = server.log.mark()
    blocker.get("/sleep?1.5")
    time.sleep(0.1)
    waiting = by_worker[pid]
    for client in waiting[: len(waiting) // 2]:
        assert ask(client, "/during", SOON)["path"] == "/during"
    server.signal(number)
    for client in waiting[len(waiting) // 2 :]:
        client.get("/after")
    for client in waiting[len(waiting) // 2 :]:
        assert said(client)["path"] == "/after"
    assert said(blocker)["pid"] == pid
    if number == signal.SIGTERM:
        assert server.wait() in (0, -number)
        return
    server.wait_children(2, without=before)
    assert "error" not in server.log.text(mark).lower()
    with server.connect() as client:
        assert ask(client)["path"] == "/"


def test_messages_on_their_way_are_taken_by_new_workers(launch: Launch) -> None:
    """A reload while all is busy: both are blocked in turn, and HUP comes in between."""
    server = launch("--workers", "2")
    stop = threading.Event()
    failed: list[str] = []
    count = [0]

    def load(number: int) -> None:
        while not stop.is_set():
            with server.connect() as client:
                for turn in range(20):
                    try:
                        answer = ask(client, "/sleep?0.05" if number == 0 and turn == 5 else f"/{number}")
                    except AssertionError as exc:
                        if "no response" in str(exc) and turn:
                            break  # an idle connection that its worker closed at its end
                        failed.append(repr(exc))
                        return
                    assert answer["client"] == list(client.local)
                    count[0] += 1

    threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        before = server.children()
        server.signal(signal.SIGHUP)
        server.wait_children(2, without=before)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert count[0] > 100
    assert server.stop() == 0
