"""Starting, stopping and reading processes: a server is a session of processes, pinned to cores."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import json
import os
import resource
import select
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cases import Case
from .environment import Environment
from .servers import Server, file_for


class Failed(Exception):
    """A server did not start, or answered wrongly: the case is not reported for it."""


@functools.cache
def physical_cores() -> list[int]:
    """The CPUs this process may use, one of each core first, then their siblings. Asked before it pins itself."""
    first: list[int] = []
    rest: list[int] = []
    seen: set[str] = set()
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            core = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            core = str(cpu)
        (rest if core in seen else first).append(cpu)
        seen.add(core)
    return first + rest


@dataclass(frozen=True)
class Cores:
    """Which CPUs the server has and which the load; on a machine with one CPU they share it, and figures say little."""

    server: list[int]
    load: list[int]

    @classmethod
    def split(cls, workers: int) -> Cores:
        cpus = physical_cores()
        if len(cpus) == 1:
            return cls(cpus, cpus)
        n = max(1, min(workers, len(cpus) // 2))
        return cls(cpus[:n], cpus[n : n + max(1, n)])


def pin(cpus: list[int]) -> None:
    os.sched_setaffinity(0, cpus)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pids_of(session: int) -> list[int]:
    """The processes of a session, in which every server is alone."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session:
                found.append(int(entry))
    return found


def cpu_of(pids: list[int]) -> float:
    """Seconds of processor, user and system, that these processes' threads have had: nanoseconds where the kernel keeps
    them (schedstat), else clock ticks."""
    total = 0.0
    tick = os.sysconf("SC_CLK_TCK")
    for pid in pids:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
            total += sum(int(Path(f"/proc/{pid}/task/{t}/schedstat").read_text().split()[0]) for t in threads) / 1e9
        except (OSError, IndexError):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / tick
    return total


def idle_of(cpus: list[int]) -> float:
    """Seconds that these CPUs have had nothing to do, their sum; what a hypervisor took is not idle."""
    total = 0.0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            total += int(fields[3]) + int(fields[4])
    return total / os.sysconf("SC_CLK_TCK")


def memory_of(pids: list[int]) -> float:
    """KiB: the proportional set size, so that what processes share is counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total


def settled_memory(session: int, least: float, most: float = 15.0) -> float:
    """KiB, when it no longer moves."""
    seen: list[float] = []
    time.sleep(least)
    end = time.monotonic() + most
    while time.monotonic() < end:
        seen.append(memory_of(pids_of(session)))
        if len(seen) > 3 and max(seen[-4:]) - min(seen[-4:]) < 0.003 * seen[-1]:
            break
        time.sleep(0.25)
    return seen[-1]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Running:
    """A server that was started for a case. `asked` counts the requests it has answered, for the access log."""

    def __init__(self, server: Server, case: Case, env: Environment, cores: Cores) -> None:
        self.server, self.case, self.env, self.cores = server, case, env, cores
        self.port = free_port()
        self.log = env.work / f"{server.name}-{self.port}.log"
        self.asked = 0
        self.stopped = False
        command = server.command(env, case, self.port)
        variables = {name: value for name, value in os.environ.items() if name != "WEB_CONCURRENCY"}
        variables["PYTHONPATH"] = env.paths[server.uses_capicorn]
        variables["PYTHONDONTWRITEBYTECODE"] = ""
        variables["BENCHMARK_FILE"] = str(env.work / "file.bin")
        variables["BENCHMARK_LARGE_FILE"] = str(env.work / "large.bin")
        variables["PATH"] = str(env.python.parent) + os.pathsep + variables.get("PATH", "")
        self.started = time.perf_counter()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=env.work,
                start_new_session=True,
                preexec_fn=lambda: pin(cores.server),
            )

    def told(self) -> str:
        """The end of what it has logged."""
        text = self.log.read_text(errors="replace").strip()
        return " | ".join(line.strip() for line in text.splitlines()[-3:])[-400:]

    def wait_until_up(self, seconds: float = 30.0, each: float = 0.01) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failed(f"ended with {self.process.returncode} at its start: {self.told()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(each)
        raise Failed(f"did not listen within {seconds:.0f} s: {self.told()}")

    def ask(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> tuple[int, bytes]:
        """One request on a connection of its own; status and body."""
        connection: http.client.HTTPConnection
        if self.case.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body=body if method == "POST" else None, headers=dict(headers))
            answer = connection.getresponse()
            self.asked += 1
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as e:
            raise Failed(f"{method} {path}: {e!r}; {self.told()}") from None
        finally:
            connection.close()

    def check(self) -> None:
        """Asks once what the load will ask, and for an upload also for what arrived.

        Raises Failed when the answer is not the application's.
        """
        case = self.case
        if case.kind in ("websocket", "idle-websocket"):
            return  # the load compares each message
        status, got = self.ask(case.method, case.path, case.headers, case.body)
        if status != 200 or got != case.want:
            raise Failed(f"{case.method} {case.path}: {status} and a body of {len(got)} octets, {got[:60]!r}")
        if case.path == "/upload":
            status, got = self.ask("POST", "/digest", case.headers, case.body)
            if got != hashlib.sha256(case.body).hexdigest().encode():
                raise Failed("the uploaded octets were not those that the application received")

    def pids(self) -> list[int]:
        return pids_of(self.process.pid)

    def signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it and everything it started."""
        if self.stopped:
            return
        self.stopped = True
        self.thaw()
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        for _ in range(50):
            left = [pid for pid in self.pids() if pid != self.process.pid or self.process.poll() is None]
            if not left:
                break
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.process.wait()

    def log_lines(self) -> int:
        """Lines of its log about requests."""
        asked = f"{self.case.method} {self.case.path}".encode()
        with open(self.log, "rb") as f:
            return sum(asked in line for line in f)

    def files(self) -> list[str]:
        """The request and the body of its answer, as arguments of the load program."""
        request = file_for(self.env.work, f"request-{self.port}", self.case.request(self.port))
        return ["-q", str(request), "-b", str(file_for(self.env.work, f"want-{self.port}", self.case.want))]

    def load(self, seconds: float, *more: str) -> Load:
        """The load program for this server's case, ready to go."""
        case, env = self.case, self.env
        command = [
            str(env.load),
            "ws" if case.kind == "websocket" else "http",
            "-p",
            str(self.port),
            "-d",
            str(seconds),
            "-c",
            str(case.connections),
            "-t",
            str(len(self.cores.load)),
        ]
        if case.kind == "websocket":
            command += ["-m", str(case.octets), "-k", str(case.in_flight), *(["-B"] if case.binary else [])]
        else:
            command += [*self.files(), "-P", str(case.pipelined), *(["-C"] if case.each_its_own else [])]
        return Load([*command, *(["-T"] if case.tls else []), *more], self.cores.load)


class Load:
    """The load program: its lines are the clock by which the server's processor time is read."""

    def __init__(self, command: list[str], cpus: list[int]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: pin(cpus)
        )
        self.pending = b""

    def line(self, seconds: float) -> str:
        assert self.process.stdout is not None and self.process.stderr is not None
        end = time.monotonic() + seconds
        while b"\n" not in self.pending:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not data:
                self.kill()
                why = self.process.stderr.read().decode(errors="replace").strip()
                what = "ended" if ready else f"said nothing for {seconds:.0f} s"
                raise Failed(f"the load program {what} {why}".rstrip())
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()

    def result(self, seconds: float = 30.0) -> dict[str, Any]:
        """Raises Failed when a response was wrong, late or missing."""
        result: dict[str, Any] = json.loads(self.line(seconds))
        if result["errors"]:
            raise Failed(f"{result['errors']} errors under load, the first: {result['first_error']}")
        return result

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None and self.process.stderr is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process.stdout.close()
        self.process.stderr.close()


def loaded(
    running: Running,
    seconds: float,
    *more: str,
    may_be_none: bool = False,
    when_ready: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """One turn: what the load program measured, `cpu`, the seconds that the server had in that time, and the parts of
    it that the server's and the load's cores stood idle."""
    load = running.load(seconds, *more)
    try:
        load.line(30)
        if when_ready is not None:
            when_ready()
        pids = running.pids()
        cores = running.cores
        idle = idle_of(cores.server), idle_of(cores.load)
        before = cpu_of(pids)
        load.go_on()
        load.line(seconds + 20)
        after = cpu_of(pids)
        idle_server, idle_load = idle_of(cores.server) - idle[0], idle_of(cores.load) - idle[1]
        result = load.result()
    finally:
        load.close()
    result["cpu"] = after - before
    result["server_idle"] = idle_server / result["seconds"] / len(cores.server)
    result["load_idle"] = idle_load / result["seconds"] / len(cores.load)
    running.asked += result["requests"]
    if result["requests"] == 0 and not may_be_none:
        raise Failed("no request was answered")
    return result
