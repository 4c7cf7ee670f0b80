"""`capicorn top`: what a server does, live in the terminal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from capicorn import control, status

REFRESH = 1.0
NEEDS_RICH = "capicorn top needs the package rich: pip install 'capicorn[standard]'. `capicorn status` does without."


@click.command("top", help="Show what a running server does, once a second; q or Ctrl-C ends it.")
@click.option(
    "--pid", metavar="FILE|PID", help="Pid file or number of one of its processes; needed only if several run."
)
@click.option(
    "--delay", type=click.FloatRange(min=0.1), default=REFRESH, show_default=True, help="Seconds between looks."
)
def command(pid: str | None, delay: float) -> None:
    try:
        import rich  # noqa: F401
    except ImportError:
        print(f"capicorn: {NEEDS_RICH}", file=sys.stderr)
        sys.exit(1)
    if not (os.isatty(0) and os.isatty(1)):
        print("capicorn: top needs a terminal; capicorn status prints the same once.", file=sys.stderr)
        sys.exit(1)
    try:
        show(control.find(pid), delay)
    except control.NotFoundError as exc:
        sys.exit(control.fail(exc))
    except KeyboardInterrupt:
        pass


def show(found: control.Found, delay: float) -> None:
    """Until q, Ctrl-C or the server's end, which is a NotFoundError."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    rates = Rates()
    with keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            seen = control.look(found)
            rates.note(seen, time.monotonic())
            width, height = console.size
            live.update(picture(seen, rates, width, height), refresh=True)
            if keyboard.pressed(delay) in ("q", "Q", "\x03", "\x1b"):
                return


# ---- rates


class Rates:
    """What happened between the last two looks."""

    def __init__(self) -> None:
        self._before: tuple[float, dict[str, Any]] | None = None
        self.seconds = 0.0
        self.total: dict[str, Any] = {}
        self.workers: dict[tuple[int, int], float] = {}

    def note(self, seen: dict[str, Any], now: float) -> None:
        if self._before is not None:
            then, before = self._before
            self.seconds = max(now - then, 1e-3)
            self.total = {name: _minus(value, before["total"][name]) for name, value in seen["total"].items()}
            old = {_key(worker): worker["total_requests"] for worker in before["workers"]}
            self.workers = {
                _key(worker): max(0, worker["total_requests"] - old.get(_key(worker), worker["total_requests"]))
                / self.seconds
                for worker in seen["workers"]
            }
        self._before = now, seen

    def per_second(self, name: str) -> float:
        return float(self.total[name]) / self.seconds if self.total else 0.0

    def of(self, worker: dict[str, Any]) -> float:
        return self.workers.get(_key(worker), 0.0)


def _key(worker: dict[str, Any]) -> tuple[int, int]:
    return worker["pid"], worker["generation"]


def _minus(after: Any, before: Any) -> Any:
    if isinstance(after, tuple):
        return tuple(max(0, a - b) for a, b in zip(after, before, strict=True))
    return max(0, after - before)


# ---- the picture


def picture(seen: dict[str, Any], rates: Rates, width: int, height: int) -> Any:
    """At most so many columns and lines."""
    from rich.text import Text

    lines = [Text(line, style) for line, style in head(seen, rates)]
    lines.append(Text(""))
    workers = sorted(
        seen["workers"], key=lambda one: (one["state"] != "blocked", -one["awake"], -rates.of(one), one["pid"])
    )
    requests = status.in_flight(seen)
    room = height - len(lines) - 2
    most_workers = max(1, min(len(workers), room - min(len(requests) + 1, max(3, room // 2))))
    rows = status.table([worker_row(worker, rates) for worker in workers[:most_workers]], WORKER_COLUMNS)
    lines.append(Text(rows[0], "bold reverse"))
    for worker, row in zip(workers, rows[1:], strict=False):
        lines.append(Text(row, STYLES.get(worker["state"], "")))
    if len(workers) > most_workers:
        lines.append(Text(f"  and {len(workers) - most_workers} more", "dim"))
    room = height - len(lines) - 3
    if requests and room > 0:
        rows = status.table([status.request_row(one) for one in requests[:room]], status.REQUEST_COLUMNS)
        lines += [Text(""), Text(rows[0], "bold reverse")]
        for one, row in zip(requests, rows[1:], strict=False):
            lines.append(Text(row, "bold red" if one["blocks"] else _style_of_age(one)))
        lines += [Text(line, "dim") for line in status.more(seen, requests, room)]
    for line in lines[:height]:
        line.truncate(width, overflow="ellipsis", pad="reverse" in str(line.style))
    return Text("\n").join(lines[:height])


STYLES = {"blocked": "bold red", "starting": "yellow", "retiring": "dim"}

WORKER_COLUMNS = (
    (">", "PID"), ("<", "STATE   "), (">", "UP"), (">", " REQ/S"), (">", "NOW"), (">", "CONNS"), (">", "REQUESTS"),
    (">", "ERRORS"), (">", "  LAG"), (">", "THREADS"), (">", "MEMORY"),
)  # fmt: skip


def worker_row(worker: dict[str, Any], rates: Rates) -> tuple[str, ...]:
    row = status.worker_row(worker)
    pid, state, up, connections, now, requests, errors, lag, threads, memory, _ = row
    return pid, state, up, rate(rates.of(worker)), now, connections, requests, errors, lag, threads, memory


def head(seen: dict[str, Any], rates: Rates) -> list[tuple[str, str]]:
    name, binds, _, _, now = status.head(seen)
    answered = sum(rates.total["buckets"]) if rates.total else 0
    speed = f"req/s {rate(rates.per_second('requests')):>6}"
    if rates.total:
        classes = zip(range(1, 6), rates.total["status"], strict=True)
        speed += "".join(f"   {kind}xx {rate(n / rates.seconds)}" for kind, n in classes if n or kind in (2, 5))
        speed += f"   errors {rate(rates.per_second('errors'))}"
    times = "no response in the last second"
    if answered:
        times = f"mean {status.span(rates.total['seconds'] / answered)}"
        for q in (0.5, 0.95, 0.99):
            bound = control.quantile(rates.total["buckets"], q)
            times += "  " + status.below(q, bound)
    traffic = ""
    if rates.total:
        received, sent = rates.per_second("octets_in"), rates.per_second("octets_out")
        traffic = f"   in {status.octets(int(received))}/s  out {status.octets(int(sent))}/s"
    blocked = any(worker["state"] == "blocked" for worker in seen["workers"])
    return [(name, "bold"), (binds, ""), (speed, ""), (times + traffic, ""), (now, "bold red" if blocked else "")]


def rate(number: float) -> str:
    return f"{number:.1f}" if 0 < number < 9.95 else status.count(round(number))


def _style_of_age(one: dict[str, Any]) -> str:
    return "" if one["websocket"] or one["age"] < 1 else "yellow"


# ---- keys


class _Keyboard:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pressed(self, seconds: float) -> str:
        """The key that is pressed within that time; "" for none."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return ""
        key = os.read(self._fd, 16).decode("utf-8", "replace")
        return key or "q"  # the terminal is gone


@contextlib.contextmanager
def keys() -> Iterator[_Keyboard]:
    """Keys are read as they are pressed, and not shown."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        yield _Keyboard(0)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
