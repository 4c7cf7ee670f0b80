"""The suites of projects that stand on an event loop, for run_suites.py: where they are, what they need.

The tests are in the source distributions, which pip downloads: pinned, with their checksum. What they need goes into a
virtual environment for each; both are kept in a cache folder (CAPICORN_TEST_CACHE, or capicorn-tests in the user's
cache folder). The loop under test comes in through suite_plugin.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Suite:
    project: str
    version: str
    sha256: str
    """Of the source distribution. Empty: it holds no tests, --source has to name a checkout of that version."""
    needs: tuple[str, ...]
    arguments: tuple[str, ...] = ("tests",)
    """What pytest is told: folders, markers."""
    keep: tuple[str, ...] = ("tests", "pytest.ini", "pyproject.toml", "README.rst")
    """What is taken of the source distribution: not the project's own package, which is installed."""
    service: str = ""
    shim: bool = False
    """The suite imports uvloop by name: what it gets is the loop under test."""


UVLOOP = "uvloop==0.23.0"
NO_LOOP = (
    "test_benchmarks_*",
    "test_circular_*",
    "test_compression*",
    "test_cookie*",
    "test_helpers*",
    "test_http_*",
    "test_imports*",
    "test_multipart*",
    "test_route_def*",
    "test_urldispatch*",
    "test_web_urldisp*",
    "test_web_exceptions*",
    "test_websocket_parser*",
)
"""Of aiohttp's tests: parsers, tables and measurements, half of the suite, in which a loop has no part."""

SUITES = {
    "anyio": Suite(
        "anyio",
        "4.16.0",
        "59bb03251907983d1603d27c3087ddb1e93299ea2163adcdba37899a4fb12ffb",
        ("blockbuster", "hypothesis", "psutil", "pytest-mock", "trustme", "truststore"),
        ("-p", "anyio", "-p", "pytester", "-o", "anyio_mode=auto", "-m", "not network", "tests"),
        shim=True,
    ),
    "aiohttp": Suite(
        "aiohttp",
        "3.14.5",
        "5558a7f5a05af9ecf744af91e5baefc436f93c9333e656c27ec253f9a6bbe178",
        ("aiodns", "blockbuster", "brotli", "freezegun", "gunicorn", "pytest-cov", "isal; python_version < '3.14'", "proxy.py",
         "pytest-mock", "pytest-xdist", "pytest_codspeed", "python-on-whales", "trustme", "zlib_ng",
         "backports.zstd; python_version < '3.14'"),
        ("-m", "not dev_mode and not autobahn and not internal", *(f"--ignore-glob=tests/{p}" for p in NO_LOOP), "tests"),
        shim=True,
    ),
    "websockets": Suite(
        "websockets",
        "17.0.1",
        "",
        ("python-socks[asyncio]", "werkzeug", "mitmproxy"),
        ("tests/asyncio", "tests/legacy"),
        keep=("tests",),
    ),
    "redis": Suite(
        "redis",
        "8.1.0",
        "6e1a19beef9225c83efd689c7e6b7da2d5215b1f42cd13b7fc3714d0a09c7b25",
        ("packaging", "pytest-asyncio", "ujson", "numpy", "pybreaker", "xxhash", "cryptography", "aiohttp",
         "redis-entraid", "opentelemetry-api", "opentelemetry-sdk", "requests"),
        ("-m", "not onlycluster and not ssl and not redismod", "tests/test_asyncio"),
        service="redis",
        shim=True,
    ),
    "asyncpg": Suite(
        "asyncpg",
        "0.32.0",
        "45e64e56714d888330b884aad1dfb363d0bf43fb343e3d1a8968525f3bade478",
        ("distro",),
        ("tests",),
        keep=("tests",),
        service="postgresql",
        shim=True,
    ),
}  # fmt: skip


def cache() -> Path:
    """Where downloads and environments are kept."""
    base = os.environ.get("CAPICORN_TEST_CACHE")
    if base is None:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "capicorn-tests")
    path = Path(base) / "loop"
    path.mkdir(parents=True, exist_ok=True)
    return path


def plain() -> dict[str, str]:
    """The environment of programs that a sanitizer loaded into us has no business in."""
    return {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}


def run(*argv: str | Path) -> None:
    """A command that has to succeed; its output is shown when it does not."""
    done = subprocess.run(
        [str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=plain()
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(str(a) for a in argv)} failed:\n{done.stdout[-4000:]}")


def sources(suite: Suite, given: str | None) -> Path:
    """A folder with what `keep` names of the source distribution, or of the checkout that was given."""
    if given is not None:
        return Path(given).resolve()
    if not suite.sha256:
        raise SystemExit(
            f"The source distribution of {suite.project} holds no tests: check out its repository at the tag "
            f"{suite.version} and name the folder with --source"
        )
    folder = cache() / f"{suite.project}-{suite.version}"
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=cache()) as temporary:
        requirements = Path(temporary) / "requirements.txt"
        requirements.write_text(f"{suite.project}=={suite.version} --hash=sha256:{suite.sha256}\n")
        run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", suite.project,
            "-d", temporary, "-r", requirements)  # fmt: skip
        (archive,) = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        made = Path(temporary) / "made"
        made.mkdir()
        for name in suite.keep:
            if (Path(temporary) / folder.name / name).exists():
                (Path(temporary) / folder.name / name).rename(made / name)
        made.rename(folder)
    return folder


def environment(suite: Suite) -> Path:
    """An interpreter with the project and what its tests need."""
    folder = cache() / f"env-{suite.project}-{suite.version}-{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    wanted = ["pytest", "pytest-timeout", UVLOOP, f"{suite.project}=={suite.version}", *suite.needs]
    ready = folder / "ready"
    if not ready.exists() or ready.read_text() != repr(wanted):
        venv.create(folder, with_pip=True, clear=True)
        run(python, "-m", "pip", "install", "--quiet", *wanted)
        ready.write_text(repr(wanted))
    return python


# ---- what a suite wants to talk to ----


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], what: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"{what} does not listen on port {port}")


def program(name: str) -> str:
    """Where a server's program is; Debian keeps PostgreSQL's out of the PATH."""
    folders = [os.environ.get("PATH", ""), *(str(p) for p in Path("/usr/lib/postgresql").glob("*/bin"))]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise SystemExit(f"{name} is not installed: this suite talks to it")
    return found


@contextlib.contextmanager
def service(kind: str, folder: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """A server of the suite's own: what pytest is told about it, and the environment."""
    port = free_port()
    where = folder / "service"
    where.mkdir()
    user = None
    if kind == "redis":
        command = [program("redis-server"), "--port", str(port), "--save", "", "--dir", str(where),
                   "--enable-debug-command", "yes", "--enable-module-command", "yes"]  # fmt: skip
        tell: tuple[list[str], dict[str, str]] = [f"--redis-url=redis://127.0.0.1:{port}/0"], {}
    elif kind == "postgresql":
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            user = "postgres"
            pwd.getpwnam(user)
            folder.chmod(0o755)
            shutil.chown(where, user)
        made = subprocess.run(
            [program("initdb"), "-D", str(where / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8"],
            user=user, cwd=where, env=plain(), capture_output=True, text=True,
        )  # fmt: skip
        if made.returncode:
            raise SystemExit(made.stderr)
        command = [program("postgres"), "-D", str(where / "data"), "-p", str(port), "-k", str(where),
                   "-h", "127.0.0.1", "-c", "fsync=off"]  # fmt: skip
        tell = [], {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
    else:
        yield [], {}
        return
    with open(where / "log", "wb") as log:
        process = subprocess.Popen(
            command, user=user, cwd=where, env=plain(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_for(port, process, command[0])
        yield tell
    finally:
        process.terminate()
        process.wait(30)


# ---- how pytest is started ----


@dataclass(frozen=True)
class Started:
    """What run_suites.follow needs."""

    command: Callable[[list[str], int], list[str]]
    only: Callable[[list[str]], Callable[[list[str], int], list[str]]]
    """A command for these tests alone."""
    environment: dict[str, str]
    folder: Path


@contextlib.contextmanager
def prepared(
    name: str,
    package: Path,
    loop: str,
    tests: list[str],
    keyword: str,
    limit: float,
    excluded: list[tuple[str, str]],
    shim: str,
    source: str | None,
) -> Iterator[Started]:
    """`package` is the folder of the package capicorn under test, `shim` the text of what stands for uvloop."""
    suite = SUITES[name]
    python = environment(suite)
    checkout = sources(suite, source)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "path"
        path.mkdir()
        # One by one: the folder that the package is in may hold much else.
        (path / "capicorn").symlink_to(package)
        for file in ("run_suites.py", "client_suites.py", "suite_plugin.py"):
            (path / file).symlink_to(HERE / file)
        if suite.shim and loop != "uvloop":
            (path / "uvloop").mkdir()
            (path / "uvloop" / "__init__.py").write_text(shim)
        work = folder / "work"
        work.mkdir()
        for kept in suite.keep:
            if (checkout / kept).is_dir():
                shutil.copytree(checkout / kept, work / kept, symlinks=True)
            elif (checkout / kept).is_file():
                shutil.copy(checkout / kept, work / kept)
        with service(suite.service, folder) as (told, more):
            environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CAPICORN_", "UVICORN_"))}
            environ.update(
                more, PYTHONPATH=str(path), PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1", SUITE_LOOP=loop
            )
            settings = folder / "settings"

            def start(done: list[str], out: int, names: list[str] | None = None) -> list[str]:
                settings.write_text(
                    json.dumps(
                        {
                            "loop": loop,
                            "out": out,
                            "keyword": keyword,
                            "done": done,
                            "only": names,
                            "excluded": excluded,
                        }
                    )
                )
                given = [f"tests/{t.removeprefix('tests/')}" for t in tests]
                arguments = [a for a in suite.arguments if not (given and a.startswith("tests"))]
                return [str(python), "-P", "-m", "pytest", "-q", "-p", "suite_plugin", "-p", "no:cacheprovider",
                        "-o", "addopts=", "--tb=short", "--continue-on-collection-errors",
                        f"--timeout={limit}", "--timeout-method=signal", *told, *arguments, *given]  # fmt: skip

            def only(names: list[str]) -> Callable[[list[str], int], list[str]]:
                return lambda done, out: start(done, out, names)

            environ["SUITE_SETTINGS"] = str(settings)
            yield Started(start, only, environ, work)
