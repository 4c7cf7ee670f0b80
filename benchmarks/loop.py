"""python -m benchmarks.loop: event loops side by side in one run, as ratios.

Each line is a process of its own for each loop and round, with the loops in turn; the servers among them are asked by
the load program on another core. README.md tells how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import svg
from .environment import Environment, SetupError, machine, prepare
from .processes import Cores, Failed, Load, cpu_of, physical_cores, pids_of, pin
from .report import Spread, number, ratio_text

LOOPS = {"asyncio": "base", "uvloop": "base", "zuvloop": "zuvloop", "rloop": "rloop", "capicorn": "base"}
OURS = "capicorn"


@dataclass(frozen=True)
class Line:
    """`load` is what the load program does with the server that the child starts; None when the child measures
    itself."""

    name: str
    title: str
    unit: str = "calls/s"
    load: tuple[str, ...] | None = None
    tls: bool = False


def echo_lines() -> list[Line]:
    lines = []
    for kind, title in (("protocol", "a protocol"), ("streams", "streams"), ("sockets", "sock_recv and sock_sendall")):
        for kib in (1, 10, 100):
            lines.append(
                Line(
                    f"echo-{kind}-{kib}k",
                    f"echo of {kib} KiB with {title}",
                    "messages/s",
                    ("echo", "-m", str(kib * 1024), "-c", "8"),
                )
            )
    return lines


BULK = 64 * 1048576
LINES = [
    Line("call-soon", "call_soon"),
    Line("call-soon-args", "call_soon with three arguments"),
    Line("threadsafe", "call_soon_threadsafe from another thread"),
    Line("timer-cancel", "call_later and cancel", "timers/s"),
    Line("timer-fire", "call_later, fired", "timers/s"),
    Line("sleep-0", "await sleep(0)", "switches/s"),
    Line("task", "a task made and awaited", "tasks/s"),
    *echo_lines(),
    Line("bulk", "64 MiB written by a protocol", "MiB/s", ("sink", "-m", str(BULK), "-c", "2")),
    Line("echo-tls-1k", "TLS echo of 1 KiB with a protocol", "messages/s", ("echo", "-m", "1024", "-c", "8"), True),
    Line(
        "echo-tls-100k", "TLS echo of 100 KiB with a protocol", "messages/s", ("echo", "-m", "102400", "-c", "8"), True
    ),
    Line("getaddrinfo", "getaddrinfo of localhost", "calls/s"),
    Line("subprocess", "a process started and awaited", "processes/s"),
]


def run_child(line: Line, loop: str, env: Environment, cores: Cores, seconds: float) -> dict[str, float]:
    """One turn: `value` in the line's unit and `cpu_us` for each of them.

    Raises Failed with what the child said.
    """
    variables = dict(os.environ, PYTHONPATH=env.paths[True])
    cert = [str(path) for path in env.certificate or ()]
    child = subprocess.Popen(
        [str(env.python), "-m", "benchmarks.loop_child", loop, line.name, str(seconds), *(cert if line.tls else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=env.work,
        env=variables,
        start_new_session=True,
        preexec_fn=lambda: pin(cores.server),
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    try:
        said = child.stdout.readline()
        if not said:
            child.wait()
            lines = child.stderr.read().decode(errors="replace").strip().splitlines() or ["nothing said"]
            raise Failed(lines[-1][:300])
        told = json.loads(said)
        if line.load is None:
            return {"value": told["count"] / told["seconds"], "cpu_us": told["cpu"] / told["count"] * 1e6}
        command = [
            str(env.load),
            *line.load,
            "-p",
            str(told["port"]),
            "-d",
            str(seconds),
            *(["-T"] if line.tls else []),
        ]
        load = Load(command, cores.load[:1])
        try:
            load.line(30)
            pids = pids_of(child.pid)
            before = cpu_of(pids)
            load.go_on()
            load.line(seconds + 20)
            cpu = cpu_of(pids) - before
            result = load.result()
        finally:
            load.close()
        if not result["requests"]:
            raise Failed("nothing was answered")
        unit = result["requests"] * (BULK / 1048576 if line.name == "bulk" else 1)
        return {"value": unit / result["seconds"], "cpu_us": cpu / unit * 1e6}
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            stream.close()


def ratios(turns: dict[str, list[dict[str, float]]], loop: str, other: str, key: str) -> Spread | None:
    mine, theirs = turns.get(loop, []), turns.get(other, [])
    if not mine or len(mine) != len(theirs):
        return None
    return Spread.of(
        [
            a[key] / b[key] if key == "value" else b[key] / a[key]
            for a, b in zip(mine, theirs, strict=True)
            if a[key] > 0 and b[key] > 0
        ]
    )


def by_processor(line: Line) -> bool:
    """Whether a line compares processor time; where children or threads wait for the system, the clock says more."""
    return line.name not in ("subprocess", "getaddrinfo")


def fair(line: Line, turns: dict[str, list[dict[str, float]]], loop: str, other: str) -> Spread | None:
    return ratios(turns, loop, other, "cpu_us" if by_processor(line) else "value")


def markdown(
    results: dict[Line, dict[str, list[dict[str, float]]]],
    trouble: dict[tuple[str, str], str],
    loops: list[str],
    about: dict[str, Any],
) -> str:
    lines = [
        "# Event loops side by side",
        "",
        f"CPython {about['machine']['python']}, {about['machine']['cores']} cores ({about['machine']['cpu']}), "
        f"{about['machine']['system']}; {about['rounds']} rounds of {about['seconds']} s; "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "",
        f"Times as good as each loop, for {OURS}: medians of pairs of turns with their quartiles, by the "
        "processor time for one operation (getaddrinfo and processes: by the clock).",
        "",
    ]
    others = [loop for loop in loops if loop != OURS]
    lines += [
        "| | "
        + " | ".join(f"{OURS} / {loop}" for loop in others)
        + " | "
        + " | ".join(f"{loop}: us, per second" for loop in loops)
        + " |",
        "|---" * (1 + len(others) + len(loops)) + "|",
    ]
    for line, turns in results.items():
        cells = [ratio_text(fair(line, turns, OURS, loop)) for loop in others]
        for loop in loops:
            if turns.get(loop):
                cpu = statistics.median(turn["cpu_us"] for turn in turns[loop])
                value = statistics.median(turn["value"] for turn in turns[loop])
                cells.append(f"{number(cpu)}, {number(value)}")
            else:
                cells.append("failed" if (line.name, loop) in trouble else "-")
        lines.append(f"| {line.title} | " + " | ".join(cells) + " |")
    lines += [f"\n{loop}, {name}: {why}" for (name, loop), why in trouble.items()]
    return "\n".join(lines) + "\n"


def plot(results: dict[Line, dict[str, list[dict[str, float]]]], loops: list[str]) -> str:
    lines = []
    for line, turns in results.items():
        points = {}
        for loop in loops:
            spread = fair(line, turns, loop, "uvloop")
            if spread is not None:
                points[loop] = (spread.median, spread.low, spread.high)
        if points:
            lines.append((line.title, points))
    return svg.dot_plot(
        "Times as good as uvloop; lines are quartiles", lines, [(loop, loop, False) for loop in loops], OURS
    )


def run(options: argparse.Namespace, say: Callable[[str], None], work: Path) -> int:
    env = prepare(work, say)
    if env.capicorn != "release":
        say("this Capicorn is built with assertions: `make build-release` makes the other kind")
    wanted = list(LOOPS) if options.loops == "all" else options.loops.split(",")
    chosen = [
        line
        for line in LINES
        if options.lines == "all"
        or any(
            line.name == name or (name.endswith("*") and line.name.startswith(name[:-1]))
            for name in options.lines.split(",")
        )
    ]
    if set(wanted) - set(LOOPS) or not chosen:
        raise SetupError(f"loops are {', '.join(LOOPS)}; lines are {', '.join(line.name for line in LINES)}")
    loops = [loop for loop in LOOPS if loop in wanted and LOOPS[loop] not in env.missing]
    for loop in wanted:
        if loop not in loops:
            say(f"{loop} takes no part: {env.missing[LOOPS[loop]]}")
    cpus = physical_cores()
    cores = Cores.split(1)
    os.sched_setaffinity(0, cores.load)
    about = {
        "machine": machine(len(cpus)),
        "capicorn": env.capicorn,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "versions": {loop: env.versions[loop] for loop in loops if loop in env.versions},
    }
    results: dict[Line, dict[str, list[dict[str, float]]]] = {}
    trouble: dict[tuple[str, str], str] = {}
    options.output.mkdir(parents=True, exist_ok=True)
    for line in chosen:
        if line.tls and (env.certificate is None or not env.load_has_tls):
            say(f"{line.name}: needs OpenSSL's headers and its command")
            continue
        turns: dict[str, list[dict[str, float]]] = {loop: [] for loop in loops}
        for number_of_round in range(options.rounds):
            shift = number_of_round % len(loops)
            for loop in loops[shift:] + loops[:shift]:
                if (line.name, loop) in trouble:
                    continue
                try:
                    turns[loop].append(run_child(line, loop, env, cores, options.seconds))
                except Failed as e:
                    trouble[line.name, loop] = str(e)
                    turns[loop] = []
        results[line] = turns
        parts = []
        for loop in loops:
            spread = fair(line, turns, OURS, loop)
            if loop != OURS:
                parts.append(f"{loop} {spread.median:.2f}" if spread else f"{loop} failed" if not turns[loop] else loop)
        say(
            f"{line.name}: {OURS} against "
            + ", ".join(parts)
            + (f"; FAILED: {trouble[line.name, OURS]}" if (line.name, OURS) in trouble else "")
        )
        (options.output / "loops.md").write_text(markdown(results, trouble, loops, about))
        (options.output / "loops.svg").write_text(plot(results, loops))
        (options.output / "loops.json").write_text(
            json.dumps(
                {
                    "about": about,
                    "trouble": [[*key, why] for key, why in trouble.items()],
                    "lines": [
                        {"name": entry.name, "title": entry.title, "unit": entry.unit, "loops": entry_turns}
                        for entry, entry_turns in results.items()
                    ],
                },
                indent=1,
            )
        )
    say(f"written: {options.output}/loops.json, loops.md, loops.svg")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__)
    parser.add_argument("--list", action="store_true", help="say the lines and loops")
    parser.add_argument("--lines", default="all", help="names with commas; a * at the end is a prefix")
    parser.add_argument("--loops", default="all", help=f"of {', '.join(LOOPS)}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop in each line [5]")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds of a turn [0.5]")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args(argv)
    if options.list:
        for line in LINES:
            print(f"  {line.name:20} {line.title}")
        return 0

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        with tempfile.TemporaryDirectory(prefix="capicorn-bench-") as work:
            return run(options, say, Path(work))
    except SetupError as e:
        print(f"benchmarks: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
