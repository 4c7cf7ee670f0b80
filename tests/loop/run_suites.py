"""Runs other projects' event loop tests with capicorn.Loop in place of theirs.

    python tests/loop/run_suites.py uvloop [MODULE ...]
    python tests/loop/run_suites.py cpython [MODULE ...]
    python tests/loop/run_suites.py anyio|aiohttp|websockets|redis|asyncpg [TEST ...]

`uvloop` takes the tests of uvloop's source distribution (fetched with pip, as for the build; or a folder given by
`--source`; they want psutil, pyOpenSSL and aiohttp, and SIGHUP not ignored, as nohup does), `cpython` the package
test.test_asyncio of the Python that runs this, the others the tests of projects that stand on an event loop
(client_suites.py; servers that they need have to be installed). `--loop asyncio` puts nothing in place, `--loop uvloop`
uvloop: the figures to compare with. `-k PATTERN` takes the tests whose name contains it. `--json` keeps how each test ended, for `--against` in a run with another loop.

A test that is left out is named in a file of exclusions/, with its reason: a pattern as fnmatch understands it, then
`#` and the reason; `[3.14+]` or `[<3.12]` in front limits it to versions of Python.

Each module of the first two runs in a process of its own; one that hangs is ended and goes on behind the test that
hung. Exit status 1 when anything failed.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

UVLOOP_MODULES = (
    "test_aiohttp test_base test_context test_dealloc test_dns test_executors test_pipes test_process "
    "test_process_spawning test_regr1 test_runner test_signals test_sockets test_tcp test_testbase test_udp test_unix"
).split()

CPYTHON_MODULES = (
    "test_base_events test_buffered_proto test_context test_eager_task_factory test_events test_futures test_futures2 "
    "test_graph test_locks test_pep492 test_protocols test_queues test_runners test_selector_events test_sendfile "
    "test_server test_sock_lowlevel test_ssl test_sslproto test_staggered test_streams test_subprocess "
    "test_taskgroups test_tasks test_threads test_timeouts test_tools test_transports test_unix_events test_waitfor"
).split()

Ends = dict[str, list[tuple[str, str]]]
"""(test, detail) of the tests that ended so: passed, failed, skipped, excluded."""

SHIM = '''
"""Stands for uvloop, so that its tests run with another loop."""
import asyncio as _asyncio
import os as _os
import types as _types

if _os.environ["SUITE_LOOP"] == "capicorn":
    from capicorn.loop import EventLoopPolicy, Loop, install, new_event_loop
else:
    EventLoopPolicy = _asyncio.DefaultEventLoopPolicy
    Loop = _asyncio.SelectorEventLoop
    new_event_loop = _asyncio.new_event_loop

loop = _types.SimpleNamespace(Loop=Loop)


def run(main, *, loop_factory=new_event_loop, debug=None, **kwargs):
    async def wrapper():
        if not isinstance(_asyncio.get_running_loop(), Loop):
            raise TypeError("uvloop.run() uses a non-uvloop event loop")
        return await main

    with _asyncio.Runner(loop_factory=loop_factory, debug=debug) as runner:
        return runner.run(wrapper())
'''


CLIENTS = ("anyio", "aiohttp", "websockets", "redis", "asyncpg")
"""See client_suites.py."""


def exclusions(suite: str) -> list[tuple[str, str]]:
    """(pattern, reason) of each line that holds for this Python."""
    found = []
    for line in (HERE / "exclusions" / f"{suite}.txt").read_text().splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        only = re.match(r"\[(<?)3\.(\d+)(\+?)\]\s*", line)
        if only:
            line = line[only.end() :]
            minor = int(only[2])
            if sys.version_info[1] >= minor if only[1] else sys.version_info[1] < minor:
                continue
            if not only[1] and not only[3] and sys.version_info[1] != minor:
                continue
        pattern, _, reason = line.partition("#")
        if not reason.strip():
            raise SystemExit(f"exclusions/{suite}.txt: no reason given for {pattern.strip()}")
        found.append((pattern.strip(), reason.strip()))
    return found


# ---- the child: one module ----


def put_in_place(package: str = "capicorn") -> None:
    """Let whatever asks asyncio for a loop of this platform get the Loop of that package."""
    import asyncio
    from asyncio import unix_events

    Loop = importlib.import_module(package).Loop

    class SelectorEventLoop(Loop):
        def __init__(self, selector: Any = None) -> None:
            if selector is not None:
                selector.close()
            super().__init__()

    SelectorEventLoop.__name__ = SelectorEventLoop.__qualname__ = "Loop"
    SelectorEventLoop.__module__ = Loop.__module__
    asyncio.SelectorEventLoop = unix_events.SelectorEventLoop = SelectorEventLoop  # type: ignore[misc]
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = unix_events.EventLoop = SelectorEventLoop
    for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        policy = getattr(unix_events, name, None)
        if policy is not None:
            policy._loop_factory = SelectorEventLoop


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        else:
            yield item


class Result(unittest.TestResult):
    """Says on a pipe what begins and how it ended, a JSON object a line."""

    def __init__(self, out: Any, package: str) -> None:
        super().__init__()
        self.out = out
        self.package = package
        self.bad: set[str] = set()

    def say(self, what: str, test: Any, detail: str = "") -> None:
        name = test.id().removeprefix(self.package)
        print(json.dumps({"what": what, "test": name, "detail": detail}), file=self.out, flush=True)

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.say("start", test)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.say("passed", test)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        if test.id() in self.bad:  # a further subtest, or tearDown
            return
        self.bad.add(test.id())
        self.say("failed", test, self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.say("skipped", test, reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.say("passed", test)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.say("failed", test, "unexpected success")


def child(suite: str, module: str, skip: list[str], keyword: str, out: int) -> None:
    import faulthandler

    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    package = "tests." if suite == "uvloop" else "test.test_asyncio."
    if suite == "cpython" and os.environ["SUITE_LOOP"] == "capicorn":
        put_in_place()
    try:
        loaded = importlib.import_module(package + module)
    except ModuleNotFoundError as e:
        if e.name != package + module:
            raise
        return
    except unittest.SkipTest as e:
        print(f"{module}: {e}", file=sys.stderr)
        return
    result = Result(os.fdopen(out, "w"), package)
    left_out = exclusions(suite)
    wanted = unittest.TestSuite()
    for test in tests_of(unittest.defaultTestLoader.loadTestsFromModule(loaded)):
        name = test.id().removeprefix(package)
        if name in skip or keyword not in name:
            continue
        reason = next((reason for pattern, reason in left_out if fnmatch.fnmatchcase(name, pattern)), None)
        if reason is not None:
            result.say("excluded", test, reason)
        else:
            wanted.addTest(test)
    wanted.run(result)  # a TestSuite, for setUpModule and setUpClass
    result.out.flush()
    os._exit(0)  # threads that tests left must not hold it up


# ---- the parent ----


def uvloop_sources(into: Path) -> Path:
    """uvloop's source distribution, unpacked: the one of CAPICORN_DEPS_DIR, or fetched as for the build."""
    sys.path.insert(0, str(HERE.parent.parent / "tools"))
    import build_deps

    dependency = build_deps.DEPENDENCIES["libuv"]  # comes with uvloop
    archive = Path(os.environ.get("CAPICORN_DEPS_DIR", "")) / dependency.archive
    if not archive.is_file():
        archive = build_deps._pip_download(dependency, into)
    build_deps._check(dependency, archive)
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and ".." not in member.name.split("/"):
                source = tar.extractfile(member)
                assert source is not None
                target = into / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read())
    return into / dependency.top


def prepare_uvloop(given: str | None, into: Path) -> None:
    """Makes `into` hold uvloop's `tests`, and a package `uvloop` that is the loop under test."""
    source = Path(given) if given else uvloop_sources(into)
    shutil.copytree(source / "tests", into / "tests")
    (into / "uvloop").mkdir()
    (into / "uvloop" / "__init__.py").write_text(SHIM)
    shutil.copy(source / "uvloop" / "_testbase.py", into / "uvloop")


def run_module(suite: str, module: str, args: argparse.Namespace, folder: Path) -> Ends:
    environment = dict(os.environ, SUITE_LOOP=args.loop)
    path = [str(folder)] if suite == "uvloop" else []
    environment["PYTHONPATH"] = os.pathsep.join(path + [p for p in sys.path if p and p != str(HERE)])

    def command(done: list[str], out: int) -> list[str]:
        start = [sys.executable, "-W", "ignore::DeprecationWarning", str(Path(__file__).resolve())]
        return [*start, "--child", str(out), "--skip", json.dumps(done), "-k", args.k, suite, module]

    return follow(command, module, environment, folder, args.timeout, args.v)


def follow(
    command: Callable[[list[str], int], list[str]],
    name: str,
    environment: dict[str, str],
    folder: Path,
    limit: float,
    verbose: bool,
) -> Ends:
    """Runs tests in a process that says on a pipe what begins and how it ended (see Result).

    command(tests that are done, descriptor) makes its arguments. One that ends early or says nothing for `limit`
    seconds is started again, for the tests behind the one that did it.
    """
    ends: Ends = {}
    done: list[str] = []
    while True:
        read, write = os.pipe()
        log = tempfile.TemporaryFile()
        process = subprocess.Popen(
            command(done, write),
            env=environment,
            cwd=folder,
            pass_fds=[write],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        os.close(write)
        current, buffer, hung = None, b"", False
        deadline = time.monotonic() + limit
        os.set_blocking(read, False)
        try:
            while True:
                ready, _, _ = select.select([read], [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    hung = True
                    process.send_signal(signal.SIGUSR2)
                    time.sleep(0.5)
                    break
                data = os.read(read, 65536)
                if not data:
                    break
                deadline = time.monotonic() + limit
                buffer += data
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    said = json.loads(line)
                    if said["what"] == "start":
                        current = said["test"]
                    else:
                        ends.setdefault(said["what"], []).append((said["test"], said["detail"]))
                        if said["test"] == current:
                            done.append(current)
                            current = None
            if not hung:
                process.wait(limit)
        except subprocess.TimeoutExpired:
            hung = True
        finally:
            os.close(read)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        log.seek(0)
        text = log.read().decode(errors="replace")
        log.close()
        if verbose:
            print(text)
        if not hung and status == 0:
            return ends
        what = f"no end after {limit} s" if hung else f"the process ended with {status}"
        ends.setdefault("failed", []).append((current or name, f"{what}\n{text[-6000:]}"))
        if current is None:
            return ends
        done.append(current)


def run_clients(args: argparse.Namespace) -> Ends:
    from client_suites import prepared

    package = Path(importlib.import_module("capicorn").__file__ or "").resolve().parent
    left_out = exclusions(args.suite)
    with prepared(
        args.suite, package, args.loop, args.modules, args.k, args.timeout, left_out, SHIM, args.source
    ) as it:
        limit = 2 * args.timeout + 30
        ends = follow(it.command, args.suite, it.environment, it.folder, limit, args.v)
        again = [test for test, _ in ends.get("failed", []) if "::" in test]
        if again:  # a busy machine: what fails twice has failed
            second = follow(it.only(again), args.suite, it.environment, it.folder, limit, args.v)
            passed = {test for test, _ in second.get("passed", [])}
            ends["failed"] = [(test, detail) for test, detail in ends["failed"] if test not in passed]
            ends["passed at the second try"] = [(test, "") for test in again if test in passed]
            ends = {what: tests for what, tests in ends.items() if tests}
        return ends


def show(name: str, ends: Ends, seconds: float, elsewhere: dict[str, str]) -> None:
    line = ", ".join(f"{n} {what}" for what, n in sorted((what, len(tests)) for what, tests in ends.items()))
    print(f"{name}: {line or 'nothing'} ({seconds:.1f} s)", flush=True)
    for test, _ in ends.get("passed at the second try", []):
        print(f"  passed at the second try: {test}")
    for test, detail in ends.get("failed", []):
        if elsewhere and elsewhere.get(test) != "passed":
            print(f"  {elsewhere.get(test, 'not run')} there, failed here: {test}")
            continue
        detail = "\n".join(detail.rstrip().split("\n")[-30:])
        print(f"  FAILED {test}\n{textwrap.indent(detail, '    ')}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=["uvloop", "cpython", *CLIENTS])
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--loop", choices=["capicorn", "asyncio", "uvloop"], default="capicorn")
    parser.add_argument("--source", help="the unpacked source distribution, or a checkout of that version")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one test")
    parser.add_argument("-k", default="", help="only tests whose name contains this")
    parser.add_argument("-v", action="store_true", help="print what the tests print")
    parser.add_argument("--json", help="write every test's end to this file")
    parser.add_argument("--against", help="what --json wrote with another loop: what fails there may fail here")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--skip", default="[]", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    if args.child is not None:
        child(args.suite, args.modules[0], json.loads(args.skip), args.k, args.child)
        return 0
    if args.loop == "uvloop" and args.suite not in CLIENTS:
        parser.error("--loop uvloop is for the suites of projects that use a loop")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests send it; a shell's background jobs ignore it
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # take the processes along
    elsewhere: dict[str, str] = json.loads(Path(args.against).read_text()) if args.against else {}
    totals: dict[str, int] = {}
    record: dict[str, str] = {}
    bad = 0

    def end(name: str, ends: Ends, start: float) -> None:
        nonlocal bad
        for what, tests in ends.items():
            totals[what] = totals.get(what, 0) + len(tests)
            record.update({test: what.partition(" ")[0] for test, _ in tests})
        bad += sum(not elsewhere or elsewhere.get(test) == "passed" for test, _ in ends.get("failed", []))
        show(name, ends, time.monotonic() - start, elsewhere)

    start = time.monotonic()
    if args.suite in CLIENTS:
        end(args.suite, run_clients(args), start)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if args.suite == "uvloop":
                prepare_uvloop(args.source, folder)
            for module in args.modules or (UVLOOP_MODULES if args.suite == "uvloop" else CPYTHON_MODULES):
                start = time.monotonic()
                end(module, run_module(args.suite, module, args, folder), start)
    if args.json:
        Path(args.json).write_text(json.dumps(record, indent=0, sort_keys=True))
    print("total: " + ", ".join(f"{n} {what}" for what, n in sorted(totals.items())))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
