"""Medians, spreads and ratios, and how they are written: JSON with every turn, Markdown, SVG."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import svg
from .cases import Case
from .measure import APP, Outcome
from .processes import Cores
from .servers import OURS, REFERENCE, SERVERS


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of all turns; none is left out."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        if not values:
            return None
        ordered = sorted(values)
        if len(ordered) == 1:
            return cls(ordered[0], ordered[0], ordered[0])
        quarters = statistics.quantiles(ordered, n=4, method="inclusive")
        return cls(statistics.median(ordered), quarters[0], quarters[2])


@dataclass(frozen=True)
class Row:
    """One server in one case. Ratios are pairs of turns of the same number: above 1 is better than uvicorn.

    `cost_clock` and `cost_cpu` are the headline: microseconds for a request that are the server's, so without the
    application's own; by the clock (1 / rate) and by the processor time that the server's processes had. When the
    server was hindered, only the second tells about it.
    """

    server: str
    value: Spread
    cpu_us: Spread | None
    ratio: Spread | None
    cpu_ratio: Spread | None
    cost_clock: float | None
    cost_cpu: float | None
    busy: float | None
    load_busy: float | None
    hindered: bool
    """The server did not have its cores to itself, or the load ran out of processor: the clock tells about that."""


def title_of(server: str) -> str:
    return "the application in a plain loop (floor)" if server == APP else SERVERS[server].title


def by_turn(outcome: Outcome, key: str) -> dict[tuple[int, int], float]:
    return {(turn["round"], turn["turn"]): turn[key] for turn in outcome.turns if key in turn}


def pairs(ours: dict[tuple[int, int], float], theirs: dict[tuple[int, int], float], lower: bool) -> list[float]:
    found = [(ours[k], theirs[k]) for k in ours if k in theirs and ours[k] > 0 and theirs[k] > 0]
    return [b / a if lower else a / b for a, b in found]


def middle(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def rows(case: Case, outcomes: dict[str, Outcome]) -> list[Row]:
    """Of the servers that answered rightly to the end."""
    good = {name: outcome for name, outcome in outcomes.items() if outcome.turns and not outcome.failed}
    reference, app = good.get(REFERENCE), good.get(APP)
    made = []
    for name, outcome in good.items():
        value = Spread.of([turn["value"] for turn in outcome.turns])
        assert value is not None
        cpu = by_turn(outcome, "cpu_us")
        ratio = cpu_ratio = None
        if reference is not None:
            ratio = Spread.of(pairs(by_turn(outcome, "value"), by_turn(reference, "value"), case.lower_is_better))
            cpu_ratio = Spread.of(pairs(cpu, by_turn(reference, "cpu_us"), True))
        cost_clock = cost_cpu = None
        if app is not None and name != APP and not case.lower_is_better and case.workers == 1:
            own = 0.0 if name in SERVERS and SERVERS[name].floor else statistics.median(by_turn(app, "cpu_us").values())
            cost_clock = 1e6 / value.median - own
            cost_cpu = statistics.median(cpu.values()) - own
        busy = [turn["busy"] for turn in outcome.turns if "busy" in turn]
        load = [turn["load_busy"] for turn in outcome.turns if "load_busy" in turn]
        cores = len(Cores.split(case.workers).server)
        hindered = not case.lower_is_better and any(
            turn["busy"] / cores < 0.93 and (turn["server_idle"] < 0.05 or turn["load_idle"] < 0.05)
            for turn in outcome.turns
            if "server_idle" in turn
        )
        made.append(
            Row(
                name,
                value,
                Spread.of(list(cpu.values())),
                ratio,
                cpu_ratio,
                cost_clock,
                cost_cpu,
                middle(busy),
                middle(load),
                hindered,
            )
        )
    return made


def fair_ratio(row: Row, reference: Row | None) -> Spread | None:
    """By the clock, unless one of the two servers was hindered in a turn; then by its processor time."""
    if row.ratio is None or row.cpu_ratio is None or reference is None:
        return row.ratio
    return row.cpu_ratio if row.hindered or reference.hindered else row.ratio


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return ""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - int(f"{abs(value):e}".partition("e")[2]))
    return f"{value:,.{places}f}"


def ratio_text(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"


def markdown(results: dict[Case, dict[str, Outcome]], about: dict[str, Any]) -> str:
    """Ratios of all cases in one table, then each case."""
    seen = [name for name in SERVERS if any(name in outcomes for outcomes in results.values())]
    shown = [name for name in seen if any(row.server == name for c, o in results.items() for row in rows(c, o))]
    lines = [
        "# Capicorn beside its peers",
        "",
        f"CPython {about['machine']['python']}, {about['machine']['cores']} cores ({about['machine']['cpu']}), "
        f"{about['machine']['system']}. Capicorn: {about['capicorn']} build. {about['rounds']} starts of each "
        f"server, {about['seconds']} turns of a second after each. Versions: "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + ".",
        *[f"\n{title_of(name)} took no part: {why}" for name, why in about["missing"].items()],
        "",
        "Times as good as uvicorn with httptools and uvloop: medians of pairs of turns; their quartiles are in "
        "the tables below. * by the server's processor time per request, because in a turn the load ran out of "
        "processor, or other programs took some.",
        "",
        "| case | " + " | ".join(shown) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for case, outcomes in results.items():
        made = {row.server: row for row in rows(case, outcomes)}
        cells = []
        for name in shown:
            row = made.get(name)
            outcome = outcomes.get(name)
            if row is not None:
                spread = fair_ratio(row, made.get(REFERENCE))
                star = "*" if spread is not None and spread is row.cpu_ratio else ""
                cells.append("" if spread is None else f"{spread.median:.2f}{star}")
            else:
                cells.append("" if outcome is None else "failed" if outcome.failed else "-")
        lines.append(f"| {case.title} | " + " | ".join(cells) + " |")
    for case, outcomes in results.items():
        lines += ["", f"## {case.title} (`{case.name}`)", ""]
        made_rows = rows(case, outcomes)
        costs = any(row.cost_cpu is not None for row in made_rows)
        head = ["server", case.unit, "quartiles", "times uvicorn (quartiles)"]
        timed = any(row.cpu_us is not None for row in made_rows)
        head += (
            [
                "its processor us" + ("" if case.kind == "start" else " per request"),
                "times uvicorn in that",
                "cores used: server, load",
            ]
            if timed
            else []
        )
        head += ["server's cost us by processor", "by the clock"] if costs else []
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for row in sorted(made_rows, key=lambda r: r.value.median, reverse=not case.lower_is_better):
            cells = [
                title_of(row.server),
                number(row.value.median),
                f"{number(row.value.low)}-{number(row.value.high)}",
                ratio_text(row.ratio),
            ]
            if timed:
                load = "" if row.load_busy is None else f"{row.load_busy:.2f}"
                cells += [
                    number(row.cpu_us.median) if row.cpu_us else "",
                    ratio_text(row.cpu_ratio),
                    "" if row.busy is None else f"{row.busy:.2f}, {load}",
                ]
            if costs:
                cells += [number(row.cost_cpu), number(row.cost_clock)]
            lines.append("| " + " | ".join(cells) + " |")
        lines += [
            f"\n{title_of(name)}: no figure, {outcome.failed or outcome.absent}"
            for name, outcome in outcomes.items()
            if (outcome.failed or outcome.absent) and not outcome.not_installed
        ]
        if case.kind in ("latency", "blocked"):
            lines += latency_table(outcomes)
        elif case.kind == "http" and APP in case.floors and costs:
            own = next((row.cpu_us.median for row in made_rows if row.server == APP and row.cpu_us), None)
            lines += [f"\nThe server's cost is without the application's own {number(own)} us."]
    return "\n".join(lines) + "\n"


def latency_table(outcomes: dict[str, Outcome]) -> list[str]:
    names = ["p50", "p90", "p99", "p99.9", "max"]
    lines = ["", "| microseconds, medians of the turns | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, outcome in outcomes.items():
        if outcome.turns and not outcome.failed:
            cells = [number(statistics.median(turn["latency_us"][p] for turn in outcome.turns)) for p in names]
            lines.append(f"| {title_of(name)} | " + " | ".join(cells) + " |")
    return lines


def as_json(results: dict[Case, dict[str, Outcome]], about: dict[str, Any]) -> str:
    """Every turn of every server, and the summary that the Markdown shows."""
    cases = []
    for case, outcomes in results.items():
        made = {row.server: row for row in rows(case, outcomes)}
        servers = {}
        for name, outcome in outcomes.items():
            entry: dict[str, Any] = {"failed": outcome.failed, "absent": outcome.absent}
            if name in made:
                row = made[name]
                fair = fair_ratio(row, made.get(REFERENCE))
                entry["summary"] = {
                    key: vars(value) if isinstance(value, Spread) else value
                    for key, value in vars(row).items()
                    if key != "server"
                }
                entry["summary"]["fair_ratio"] = vars(fair) if fair else None
                entry["turns"] = outcome.turns
            servers[name] = entry
        cases.append(
            {
                "name": case.name,
                "title": case.title,
                "unit": case.unit,
                "lower_is_better": case.lower_is_better,
                "servers": servers,
            }
        )
    return json.dumps({"about": about, "reference": REFERENCE, "cases": cases}, indent=1)


def plot(results: dict[Case, dict[str, Outcome]]) -> str:
    """All ratios on one logarithmic axis."""
    lines, names = [], []
    for case, outcomes in results.items():
        made = {row.server: row for row in rows(case, outcomes)}
        points = {}
        for name, row in made.items():
            spread = fair_ratio(row, made.get(REFERENCE))
            if name != APP and spread is not None:
                points[name] = (spread.median, spread.low, spread.high)
        if points:
            lines.append((case.title, points))
    for name in SERVERS:
        if any(name in points for _, points in lines):
            names.append((name, SERVERS[name].title, SERVERS[name].floor))
    return svg.dot_plot("Times as good as uvicorn (httptools, uvloop); lines are quartiles", lines, names, OURS)


def one_line(case: Case, outcomes: dict[str, Outcome]) -> str:
    """For the terminal: everybody's ratio, the best first."""
    made = {row.server: row for row in rows(case, outcomes)}
    found = [(name, fair_ratio(row, made.get(REFERENCE)), row) for name, row in made.items() if name != APP]
    found.sort(key=lambda entry: entry[1].median if entry[1] else 0.0, reverse=True)
    parts = []
    for name, spread, row in found:
        star = "*" if spread is not None and spread is row.cpu_ratio else ""
        text = f"{spread.median:.2f}{star}" if spread is not None else f"{number(row.value.median)} {case.unit}"
        parts.append(f"{name} {text}" + (f" [{number(row.cost_cpu)} us]" if row.cost_cpu is not None else ""))
    missing = [
        f"{name}: {'failed' if o.failed else 'absent'}"
        for name, o in outcomes.items()
        if (o.failed or o.absent) and not o.not_installed
    ]
    return f"{case.name}: " + ", ".join(parts + missing)


def behind(results: dict[Case, dict[str, Outcome]]) -> list[str]:
    """The cases in which a peer's median is ahead of ours, or in which ours has no figure."""
    found = []
    for case, outcomes in results.items():
        if OURS not in outcomes:
            continue
        made = {row.server: row for row in rows(case, outcomes)}
        if OURS not in made:
            why = outcomes[OURS].failed or outcomes[OURS].absent or "no turn"
            if made or outcomes[OURS].failed:
                found.append(f"{case.name}: Capicorn has no figure: {why}")
            continue
        ours = fair_ratio(made[OURS], made.get(REFERENCE))
        for name, row in made.items():
            theirs = fair_ratio(row, made.get(REFERENCE))
            if (
                name in SERVERS
                and not SERVERS[name].floor
                and name != OURS
                and ours
                and theirs
                and theirs.median > ours.median
            ):
                found.append(f"{case.name}: {name} {theirs.median:.2f}, Capicorn {ours.median:.2f}")
    return found
