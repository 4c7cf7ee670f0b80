"""A pytest plugin for run_suites.py: puts the loop under test in place, and says what begins and how it ended.

It runs in the environment of another project's suite, so it takes nothing but the standard library and pytest. Its
settings are in a JSON file that SUITE_SETTINGS names: `loop`, `out` (the descriptor to report to, see
run_suites.Result), `keyword`, `done` (tests that ran before), `only` (the tests to run, or null) and `excluded`
([pattern, reason]; a star in a pattern stands for anything).
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import re
import signal
from typing import Any

import pytest
from run_suites import put_in_place

with open(os.environ["SUITE_SETTINGS"]) as settings:
    SETTINGS = json.load(settings)
EXCLUDED = [
    (re.compile(".*".join(re.escape(part) for part in pattern.split("*"))), reason)
    for pattern, reason in SETTINGS["excluded"]
]
os.set_inheritable(SETTINGS["out"], False)
OUT = open(SETTINGS["out"], "w", closefd=False)  # tests look for files that are left open
# Before pytest captures what is written to the terminal.
faulthandler.register(signal.SIGUSR2, file=os.dup(2), all_threads=True)
if SETTINGS["loop"] != "asyncio":
    put_in_place(SETTINGS["loop"])

ends: dict[str, tuple[str, str]] = {}


def name_of(nodeid: str) -> str:
    return nodeid.removeprefix("tests/")


def say(what: str, nodeid: str, detail: str = "") -> None:
    print(json.dumps({"what": what, "test": name_of(nodeid), "detail": detail}), file=OUT, flush=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    done, only = set(SETTINGS["done"]), SETTINGS["only"]
    wanted, others = [], []
    for item in items:
        name = name_of(item.nodeid)
        reason = next((reason for pattern, reason in EXCLUDED if pattern.fullmatch(name)), None)
        if name in done or SETTINGS["keyword"] not in name or (only is not None and name not in only):
            others.append(item)
        elif reason is not None:
            others.append(item)
            if not done:
                say("excluded", item.nodeid, reason)
        else:
            wanted.append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = wanted


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed and name_of(report.nodeid) not in SETTINGS["done"]:
        say("start", report.nodeid)
        say("failed", report.nodeid, report.longreprtext)


def pytest_runtest_logstart(nodeid: str) -> None:
    say("start", nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    what, detail = report.outcome, ""
    if what == "skipped":
        detail = getattr(report, "wasxfail", "") or str(report.longrepr)
    elif what == "failed":
        sections = "\n".join(f"-- {title}\n{text[-3000:]}" for title, text in report.sections)
        detail = f"{sections}\n{report.longreprtext}"
    elif report.when != "call":
        return
    if ends.get(report.nodeid, ("", ""))[0] != "failed":
        ends[report.nodeid] = what, detail


def pytest_runtest_logfinish(nodeid: str) -> None:
    say(*((end := ends.pop(nodeid, ("passed", "")))[0], nodeid, end[1]))


def pytest_report_header() -> str:
    loop: Any = asyncio.new_event_loop()
    loop.close()
    return f"loop: {type(loop).__mro__[1 if SETTINGS['loop'] != 'asyncio' else 0]}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Tests that failed were told; only a run that broke is an error."""
    if exitstatus in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.OK
