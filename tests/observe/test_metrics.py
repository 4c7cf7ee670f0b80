"""--metrics: what Prometheus reads, on an address of its own."""

from __future__ import annotations

import http.client
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from capicorn._core import Scoreboard
from capicorn.metrics import MOST_CONNECTIONS, MetricsThread, render
from capicorn.presence import BOUNDS

from .conftest import Launch, Seen

pytestmark = pytest.mark.ours

WORKERS = [(), ("--workers", "2")]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Samples:
    """The exposition format, strictly: each family once, its HELP and TYPE before its samples, no sample twice."""
    assert text.endswith("\n")
    samples: Samples = {}
    family, kind, seen = "", "", set()
    helped = ""
    for line in text[:-1].split("\n"):
        if m := re.fullmatch(r"# HELP ([a-z_]+) (\S.*)", line):
            assert m[1] not in seen
            seen.add(helped := m[1])
        elif m := re.fullmatch(r"# TYPE ([a-z_]+) (counter|gauge|histogram)", line):
            assert m[1] == helped
            family, kind = m[1], m[2]
            assert (kind == "counter") == family.endswith("_total")
        else:
            m = re.fullmatch(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (-?[0-9.e+-]+)', line)
            assert m, line
            name = m[1].removeprefix(family)
            assert name in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",)), line
            labels = tuple(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', m[2] or ""))
            assert (m[1], labels) not in samples
            samples[m[1], labels] = float(m[3])
    return samples


class Scraped:
    def __init__(self, server: Seen) -> None:
        found = server.log.wait_for(r"Metrics on http://127.0.0.1:(\d+)/metrics")
        self.port = int(found[1])

    def ask(self, method: str = "GET", path: str = "/metrics") -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()

    def read(self) -> Samples:
        response, text = self.ask()
        assert response.status == 200
        return parse(text)

    def text(self) -> str:
        return self.ask()[1]


ON = ("--metrics", "127.0.0.1:0")


@pytest.mark.parametrize("options", WORKERS, ids=" ".join)
def test_what_was_served_is_counted_over_all_workers(served: Launch, options: tuple[str, ...]) -> None:
    server = served(*ON, "--threads", "3", *options)
    scraped = Scraped(server)
    for path in ("/", "/", "/404", "/503", "/raise"):
        server.ask(path)
    server.ask("/wait/here?0.06")
    time.sleep(0.1)
    samples = scraped.read()
    by_class = {labels[0][1]: n for (name, labels), n in samples.items() if name == "capicorn_requests_total"}
    assert by_class == {"1xx": 0, "2xx": 3, "3xx": 0, "4xx": 1, "5xx": 2}
    assert samples["capicorn_request_errors_total", ()] == 1
    buckets = [n for (name, _), n in samples.items() if name == "capicorn_request_duration_seconds_bucket"]
    assert buckets == sorted(buckets) and len(buckets) == len(BOUNDS) + 1
    assert buckets[-1] == samples["capicorn_request_duration_seconds_count", ()] == 6
    assert samples["capicorn_request_duration_seconds_bucket", (("le", "0.05"),)] == 5
    assert 0.06 <= samples["capicorn_request_duration_seconds_sum", ()] < 1
    assert samples["capicorn_connections_accepted_total", ()] == 6
    workers = len([1 for name, _ in samples if name == "capicorn_worker_up"])
    assert workers == (2 if options else 1)
    for slot in range(workers):
        labels = (("worker", str(slot)),)
        assert samples["capicorn_worker_up", labels] == 1 and samples["capicorn_threads_max", labels] == 3
        assert samples["capicorn_requests_in_flight", labels] == 0
    assert abs(samples["process_start_time_seconds", ()] - time.time()) < 30


@pytest.mark.parametrize("options", WORKERS, ids=" ".join)
def test_a_scrape_is_answered_while_all_loops_are_blocked(served: Launch, options: tuple[str, ...]) -> None:
    server = served(*ON, "--block-warn", "0.2", *options)
    scraped = Scraped(server)
    threads = [server.ask_soon("/block?2") for _ in range(4)]
    time.sleep(1.0)
    begin = time.monotonic()
    samples = scraped.read()
    assert time.monotonic() - begin < 0.5
    lags = [n for (name, _), n in samples.items() if name == "capicorn_loop_lag_seconds"]
    assert max(lags) > 0.5 and samples["capicorn_loop_blocked_total", ()] >= 1
    assert 1 in [n for (name, _), n in samples.items() if name == "capicorn_worker_blocked"]
    for thread in threads:
        thread.join()


def test_counters_never_go_backwards_when_workers_are_replaced(served: Launch) -> None:
    server = served(*ON, "--workers", "2")
    scraped = Scraped(server)
    before: Samples = {}
    for _ in range(3):
        for _ in range(5):
            server.ask("/404")
        pids = [worker["pid"] for worker in server.status()["workers"]]
        os.kill(pids[0], signal.SIGKILL)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            samples = scraped.read()
            for key, n in samples.items():
                if key[0].endswith(("_total", "_bucket", "_sum", "_count")):
                    assert n >= before.get(key, 0), key
            before = samples
    assert before["capicorn_requests_total", (("status", "4xx"),)] == 15
    assert before["capicorn_worker_restarts_total", ()] == 3 and before["capicorn_worker_starts_total", ()] == 5


def test_threads_at_work_are_shown(served: Launch) -> None:
    server = served(*ON, "--threads", "2")
    scraped = Scraped(server)
    threads = [server.ask_soon("/thread?3") for _ in range(3)]
    time.sleep(1.6)
    samples = scraped.read()
    assert samples["capicorn_threads_busy", (("worker", "0"),)] == 2
    assert samples["capicorn_threads_queued", (("worker", "0"),)] == 1
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("options", WORKERS, ids=" ".join)
def test_get_and_head_of_the_path_and_nothing_else(served: Launch, options: tuple[str, ...]) -> None:
    scraped = Scraped(served(*ON, *options))
    response, text = scraped.ask()
    assert response.getheader("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert int(response.getheader("content-length") or 0) == len(text)
    response, text = scraped.ask("HEAD")
    assert response.status == 200 and int(response.getheader("content-length") or 0) > 1000 and text == ""
    assert scraped.ask(path="/metrics?x=y")[0].status == 200
    assert [scraped.ask(path=path)[0].status for path in ("/", "/metric", "/metrics/")] == [404] * 3
    response, _ = scraped.ask("POST")
    assert response.status == 405 and response.getheader("allow") == "GET, HEAD"
    for request, status in ((b"nonsense\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nx: " + b"y" * 9000, b"431")):
        with socket.create_connection(("127.0.0.1", scraped.port), 5) as sock:
            sock.sendall(request)
            assert sock.recv(64).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("options", WORKERS, ids=" ".join)
def test_clients_that_are_slow_or_many_hold_up_nobody(served: Launch, options: tuple[str, ...]) -> None:
    server = served(*ON, *options)
    scraped = Scraped(server)
    scraped.read()
    server.ask("/")  # what is opened once
    before = server.descriptors()
    idle = [socket.create_connection(("127.0.0.1", scraped.port)) for _ in range(MOST_CONNECTIONS * 3)]
    for sock in idle[::2]:
        sock.sendall(b"GET /metrics HTT")
    begin = time.monotonic()
    scraped.read()
    assert server.ask("/") == 200
    assert time.monotonic() - begin < 1
    assert server.descriptors() <= before + MOST_CONNECTIONS + 1
    end = time.monotonic() + 9
    while server.descriptors() > before:
        assert time.monotonic() < end, "those that say nothing are not dropped"
        time.sleep(0.1)
    for sock in idle:
        sock.close()


@pytest.mark.parametrize("options", WORKERS, ids=" ".join)
def test_a_unix_socket_serves_as_well(served: Launch, options: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    server = served("--metrics-bind", f"unix:{path}", *options)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with sock.makefile("rb") as file:
            assert b"capicorn_requests_total" in file.read()
    assert path.stat().st_mode & 0o7777 == 0o660
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("options", WORKERS, ids=" ".join)
def test_an_address_that_is_taken_ends_the_start(served: Launch, options: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = served("--metrics", address, *options, wait=False)
        assert server.wait() == 3
    assert f"metrics_bind: {address}: " in server.log.text() and "Traceback" not in server.log.text()


def test_an_address_without_port_is_refused(served: Launch) -> None:
    server = served("--metrics", "localhost", wait=False)
    assert server.wait() == 2
    assert "it should be HOST:PORT or unix:PATH" in server.log.text()


def test_no_worker_has_its_socket(served: Launch) -> None:
    server = served(*ON, "--workers", "2")
    Scraped(server)
    for worker in server.status()["workers"]:
        links = [os.readlink(f"/proc/{worker['pid']}/fd/{fd}") for fd in os.listdir(f"/proc/{worker['pid']}/fd")]
        parent = [os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{server.pid}/fd")]
        listening = {link for link in links if link.startswith("socket:")} & set(parent)
        assert len(listening) <= 3, "the server's own socket, and those on which connections are handed over"


def test_promtool_finds_nothing_wrong(served: Launch) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    text = Scraped(served(*ON, "--workers", "2")).text()
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_parser_of_prometheus_client_agrees(served: Launch) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    text = Scraped(served(*ON)).text()
    theirs = {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert theirs == parse(text)


def test_labels_are_escaped() -> None:
    board = Scoreboard(1)
    board.take(0)
    board.set_info(b'{"version": "a\\"b\\\\c\\nd"}')
    assert 'version="a\\"b\\\\c\\nd"' in render(board)
    parse(render(board))


def test_without_a_descriptor_for_a_scrape_the_thread_does_not_spin() -> None:
    board = Scoreboard(1)
    thread = MetricsThread("127.0.0.1:0", board)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.settimeout(5)
        free = os.dup(client.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            client.connect(thread._server.socket.getsockname())
            begin = time.process_time()
            time.sleep(1)
            used = time.process_time() - begin
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
    thread.close()
    assert used < 0.1
