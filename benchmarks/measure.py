"""Rounds and turns: all servers of a case are started, then measured in turns, the others stopped meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import special
from .cases import Case
from .environment import Environment, Say
from .processes import Cores, Failed, Running, loaded, pin
from .servers import REFERENCE, SERVERS, NotOffered, Server, file_for, why_not

APP = "app"
WARM_UP = 0.4
"""Seconds of load before the first turn of a round. Its answers have to be right too."""


@dataclass
class Outcome:
    """What one server did in one case: a dict for each turn (`value` in the case's unit, and what else was read), in
    the order of the turns, or why there are none."""

    turns: list[dict[str, Any]] = field(default_factory=list)
    absent: str | None = None
    failed: str | None = None

    @property
    def not_installed(self) -> bool:
        return (self.absent or "").startswith("not installed")

    def fail(self, why: str) -> None:
        self.failed = self.failed or why


class AppAlone:
    """The application in a plain loop, as if it were a server."""

    def __init__(self, case: Case, env: Environment, cores: Cores) -> None:
        body = file_for(env.work, "floor-body", case.body)
        variables = dict(os.environ, PYTHONPATH=env.paths[False], BENCHMARK_FILE=str(env.work / "file.bin"))
        self.process = subprocess.Popen(
            [
                str(env.python),
                "-m",
                "benchmarks.floor",
                case.app,
                case.method,
                case.path,
                str(body),
                json.dumps(case.headers),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=env.work,
            env=variables,
            start_new_session=True,
            preexec_fn=lambda: pin(cores.server),
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            self.stop()
            raise Failed("the application could not be called in a loop")

    def turn(self, seconds: float) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n".encode())
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Failed("the application could not be called in a loop")
        result: dict[str, Any] = json.loads(line)
        return result

    def freeze(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def turn_of_load(running: Running | AppAlone, seconds: float) -> dict[str, Any]:
    result = running.turn(seconds) if isinstance(running, AppAlone) else loaded(running, seconds)
    requests = result["requests"]
    turn: dict[str, Any] = {
        "value": requests / result["seconds"],
        "cpu_us": result["cpu"] / requests * 1e6,
        "busy": result["cpu"] / result["seconds"],
        "requests": requests,
    }
    turn |= {key: result[key] for key in ("server_idle", "load_idle") if key in result}
    if isinstance(running, Running):
        turn["load_busy"] = result["load_cpu"] / result["seconds"] / len(running.cores.load)
        turn["latency_us"] = result["latency_us"]
        if result["bytes"] / requests >= 1000:
            turn["mib_per_second"] = result["bytes"] / result["seconds"] / 1048576
        if result["reconnects"]:
            turn["reconnects"] = result["reconnects"]
    return turn


def warm_up(running: Running | AppAlone) -> None:
    """A turn that is not counted; on a busy machine it may pass without an answer, but not with a wrong one."""
    if isinstance(running, Running):
        loaded(running, WARM_UP, may_be_none=True)
    else:
        running.turn(WARM_UP)


Progress = Callable[[str], None]


def begin(name: str, case: Case, env: Environment, cores: Cores) -> Running | AppAlone:
    if name == APP:
        return AppAlone(case, env, cores)
    running = Running(SERVERS[name], case, env, cores)
    try:
        running.wait_until_up()
        running.check()
    except BaseException:
        running.stop()
        raise
    return running


def interleaved(
    case: Case,
    names: list[str],
    env: Environment,
    cores: Cores,
    round_number: int,
    seconds: int,
    outcomes: dict[str, Outcome],
    progress: Progress,
) -> None:
    """One round: everybody is started and warm, then `seconds` turns of a second for each."""
    there: dict[str, Running | AppAlone] = {}
    latency = case.kind == "latency"
    rates: dict[str, float] = {}
    try:
        for name in names:
            progress(f"starting {name}")
            try:
                there[name] = running = begin(name, case, env, cores)
                warm_up(running)
                if latency:
                    # Closed loop: what it can do, of which the turns then ask for a part.
                    rates[name] = turn_of_load(running, 1.0)["value"]
            except NotOffered as e:
                outcomes[name].absent = str(e)
            except Failed as e:
                outcomes[name].fail(str(e))
            if outcomes[name].absent or outcomes[name].failed:
                if name in there:
                    there.pop(name).stop()
            else:
                there[name].freeze()
        if latency and case.name == "latency":
            if REFERENCE not in rates:
                raise Failed(f"{REFERENCE} has to take part: it sets the rate")
            rates = dict.fromkeys(rates, rates[REFERENCE])
        for number in range(seconds):
            order = list(there)
            shift = (round_number * seconds + number) % max(1, len(order))
            for name in order[shift:] + order[:shift]:
                running = there[name]
                progress(f"turn {number + 1} of {seconds}: {name}")
                running.thaw()
                try:
                    if case.kind == "blocked" and isinstance(running, Running):
                        turn = special.blocked(running)
                    elif case.kind == "transfer" and isinstance(running, Running):
                        turn = special.transfer(running)
                    elif latency and isinstance(running, Running):
                        turn = special.latency(running, 1.0, 0.7 * rates[name])
                    else:
                        turn = turn_of_load(running, 1.0)
                except Failed as e:
                    outcomes[name].fail(str(e))
                    there.pop(name).stop()
                    continue
                outcomes[name].turns.append({"round": round_number, "turn": number, **turn})
                time.sleep(0.02)  # the ends of the load's connections are part of its turn
                running.freeze()
    finally:
        for name, running in there.items():
            running.thaw()
            running.stop()
            if case.access_log and isinstance(running, Running):
                lines = running.log_lines()
                if lines < running.asked:
                    outcomes[name].fail(f"{lines} lines of access log for {running.asked} requests")
                elif outcomes[name].turns:
                    outcomes[name].turns[-1]["log_lines"] = lines


def alone(
    case: Case,
    names: list[str],
    env: Environment,
    cores: Cores,
    round_number: int,
    seconds: int,
    outcomes: dict[str, Outcome],
    progress: Progress,
) -> None:
    """One round in which each server is started by itself."""
    for name in names:
        progress(name)
        try:
            if name == APP:
                turn = special.idle_websocket_floor(case, env)
            else:
                turn = special.ALONE[case.kind](SERVERS[name], case, env, cores)
        except NotOffered as e:
            outcomes[name].absent = str(e)
        except Failed as e:
            outcomes[name].fail(str(e))
        else:
            outcomes[name].turns.append({"round": round_number, "turn": 0, **turn})


def takes_part(server: Server, case: Case) -> bool:
    return not server.floor or server.name in case.floors


def measure(
    case: Case, servers: list[str], env: Environment, rounds: int, seconds: int, say: Say, progress: Progress
) -> dict[str, Outcome]:
    """All rounds of a case. A server that failed once is left out from then on, and of what it did nothing is used."""
    names = [name for name in servers if takes_part(SERVERS[name], case)]
    outcomes = {name: Outcome(absent=why_not(SERVERS[name], case, env)) for name in names}
    if APP in case.floors:
        outcomes[APP] = Outcome()
    cores = Cores.split(case.workers)
    for number in range(rounds):
        left = [name for name in outcomes if not outcomes[name].absent and not outcomes[name].failed]
        # Whoever is first in one round is later in the next.
        left = left[number % max(1, len(left)) :] + left[: number % max(1, len(left))]
        if not left:
            break

        def told(what: str, number: int = number) -> None:
            progress(f"{case.name}: round {number + 1} of {rounds}, {what}")

        (alone if case.only_alone else interleaved)(case, left, env, cores, number, seconds, outcomes, told)
    for name, outcome in outcomes.items():
        if outcome.failed:
            say(f"{case.name}: {name} FAILED: {outcome.failed}")
    return outcomes
