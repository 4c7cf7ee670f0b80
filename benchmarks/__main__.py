"""python -m benchmarks: Capicorn and its peers, side by side in one run. README.md tells how to read it."""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from . import apps, report, wrk
from .cases import CASES, Case
from .environment import SetupError, machine, prepare
from .measure import Outcome, measure
from .processes import Cores, physical_cores
from .servers import OURS, REFERENCE, SERVERS


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="say the cases and servers, and measure nothing")
    parser.add_argument("--cases", default="all", help="names with commas between them; a * at the end is a prefix")
    parser.add_argument("--servers", default="all", help="names with commas; uvicorn is what ratios refer to")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each server [3]")
    parser.add_argument("--seconds", type=int, default=4, help="turns of a second in each round [4]")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/benchmarks"),
        help="folder for results.json, results.md and results.svg [build/benchmarks]",
    )
    parser.add_argument(
        "--wrk",
        action="store_true",
        help="measure the HTTP cases that wrk can ask for with it too, as a check of our load program",
    )
    parser.add_argument("--fail-behind", action="store_true", help="exit with 1 when a peer is ahead in a case")
    return parser.parse_args(argv)


def chosen(text: str, names: list[str], what: str) -> list[str]:
    """Raises SetupError for a name that is none."""
    if text == "all":
        return names
    found = []
    for wanted in text.split(","):
        fits = [name for name in names if name == wanted or (wanted.endswith("*") and name.startswith(wanted[:-1]))]
        if not fits:
            raise SetupError(f"{wanted!r} is no {what}; there are: {', '.join(names)}")
        found += [name for name in fits if name not in found]
    return found


class Terminal:
    """Progress on one line of a terminal, and lines that stay."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.start = time.monotonic()

    def progress(self, text: str) -> None:
        if self.live:
            passed = int(time.monotonic() - self.start)
            width = shutil.get_terminal_size().columns
            print(
                f"\r\033[K{passed // 60:3d}:{passed % 60:02d} {text}"[: width + 4], end="", file=sys.stderr, flush=True
            )

    def say(self, text: str) -> None:
        print(("\r\033[K" if self.live else "") + text, file=sys.stderr, flush=True)


def write(folder: Path, results: dict[Case, dict[str, Outcome]], about: dict[str, Any]) -> None:
    """After each case, so that a run that is broken off leaves what it has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("results.json", report.as_json(results, about)),
        ("results.md", report.markdown(results, about)),
        ("results.svg", report.plot(results)),
    ):
        temporary = folder / (name + ".new")
        temporary.write_text(text)
        os.replace(temporary, folder / name)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    if options.list:
        print("cases:")
        for case in CASES:
            print(f"  {case.name:17} {case.title}")
        print("servers:")
        for server in SERVERS.values():
            print(f"  {server.name:17} {server.title}")
        return 0
    terminal = Terminal()
    for number in (signal.SIGTERM, signal.SIGHUP):  # servers are sessions of their own and would stay
        signal.signal(number, _interrupt)
    try:
        names = chosen(options.cases, [case.name for case in CASES], "case")
        servers = chosen(options.servers, list(SERVERS), "server")
        if options.rounds < 1 or options.seconds < 1:
            raise SetupError("--rounds and --seconds are 1 or more")
        with tempfile.TemporaryDirectory(prefix="capicorn-bench-") as work:
            return run(options, terminal, [case for case in CASES if case.name in names], servers, Path(work))
    except SetupError as e:
        print(f"benchmarks: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        terminal.say("broken off; what was measured is written")
        return 130


def run(options: argparse.Namespace, terminal: Terminal, cases: list[Case], servers: list[str], work: Path) -> int:
    os.chmod(work, 0o755)
    env = prepare(work, terminal.say)
    (work / "file.bin").write_bytes(apps.BODIES["/64k"])
    for case in cases:
        if case.kind == "transfer":
            (work / "large.bin").write_bytes(case.want)
    for name in servers:
        if SERVERS[name].needs in env.missing:
            terminal.say(f"{name} takes no part: {env.missing[SERVERS[name].needs]}")
    if env.capicorn != "release" and OURS in servers:
        terminal.say("this Capicorn is built with assertions: `make bench` measures a release build")
    cpus = physical_cores()
    if len(cpus) < 2:
        terminal.say("one CPU for server and load: the figures say little")
    elif len(cpus) < 4:
        terminal.say(f"{len(cpus)} CPUs: one for the server and one for the load, also with several workers")
    os.sched_setaffinity(0, Cores.split(1).load)
    interesting = [
        "capicorn",
        "uvicorn",
        "uvloop",
        "httptools",
        "granian",
        "Hypercorn",
        "gunicorn",
        "uvicorn-worker",
        "socketify",
        "fastpysgi",
        "zttp",
        "zuvloop",
        "starlette",
        "fastapi",
        "pydantic",
    ]
    about = {
        "when": datetime.date.today().isoformat(),
        "machine": machine(len(cpus)),
        "capicorn": env.capicorn,
        "missing": {n: env.missing[SERVERS[n].needs] for n in servers if SERVERS[n].needs in env.missing},
        "rounds": options.rounds,
        "seconds": options.seconds,
        "versions": {name: env.versions[name] for name in interesting if name in env.versions},
    }
    results: dict[Case, dict[str, Outcome]] = {}
    for case in cases:
        results[case] = measure(case, servers, env, options.rounds, options.seconds, terminal.say, terminal.progress)
        terminal.say(report.one_line(case, results[case]))
        if options.wrk:
            terminal.say(wrk.check(case, [n for n, o in results[case].items() if o.turns and not o.failed], env))
        write(options.output, results, about)
    behind = report.behind(results) if REFERENCE in servers else []
    for line in behind:
        terminal.say(f"behind: {line}")
    terminal.say(f"written: {options.output}/results.json, results.md, results.svg")
    return 1 if behind and options.fail_behind else 0


if __name__ == "__main__":
    sys.exit(main())
