"""`capicorn status`: what a server does now, once."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from capicorn import control

WIDTH = 80
LONGEST_BLOCKING = 32
"""Columns for the name of a request that blocks, so that it can be seen where."""

MOST_REQUESTS = 20
"""Lines of requests in flight; the others are counted."""


@click.command("status", help="Tell what a running server does: its workers and their requests, the oldest first.")
@click.option(
    "--pid", metavar="FILE|PID", help="Pid file or number of one of its processes; needed only if several run."
)
@click.option("--json", "as_json", is_flag=True, help="All there is, as one JSON object.")
def command(pid: str | None, as_json: bool) -> None:
    try:
        seen = control.look(control.find(pid))
    except control.NotFoundError as exc:
        sys.exit(control.fail(exc))
    for worker in seen["workers"]:
        worker["pss"] = control.pss_of(worker["pid"]) if same_machine(seen["pid"], worker["pid"]) else None
    if as_json:
        click.echo(json.dumps(seen, indent=2))
    else:
        click.echo("\n".join(lines(seen)))


def same_machine(supervisor: int, pid: int) -> bool:
    """Is that number what it is to us? Not so when the server is in a container, and we are outside."""
    return pid == supervisor or control.parent_of(pid) == supervisor


# ---- as text


def lines(seen: dict[str, Any]) -> list[str]:
    """What is printed, in 80 columns."""
    out = [*head(seen), ""]
    out += table([worker_row(worker) for worker in seen["workers"]], WORKER_COLUMNS)
    requests = in_flight(seen)
    if requests:
        out += ["", *table([request_row(one) for one in requests[:MOST_REQUESTS]], REQUEST_COLUMNS)]
        out += more(seen, requests, MOST_REQUESTS)
    return [line[:WIDTH].rstrip() for line in out]


def head(seen: dict[str, Any]) -> list[str]:
    total = seen["total"]
    first = f"capicorn {seen['version']}  {seen['app']}  pid {seen['pid']}  up {span(seen['uptime'])}"
    binds = "  ".join(seen["binds"]) or "(not listening yet)"
    classes = "  ".join(
        f"{number}xx {count(n)}" for number, n in enumerate(total["status"], 1) if n or number in (2, 5)
    )
    served = f"requests {count(total['requests'])}   {classes}   errors {count(total['errors'])}"
    if total["aborted"]:
        served += f"   clients gone {count(total['aborted'])}"
    answered = sum(total["buckets"])
    times = f"mean {span(total['seconds'] / answered)}" if answered else "no response yet"
    for name, bound in seen["quantiles"].items():
        if answered:
            times += "  " + below(float(name), bound)
    times += f"   in {octets(total['octets_in'])}   out {octets(total['octets_out'])}"
    now = f"in flight {seen['requests']}   connections {seen['connections']}"
    if seen["supervised"]:
        now += f"   workers {len(seen['workers'])}/{seen['workers_wanted']}   ended {seen['workers_ended']}"
    now += f"   blocks {total['blocks']}"
    if total["longest_block"]:
        now += f" (longest {span(total['longest_block'])})"
    if total.get("rescued"):
        now += f"   rescued {count(total['rescued'])}"
    return [first, binds, served, times, now]


def below(q: float, bound: float | None) -> str:
    return f"{q:.0%} " + (f"<{span(bound)}" if bound is not None else ">10 s")


WORKER_COLUMNS = (
    (">", "PID"), ("<", "STATE"), (">", "UP"), (">", "CONNS"), (">", "NOW"), (">", "REQUESTS"), (">", "ERRORS"),
    (">", "LAG"), (">", "THREADS"), (">", "MEMORY"), (">", "PSS"),
)  # fmt: skip
REQUEST_COLUMNS = ((">", "AGE"), (">", "PID"), ("<", "REQUEST IN FLIGHT"))


def worker_row(worker: dict[str, Any]) -> tuple[str, ...]:
    pss = worker.get("pss")
    return (
        str(worker["pid"]),
        worker["state"],
        span(worker["age"]),
        count(worker["connections"]),
        count(worker["requests"]),
        count(worker["total_requests"]),
        count(worker["tally"]["errors"]),
        span(lag_of(worker)),
        threads(worker),
        octets(worker["resident"]),
        "-" if pss is None else octets(pss),
    )


def lag_of(worker: dict[str, Any]) -> float:
    """Seconds by which what is due now would be late."""
    awake: float = worker["awake"]
    return awake if worker["state"] == "blocked" else max(worker["lag"], awake)


def threads(worker: dict[str, Any]) -> str:
    if not worker["threads"]:
        return "-"
    waiting = f"+{worker['threads_queued']}" if worker["threads_queued"] else ""
    return f"{worker['threads_busy']}{waiting}/{worker['threads']}"


def in_flight(seen: dict[str, Any]) -> list[dict[str, Any]]:
    """Requests of all workers, the oldest first; what blocks a loop goes before everything."""
    found = []
    for worker in seen["workers"]:
        running, blocked = worker["running"], worker["state"] == "blocked"
        listed = [{**one, "pid": worker["pid"], "blocks": 0.0, "place": ""} for one in worker["listed"]]
        if running or blocked:
            one = next((one for one in listed if f"{one['method']} {one['path']}" == running), None)
            if one is None:
                method, _, path = running.partition(" ")
                one = {"method": method, "path": path, "age": worker["awake"], "websocket": False, "pid": worker["pid"]}
                listed.append(one)
            one["blocks"] = worker["awake"] if blocked else 0.0
            one["place"] = worker["place"] if blocked else ""
        found += listed
    found.sort(key=lambda one: (-one["blocks"], -one["age"]))
    return found


def request_row(one: dict[str, Any]) -> tuple[str, ...]:
    name = f"{one['method']} {one['path']}".strip() or "(no request)"
    if one["websocket"]:
        name = f"WebSocket {one['path']}"
    if one["blocks"]:
        name = name if len(name) <= LONGEST_BLOCKING else name[: LONGEST_BLOCKING - 1] + "…"
        where = f" at {short(one['place'])}" if one["place"] else ""
        name = f"{name}  BLOCKS {span(one['blocks'])}{where}"
    return span(one["age"]), str(one["pid"]), name


def short(place: str) -> str:
    """file:line (function), with as much of the file's path as says something."""
    path, _, function = place.partition(" ")
    parts = path.split("/")
    return " ".join(["/".join(parts[-2:]), function]).strip()


def more(seen: dict[str, Any], requests: list[dict[str, Any]], shown: int) -> list[str]:
    hidden = max(0, len(requests) - shown) + sum(worker["not_listed"] for worker in seen["workers"])
    return [f"  and {count(hidden)} more"] if hidden else []


def table(rows: list[tuple[str, ...]], columns: tuple[tuple[str, str], ...]) -> list[str]:
    widths = [max(len(title), *(len(row[at]) for row in rows), 0) for at, (_, title) in enumerate(columns)]
    lines = []
    for row in [tuple(title for _, title in columns), *rows]:
        cells = [f"{cell:{side}{width}}" for cell, (side, _), width in zip(row, columns, widths, strict=True)]
        lines.append(" ".join(cells).rstrip())
    return lines


# ---- numbers that are short


def span(seconds: float) -> str:
    """A duration in at most six characters."""
    if 0 < seconds < 0.0009995:
        return f"{seconds * 1e6:.3g} µs" if seconds < 0.00009995 else f"{seconds * 1e6:.0f} µs"
    if seconds < 0.0995:
        return f"{seconds * 1000:.2g} ms" if 0 < seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 5940:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 356400 else f"{seconds / 86400:.0f} d"


def count(number: int) -> str:
    """A number in at most six characters."""
    if number < 100000:
        return str(number)
    for unit in ("k", "M", "G"):
        number_ = number / 1000 ** ("kMG".index(unit) + 1)
        if number_ < 9999.5:
            return f"{number_:.4g}{unit}" if number_ < 1000 else f"{number_:.0f}{unit}"
    return f"{number / 1e12:.4g}T"


def octets(number: int) -> str:
    if number < 1000:
        return f"{number} B"
    value = float(number)
    for unit in ("K", "M", "G"):
        value /= 1024
        if value < 999.5:
            return f"{value:.3g}{unit}" if value < 99.95 else f"{value:.0f}{unit}"
    return f"{value / 1024:.3g}T"


def is_terminal() -> bool:
    return os.isatty(0) and os.isatty(1)
