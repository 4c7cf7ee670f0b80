"""What a run needs and makes itself, in the user's cache folder: an environment of peers, the load program, a
certificate. Nothing is installed outside of it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
Say = Callable[[str], None]


class SetupError(Exception):
    """Something is missing without which nothing can be measured."""


@dataclass(frozen=True)
class Environment:
    """`missing` says for each server or loop that could not be installed why not. `paths` are for PYTHONPATH: with and
    without Capicorn."""

    python: Path
    missing: dict[str, str]
    versions: dict[str, str]
    load: Path
    load_has_tls: bool
    work: Path
    paths: dict[bool, str]
    capicorn: str
    certificate: tuple[Path, Path] | None

    def program(self, name: str) -> str:
        return str(self.python.with_name(name))


def cache_folder() -> Path:
    """$CAPICORN_BENCH_CACHE, else capicorn-benchmarks in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("CAPICORN_BENCH_CACHE")
    folder = (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capicorn-benchmarks"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wanted_peers() -> list[tuple[str, list[str]]]:
    """The lines of peers.txt: a server's name and its requirements."""
    lines = []
    for line in (HERE / "peers.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, requirements = line.partition(":")
            lines.append((name.strip(), requirements.split()))
    return lines


def run(command: list[str], **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, **more)  # type: ignore[call-overload,no-any-return]


def peers(cache: Path, say: Say) -> tuple[Path, dict[str, str], dict[str, str]]:
    """The environment's interpreter, what could not be installed, and the versions of what was.

    The peers of another list or another CPython have an environment of their own.

    Raises SetupError when the lines called `base` could not be installed.
    """
    text = (HERE / "peers.txt").read_text() + sys.version + sysconfig.get_config_var("EXT_SUFFIX")
    tag = f"{sys.implementation.cache_tag}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    folder = cache / f"peers-{tag}"
    python = folder / "bin" / "python"
    noted = folder / "installed.json"
    if not noted.exists():
        say(f"making the environment of peers in {folder}")
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(folder)
        missing: dict[str, str] = {}
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary"]
        base = [requirement for name, what in wanted_peers() if name == "base" for requirement in what]
        groups = [("base", base), *[line for line in wanted_peers() if line[0] != "base"]]
        for name, requirements in groups:
            say(f"installing {' '.join(requirements)}")
            # The base stays as it is: what cannot live with it is missing.
            done = run([*pip, *requirements, *([] if name == "base" else base)])
            if done.returncode != 0:
                last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
                if name == "base":
                    raise SetupError(f"the peers could not be installed: {last}")
                missing[name] = f"not installed: {last}"
        freeze = run([str(python), "-m", "pip", "freeze", "--disable-pip-version-check"]).stdout.split()
        versions = dict(line.split("==") for line in freeze if "==" in line)
        noted.write_text(json.dumps({"missing": missing, "versions": versions}, indent=1))
    known = json.loads(noted.read_text())
    return python, known["missing"], known["versions"]


def load_program(cache: Path, say: Say) -> tuple[Path, bool]:
    """load.c compiled, and whether it speaks TLS. $CC names the compiler.

    Raises SetupError when there is no C compiler or it fails.
    """
    source = HERE / "load.c"
    compiler = (
        shlex.split(os.environ.get("CC", ""))
        or [found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))][:1]
    )
    if not compiler:
        raise SetupError("a C compiler is needed for the load program: install gcc or clang, or set CC")
    tag = hashlib.sha256(source.read_bytes() + " ".join(compiler).encode()).hexdigest()[:10]
    plain, with_tls = cache / f"load-{tag}", cache / f"load-tls-{tag}"
    if with_tls.exists():
        return with_tls, True
    common = [*compiler, "-O2", "-pthread", str(source)]
    if run([*common, "-DWITH_TLS", "-o", str(with_tls), "-lssl", "-lcrypto"]).returncode == 0:
        return with_tls, True
    if not plain.exists():
        say("OpenSSL's headers were not found: no TLS (Debian and Ubuntu: libssl-dev, Fedora: openssl-devel)")
        done = run([*common, "-o", str(plain)])
        if done.returncode != 0:
            raise SetupError(f"{source.name} could not be compiled:\n{done.stderr[-2000:]}")
    return plain, False


def certificate(cache: Path) -> tuple[Path, Path] | None:
    """A certificate for 127.0.0.1 and its key, or None when there is no openssl command."""
    cert, key = cache / "cert.pem", cache / "key.pem"
    if not cert.exists() or not key.exists():
        done = None
        if shutil.which("openssl"):
            done = run(
                [
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-subj",
                    "/CN=127.0.0.1",
                    "-addext",
                    "subjectAltName=IP:127.0.0.1",
                    "-days",
                    "3650",
                    "-keyout",
                    str(key),
                    "-out",
                    str(cert),
                ]
            )
        if done is None or done.returncode != 0:
            return None
    return cert, key


def links(work: Path) -> tuple[dict[bool, str], str]:
    """Folders for PYTHONPATH that hold nothing but these benchmarks, or these and the Capicorn that this interpreter
    imports, so that the environment of peers is the same for all servers. Also what kind of build that is.

    Raises SetupError when no built Capicorn is there.
    """
    paths = {}
    for with_capicorn in (False, True):
        folder = work / ("with-capicorn" if with_capicorn else "without")
        folder.mkdir()
        (folder / "benchmarks").symlink_to(HERE)
        paths[with_capicorn] = str(folder)
    spec = importlib.util.find_spec("capicorn")
    core = importlib.util.find_spec("capicorn._core") if spec is not None else None
    if spec is None or core is None or core.origin is None or spec.origin is None:
        raise SetupError("no built Capicorn was found: `make bench`, or `pip install .` and then python -m benchmarks")
    package = Path(spec.origin).parent
    (Path(paths[True]) / "capicorn").symlink_to(package)
    # The text of an assertion of csrc/asgi/conn.c: only a build with assertions holds it.
    debug = b"c->state == CAP_CONN_" in Path(core.origin).read_bytes()
    return paths, "with assertions" if debug else "release"


def compile_python(python: Path, paths: dict[bool, str]) -> None:
    """Byte code of Capicorn and the applications, as pip makes it of the peers when it installs them: else the first
    start of a Capicorn from a checkout has its compilation in it. Where it cannot be written things are as they
    are."""
    run([str(python), "-m", "compileall", "-qq", f"{paths[True]}/capicorn", f"{paths[True]}/benchmarks"])


def prepare(work: Path, say: Say) -> Environment:
    """Everything that a run needs; `work` is an empty folder that lives as long as the run."""
    if sys.platform != "linux":
        raise SetupError("the load program and the readings from /proc need Linux")
    cache = cache_folder()
    paths, build = links(work)
    load, tls = load_program(cache, say)
    python, missing, versions = peers(cache, say)
    compile_python(python, paths)
    return Environment(python, missing, versions, load, tls, work, paths, build, certificate(cache))


def machine(cores: int) -> dict[str, str]:
    """The machine in general words: enough to judge figures by, nothing that names it."""
    cpu = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    kernel = ".".join(platform.release().split(".")[:2])
    return {
        "cpu": cpu,
        "cores": str(cores),
        "system": f"{platform.system()} {kernel}",
        "python": platform.python_version(),
    }
