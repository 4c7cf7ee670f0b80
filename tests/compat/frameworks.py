"""Starlette's and FastAPI's own tests with a real server behind their test client.

    python -m tests.compat.frameworks starlette
    python -m tests.compat.frameworks fastapi --server uvicorn
    python -m tests.compat.frameworks fastapi --server uvicorn --write   # excluded.txt anew, from what fails there

The suites are in the projects' source distributions, which pip downloads (pinned, kept in a cache folder:
CAPICORN_TEST_CACHE, or capicorn-tests in the user's cache folder). What they need goes into a virtual environment
there, which sees the packages of this interpreter as well. excluded.txt names the tests that cannot pass over a
socket or do not pass with uvicorn, with the reason. Exit code 1 when any other test fails, twice.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXCLUDED = HERE / "excluded.txt"
VERSIONS = {"starlette": "1.10.0", "fastapi": "0.165.0"}
NEEDS = {
    "starlette": ["anyio[trio]", "httpx2", "itsdangerous", "jinja2", "python-multipart", "pyyaml", "typing-extensions",
                  "websockets", "opentelemetry-api", "opentelemetry-sdk"],
    "fastapi": ["a2wsgi", "anyio[trio]", "dirty-equals", "email-validator", "flask", "httpx2", "inline-snapshot", "itsdangerous",
                "jinja2", "opentelemetry-api", "opentelemetry-sdk", "orjson", "pwdlib[argon2]", "pydantic-extra-types",
                "pydantic-settings", "pyjwt", "python-multipart", "pyyaml", "sqlmodel", "strawberry-graphql", "typer", "ujson",
                "websockets"],
}  # fmt: skip
CHOSEN = "by design: "
"""How the reasons begin that --write leaves alone: what we do otherwise than uvicorn, on purpose."""
LIMIT = 60
"""Seconds for one test."""


def cache() -> Path:
    """Where downloads and the environment are kept."""
    base = os.environ.get("CAPICORN_TEST_CACHE")
    if base is None:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "capicorn-tests")
    path = Path(base) / "frameworks"
    path.mkdir(parents=True, exist_ok=True)
    return path


def run(*argv: str | Path) -> None:
    """A command that has to succeed; its output is shown when it does not."""
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(str(a) for a in argv)} failed:\n{done.stdout[-4000:]}")


def sources(name: str) -> Path:
    """The unpacked source distribution."""
    folder = cache() / f"{name}-{VERSIONS[name]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as temporary:
            run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", temporary,
                f"{name}=={VERSIONS[name]}")  # fmt: skip
            (archive,) = Path(temporary).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
            (Path(temporary) / folder.name).rename(folder)
    return folder


def environment(name: str) -> Path:
    """An interpreter with the framework and what its tests need; our own packages come last in its path."""
    tag = f"{name}-{VERSIONS[name]}-{sys.version_info[0]}.{sys.version_info[1]}"
    folder = cache() / f"env-{tag}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        run(python, "-m", "pip", "install", "--quiet", "pytest", "pytest-timeout", f"{name}=={VERSIONS[name]}",
            f"starlette=={VERSIONS['starlette']}", *NEEDS[name])  # fmt: skip
        ready.touch()
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    # As a folder of packages, so that an editable install in it is found, too; from the environment, as several
    # checkouts may use this folder at a time.
    (Path(packages) / "parent.pth").write_text(
        "import os, site; 'COMPAT_PACKAGES' in os.environ and site.addsitedir(os.environ['COMPAT_PACKAGES'])\n"
    )
    return python


def excluded(name: str) -> dict[str, str]:
    """Test ids and reasons."""
    found = {}
    for line in EXCLUDED.read_text().splitlines() if EXCLUDED.exists() else []:
        test, _, reason = line.partition("  # ")
        if test.startswith(f"{name}::"):
            found[test.partition("::")[2]] = reason
    return found


def suite(name: str, server: str, tests: Sequence[str], leave_out: Sequence[str]) -> dict[str, list[str]]:
    """Run the tests; id: [outcome, reason]."""
    python = environment(name)
    folder = sources(name)
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary) / "results.json"
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CAPICORN_", "UVICORN_"))}
        environ.update(
            PYTHONPATH=os.pathsep.join([str(HERE), str(folder)]),
            PYTHONDONTWRITEBYTECODE="1",
            COMPAT_PACKAGES=sysconfig.get_path("purelib"),
            COMPAT_SERVER=server,
            COMPAT_RESULTS=str(results),
        )
        arguments = Path(temporary) / "arguments"  # a command line has an end
        arguments.write_text("\n".join([*(f"--deselect={t}" for t in leave_out), *(tests or ["tests"])]))
        subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "real_client", "-p", "no:cacheprovider", "-o", "addopts=", "--no-header",
             "--continue-on-collection-errors", "--tb=short", "-W", "ignore", "-o", "filterwarnings=ignore", f"--timeout={LIMIT}", f"@{arguments}"],
            cwd=folder, env=environ, check=False, stdout=None if tests else subprocess.DEVNULL,
        )  # fmt: skip
        if not results.exists():
            raise SystemExit(f"the suite of {name} did not come to its end")
        outcome: dict[str, list[str]] = json.loads(results.read_text())
        return outcome


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compat.frameworks", description=__doc__.splitlines()[0])
    parser.add_argument("framework", choices=sorted(VERSIONS))
    parser.add_argument("tests", nargs="*", help="ids of tests; all by default")
    parser.add_argument("--server", default="capicorn", help="module with Config and Server (default: capicorn)")
    parser.add_argument("--write", action="store_true", help="make excluded.txt of what fails")
    given = parser.parse_args(argv)
    name = given.framework
    left_out = {} if given.write or given.tests else excluded(name)
    outcome = suite(name, given.server, given.tests, list(left_out))
    if not outcome:
        raise SystemExit(f"no test of {name} was run")
    failed = {test: reason for test, (result, reason) in outcome.items() if result == "failed"}
    if failed and not given.tests:
        again = suite(name, given.server, sorted(failed), [])
        failed = {test: reason for test, (result, reason) in again.items() if result == "failed"}
    if given.write:
        before = EXCLUDED.read_text().splitlines() if EXCLUDED.exists() else []
        others = [line for line in before if not line.startswith(f"{name}::") or f"# {CHOSEN}" in line]
        lines = [f"{name}::{test}  # {reason}" for test, reason in failed.items()]
        EXCLUDED.write_text("\n".join(sorted({*others, *lines})) + "\n")
    for test, reason in sorted(failed.items()):
        print(f"FAILED {name}::{test}  # {reason}")
    passed = sum(result == "passed" for result, _ in outcome.values())
    print(
        f"{name} {VERSIONS[name]} over {given.server}: {passed} passed, {len(failed)} failed, {len(left_out)} excluded"
    )
    return 1 if failed and not given.write else 0


if __name__ == "__main__":
    sys.exit(main())
