"""Cases that are more than requests a second: a fixed rate, a blocked worker, large files, memory, the time of a
start."""

from __future__ import annotations

import base64
import http.client
import os
import resource
import socket
import subprocess
import threading
import time
from typing import Any

from . import apps
from .cases import Case
from .environment import Environment
from .processes import Cores, Failed, Load, Running, cpu_of, loaded, settled_memory
from .servers import Server

IDLE_CONNECTIONS = 2000
IDLE_SESSIONS = 5000
BLOCKED_RATE = 400


def latency(running: Running, seconds: float, rate: float) -> dict[str, Any]:
    """Requests at a fixed rate; a wait counts from when the request was due, so a stall is not hidden by the load's
    own waiting. The value is the 99th percentile."""
    result = loaded(running, seconds, "-r", f"{rate:.0f}")
    if result["late"]:
        # The server could not keep up: those were due and never sent.
        result["latency_us"]["p99"] = max(result["latency_us"]["p99"], result["latency_us"]["max"])
    return {
        "value": result["latency_us"]["p99"],
        "latency_us": result["latency_us"],
        "rate": rate,
        "never_sent": result["late"],
        "cpu_us": result["cpu"] / result["requests"] * 1e6,
        "busy": result["cpu"] / result["seconds"],
        "server_idle": result["server_idle"],
        "load_idle": result["load_idle"],
        "load_busy": result["load_cpu"] / result["seconds"],
    }


def blocked(running: Running) -> dict[str, Any]:
    """One worker's event loop stands still for a second; meanwhile requests come at a fixed rate, on new connections or
    on those that were open before. The value is the 99th percentile of their wait."""
    trouble: list[str] = []
    begun = threading.Event()

    def block() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
        try:
            connection.request("GET", "/block")
            begun.set()
            answer = connection.getresponse()
            if answer.status != 200 or answer.read() != apps.HELLO:
                trouble.append("the blocking request was answered wrongly")
        except (OSError, http.client.HTTPException) as e:
            trouble.append(repr(e))
        finally:
            begun.set()
            connection.close()

    thread = threading.Thread(target=block)

    def start() -> None:
        thread.start()
        begun.wait(10)
        time.sleep(0.05)

    def start_later() -> None:
        time.sleep(0.1)  # what is open is accepted
        start()

    options = ["-r", str(BLOCKED_RATE)]
    try:
        if running.case.each_its_own:
            start()
            result = loaded(running, apps.BLOCK_SECONDS * 0.8, *options, "-c", str(BLOCKED_RATE * 2))
        else:
            result = loaded(running, apps.BLOCK_SECONDS * 0.8, *options, when_ready=start_later)
    finally:
        if thread.ident is not None:
            thread.join()
    if trouble:
        raise Failed(trouble[0])
    return {
        "value": result["latency_us"]["p99"],
        "latency_us": result["latency_us"],
        "over_100ms": result["over_100ms"] / result["requests"],
    }


def transfer(running: Running) -> dict[str, Any]:
    """One large response on each of the case's connections, to its last octet. The value is MiB for a second of the
    server's processor time."""
    case = running.case
    before = cpu_of(running.pids())
    command = [str(running.env.load), "hold", "-p", str(running.port), "-d", "60", "-c", str(case.connections)]
    load = Load([*command, *running.files()], running.cores.load)
    try:
        result = load.result(60)
        cpu = cpu_of(running.pids()) - before
        load.go_on()
        load.result()
    finally:
        load.close()
    mib = case.connections * len(case.want) / 1048576
    return {
        "value": mib / cpu,
        "cpu_us": cpu / case.connections * 1e6,
        "busy": cpu / result["seconds"],
        "mib_per_second": mib / result["seconds"],
    }


def idle(server: Server, case: Case, env: Environment, cores: Cores) -> dict[str, Any]:
    """KiB for each of many connections that had one answer and stay open."""
    running = Running(server, case, env, cores)
    try:
        running.wait_until_up()
        running.check()
        loaded(running, 0.5)
        before = settled_memory(running.process.pid, 1.0)
        load = Load(
            [str(env.load), "hold", "-p", str(running.port), "-d", "20", "-c", str(IDLE_CONNECTIONS), *running.files()],
            cores.load,
        )
        try:
            load.result(60)
            after = settled_memory(running.process.pid, 1.0)
            load.go_on()
            load.result()
        finally:
            load.close()
    finally:
        running.stop()
    # Below what can be told apart counts as that.
    return {"value": max((after - before) / IDLE_CONNECTIONS, 0.05), "before_kib": before, "after_kib": after}


def session(port: int, octets: int) -> socket.socket:
    """A WebSocket that has sent one message and got it back."""
    s = socket.create_connection(("127.0.0.1", port), 10)
    key = base64.b64encode(os.urandom(16)).decode()
    s.sendall(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        if not (piece := s.recv(4096)):
            raise Failed("the connection ended in the handshake")
        answer += piece
    head, _, rest = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        raise Failed(f"the handshake was answered {head[:60]!r}")
    text = b"a" * octets
    s.sendall(bytes([0x81, 0x80 | octets, 0, 0, 0, 0]) + text)
    while len(rest) < 2 + octets:
        if not (piece := s.recv(4096)):
            raise Failed("the connection ended before its message came back")
        rest += piece
    if rest != bytes([0x81, octets]) + text:
        raise Failed(f"the message came back as {rest[:60]!r}")
    return s


def idle_websocket(server: Server, case: Case, env: Environment, cores: Cores) -> dict[str, Any]:
    """KiB for each of many WebSockets that have sent one message and stay open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    running = Running(server, case, env, cores)
    held: list[socket.socket] = []
    try:
        running.wait_until_up()
        for _ in range(200):
            session(running.port, case.octets).close()
        before = settled_memory(running.process.pid, 1.0)
        try:
            for _ in range(IDLE_SESSIONS):
                held.append(session(running.port, case.octets))
        except OSError as e:
            raise Failed(f"{e!r} after {len(held)} WebSockets; {running.told()}") from None
        after = settled_memory(running.process.pid, 1.0)
    finally:
        for s in held:
            s.close()
        running.stop()
    return {"value": max((after - before) / IDLE_SESSIONS, 0.05), "before_kib": before, "after_kib": after}


def idle_websocket_floor(case: Case, env: Environment) -> dict[str, Any]:
    """The same of the application alone."""
    done = subprocess.run(
        [str(env.python), "-m", "benchmarks.floor_sessions", case.app, str(IDLE_SESSIONS), str(case.octets)],
        capture_output=True,
        text=True,
        cwd=env.work,
        env=dict(os.environ, PYTHONPATH=env.paths[False]),
    )
    if done.returncode != 0:
        raise Failed(f"the application could not be called in a loop: {done.stderr[-300:]}")
    return {"value": float(done.stdout)}


def start(server: Server, case: Case, env: Environment, cores: Cores) -> dict[str, Any]:
    """Milliseconds from the start of the process to the first right answer."""
    running = Running(server, case, env, cores)
    try:
        running.wait_until_up(each=0.001)
        running.check()
        wall = time.perf_counter() - running.started
        cpu = cpu_of(running.pids())
    finally:
        running.stop()
    return {"value": wall * 1e3, "cpu_us": cpu * 1e6}


def memory(server: Server, case: Case, env: Environment, cores: Cores) -> dict[str, Any]:
    """MiB of all processes for each worker, after requests."""
    running = Running(server, case, env, cores)
    try:
        running.wait_until_up()
        settled_memory(running.process.pid, 2.0)
        running.check()
        loaded(running, 0.5)
        kib = settled_memory(running.process.pid, 1.0)
        pids = running.pids()
    finally:
        running.stop()
    return {"value": kib / 1024 / case.workers, "processes": len(pids)}


ALONE = {"idle": idle, "idle-websocket": idle_websocket, "start": start, "memory": memory}
