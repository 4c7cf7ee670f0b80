"""A server in a child process, started by a command line, with its log at hand.

CAPICORN_TEST_COMMAND replaces the command, so that the same tests judge another
server: words with {python}, {app}, {port}; {options} is where a test's own
flags go (only ours knows them). CAPICORN_TEST_COMMAND="{python} -m uvicorn {app}
--port {port}" is an example.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .client import Address, Client

ROOT = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT = 20.0
OURS = "{python} -m capicorn {app} --port {port} {options}"
RUNNING = re.compile(r"Capicorn running on (?P<where>.*?)(?: \(Press CTRL\+C to quit\))?$")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def command_template() -> str:
    """The command line that starts the server under test."""
    return os.environ.get("CAPICORN_TEST_COMMAND", OURS)


def is_capicorn() -> bool:
    """Is the server under test this project's (or another one that the tests only borrow)?"""
    return "capicorn" in command_template()


def free_port() -> int:
    """A port that nobody has at this moment; only for servers that cannot report the one the kernel gave them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class Log:
    """Lines that a process wrote, as they come."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changed = threading.Condition()
        self.ended = False

    def add(self, line: str) -> None:
        with self.changed:
            self.lines.append(_COLOURS.sub("", line))
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def mark(self) -> int:
        """Where the log is now; give it to the functions below as `after`."""
        with self.changed:
            return len(self.lines)

    def text(self, after: int = 0) -> str:
        with self.changed:
            return "\n".join(self.lines[after:])

    def find(self, pattern: str, after: int = 0) -> re.Match[str] | None:
        for line in self.lines[after:]:
            if m := re.search(pattern, line):
                return m
        return None

    def wait_for(self, pattern: str, after: int = 0, timeout: float = 10.0) -> re.Match[str]:
        """The first match in a line after that mark; AssertionError when none comes in time."""
        end = time.monotonic() + timeout
        seen = after
        with self.changed:
            while True:
                while seen < len(self.lines):
                    if m := re.search(pattern, self.lines[seen]):
                        return m
                    seen += 1
                left = end - time.monotonic()
                if left <= 0 or self.ended:
                    text = "\n".join(self.lines[after:][-60:])
                    raise AssertionError(f"no line with {pattern!r} in the log:\n{text}")
                self.changed.wait(left)


class Process:
    """A child process whose stdout and stderr go into `log` (and apart into `out` and `err`)."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | str = ROOT,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("CAPICORN_TEST_", "UVICORN_"))}
        environ.update(PYTHONUNBUFFERED="1", PYTHONPATH=os.pathsep.join([str(ROOT), *_path_of(environ)]))
        environ.pop("WEB_CONCURRENCY", None)
        environ.pop("FORWARDED_ALLOW_IPS", None)
        environ.update(env or {})
        self.argv = list(argv)
        self.log = Log()
        self.out = Log()
        self.err = Log()
        self.process = subprocess.Popen(
            self.argv,
            cwd=str(cwd),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=list(pass_fds),
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True, name="reads-stdout"),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True, name="reads-stderr"),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: object, own: Log) -> None:
        with contextlib.closing(stream):  # type: ignore[type-var]
            for raw in stream:  # type: ignore[attr-defined]
                line = raw.decode("utf-8", "replace").rstrip("\n")
                own.add(line)
                self.log.add(line)
        own.end()
        if self.out.ended and self.err.ended:
            self.log.end()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 15.0) -> int:
        """The exit code (negative: killed by that signal). The log is complete afterwards."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.log.text()[-4000:]}") from None
        for thread in self._threads:
            thread.join(5)
        return code

    def kill(self) -> None:
        """End the process and what it started, whatever state it is in."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()

    def rss(self) -> int:
        """Resident octets."""
        with open(f"/proc/{self.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        with open(f"/proc/{self.pid}/stat") as f:
            parts = f.read().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))


class ServerProcess(Process):
    """The server under test, started and accepting.

    `options` are flags as a person types them. `wait` False: do not wait until it
    accepts (it is expected to fail).
    """

    def __init__(
        self,
        app: str,
        *options: str,
        env: dict[str, str] | None = None,
        wait: bool = True,
        cwd: Path | str = ROOT,
        pass_fds: Sequence[int] = (),
        template: str | None = None,
    ) -> None:
        template = template or command_template()
        self.ours = "capicorn" in template
        self.port = 0 if self.ours else free_port()
        words = []
        for word in shlex.split(template):
            if word == "{options}":
                words.extend(options)
            else:
                words.append(word.format(python=sys.executable, app=app, port=self.port))
        super().__init__(words, env=env, cwd=cwd, pass_fds=pass_fds)
        self.address: Address = ("127.0.0.1", self.port)
        if wait:
            try:
                self._wait_started()
            except BaseException:
                self.kill()
                raise

    def _wait_started(self) -> None:
        if self.ours:
            where = self.log.wait_for(RUNNING.pattern, timeout=START_TIMEOUT)["where"]
            if m := re.match(r"https?://\[?(.*?)\]?:(\d+)$", where):
                self.port = int(m[2])
                self.address = (m[1] if m[1] not in ("0.0.0.0", "::") else "127.0.0.1", self.port)
            elif m := re.match(r"unix socket (.*)$", where):
                self.address = m[1]
            elif m := re.match(r"socket \(?'(.*)', (\d+)", where):
                self.port = int(m[2])
                self.address = (m[1], self.port)
            return
        end = time.monotonic() + START_TIMEOUT
        while True:
            if not self.alive:
                raise AssertionError(f"the server ended:\n{self.log.text()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > end:
                    raise AssertionError(f"the server does not accept:\n{self.log.text()}") from None
                time.sleep(0.01)

    def connect(self, timeout: float = 10.0, receive_buffer: int | None = None) -> Client:
        return Client(self.address, timeout, receive_buffer)

    def stop(self, number: int = signal.SIGINT, timeout: float = 15.0) -> int:
        """Signal, then wait; the exit code."""
        self.signal(number)
        return self.wait(timeout)


def _path_of(environ: dict[str, str]) -> list[str]:
    return [p for p in environ.get("PYTHONPATH", "").split(os.pathsep) if p]
