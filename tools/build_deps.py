"""Gets and compiles the C libraries that Capicorn links statically: libuv, llhttp and zlib-ng.

No third-party source is kept in this repository. Source distributions on PyPI carry the libraries; the table
`DEPENDENCIES` pins each of them by version and SHA-256. They are fetched with pip, so that the user's index, proxy and
certificate settings hold, unpacked and compiled into a cache folder, and found there by the next build.

Environment:

- CAPICORN_DEPS_DIR: a folder that holds the source distributions (`uvloop-0.23.0.tar.gz`) or unpacked ones
  (`uvloop-0.23.0/`); nothing is fetched then.
- CAPICORN_SYSTEM_LIBS=1: the system's libraries, through pkg-config; nothing is fetched or compiled.
- XDG_CACHE_HOME: where the cache `capicorn-build` lies; `~/.cache` otherwise.
- CC, CFLAGS, CPPFLAGS, AR: as for any C build.

As a program it prints what a compiler needs, for C programs without Python::

    python tools/build_deps.py [--mode release|debug|asan|faults] llhttp
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

MODES = ("release", "debug", "asan", "faults")


class BuildError(Exception):
    """The build cannot go on. Its text is one sentence for the person who started it."""


@dataclass(frozen=True)
class Dependency:
    """A C library inside a source distribution on PyPI.

    Paths and globs are relative to `root`, which is relative to the source distribution's top folder.
    """

    name: str
    version: str
    sdist: str
    sdist_version: str
    sha256: str
    root: str
    include: str
    keep: tuple[str, ...]
    licenses: tuple[str, ...]
    sources: tuple[str, ...]
    sources_for: dict[str, tuple[str, ...]] = field(default_factory=dict)
    private_includes: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()
    defines_for: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cflags: tuple[str, ...] = ()
    user_defines: tuple[str, ...] = ()
    """Defines for those who include its headers."""
    libraries_for: dict[str, tuple[str, ...]] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)
    """Headers that its own build makes: name to the file that they are made of by dropping @ZLIB_SYMBOL_PREFIX@."""
    machine_sources: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    """What else is compiled on a machine (as os.uname names it): file to the flags that it alone gets."""
    file_flags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """File to the flags that it alone gets, on every machine."""
    machine_defines: dict[str, tuple[str, ...]] = field(default_factory=dict)
    feature: str = ""
    """A define that tells our own code that the library is there."""
    isolated: bool = False
    """Its setup.py needs its own build requirements even to name its version (slower to fetch)."""

    @property
    def archive(self) -> str:
        return f"{self.sdist}-{self.sdist_version}.tar.gz"

    @property
    def top(self) -> str:
        return f"{self.sdist}-{self.sdist_version}"


# libuv's file lists are those of its CMakeLists.txt.
DEPENDENCIES = {
    "libuv": Dependency(
        name="libuv",
        version="1.52.1",
        sdist="uvloop",
        sdist_version="0.23.0",
        sha256="28d160f51ab4da3b187063652e643dea6831072add4adc1e6d62afbe73b6be27",
        root="vendor/libuv",
        include="include",
        keep=("include/", "src/", "LICENSE"),
        licenses=("LICENSE", "LICENSE-extra"),
        private_includes=("src",),
        sources=tuple(
            "src/" + name
            for name in (
                "fs-poll.c idna.c inet.c random.c strscpy.c strtok.c thread-common.c threadpool.c timer.c uv-common.c "
                "uv-data-getter-setters.c version.c unix/async.c unix/core.c unix/dl.c unix/fs.c unix/getaddrinfo.c "
                "unix/getnameinfo.c unix/loop-watcher.c unix/loop.c unix/pipe.c unix/poll.c unix/process.c "
                "unix/random-devurandom.c unix/signal.c unix/stream.c unix/tcp.c unix/thread.c unix/tty.c unix/udp.c "
                "unix/proctitle.c"
            ).split()
        ),
        sources_for={
            "linux": (
                "src/unix/linux.c",
                "src/unix/procfs-exepath.c",
                "src/unix/random-getrandom.c",
                "src/unix/random-sysctl-linux.c",
            ),
            "darwin": (
                "src/unix/bsd-ifaddrs.c",
                "src/unix/kqueue.c",
                "src/unix/random-getentropy.c",
                "src/unix/darwin-proctitle.c",
                "src/unix/darwin.c",
                "src/unix/fsevents.c",
            ),
        },
        defines=("_FILE_OFFSET_BITS=64", "_LARGEFILE_SOURCE"),
        defines_for={
            "linux": ("_GNU_SOURCE", "_POSIX_C_SOURCE=200112"),
            "darwin": ("_DARWIN_UNLIMITED_SELECT=1", "_DARWIN_USE_64_BIT_INODE=1"),
        },
        cflags=("-fno-strict-aliasing",),
        # A peer that is gone must not be a SIGPIPE: csrc/net/quiet_write.h.
        file_flags={"src/unix/stream.c": ("-Dwrite=cap_quiet_write", "-Dwritev=cap_quiet_writev")},
        # uv.h makes every function visible unless told otherwise; uvloop brings another libuv into the same process.
        user_defines=("UV_EXTERN=",),
        libraries_for={"linux": ("pthread", "dl", "rt"), "darwin": ("pthread",)},
    ),
    "llhttp": Dependency(
        name="llhttp",
        version="9.4.3",
        sdist="httptools",
        sdist_version="0.9.0",
        sha256="d484ebb7e3a3f3597b0f645fbd1b85633674ca808c1f5ba11c2caf7c66f5c8b6",
        root="vendor/llhttp",
        include="include",
        keep=("include/", "src/", "LICENSE"),
        licenses=("LICENSE",),
        sources=("src/api.c", "src/http.c", "src/llhttp.c"),
    ),
    # What its configure would find out with gcc or clang on a POSIX system; no gzip files, no checksums that we use.
    "zlib-ng": Dependency(
        name="zlib-ng",
        version="2.3.3",
        sdist="zlib_ng",
        sdist_version="1.1.0",
        sha256="08a3a8468d4f130e3dc80d28ec42fcc7a878a57dfed616233e791066327d78a3",
        root="src/zlib_ng/zlib-ng",
        include=".",
        keep=("",),
        licenses=("LICENSE.md",),
        templates={
            "zlib-ng.h": "zlib-ng.h.in",
            "zconf-ng.h": "zconf-ng.h.in",
            "zlib_name_mangling-ng.h": "zlib_name_mangling.h.empty",
        },
        sources=(
            *(
                f"{name}.c"
                for name in (
                    "adler32 cpu_features crc32 crc32_braid_comb deflate deflate_fast deflate_huff deflate_medium "
                    "deflate_quick deflate_rle deflate_slow deflate_stored functable inflate inftrees insert_string "
                    "insert_string_roll trees zutil"
                ).split()
            ),
            *(
                f"arch/generic/{name}_c.c"
                for name in "adler32 adler32_fold chunkset compare256 crc32_braid crc32_fold slide_hash".split()
            ),
        ),
        machine_sources={
            "x86_64": {
                "arch/x86/x86_features.c": ("-mxsave",),
                **{f"arch/x86/{name}_sse2.c": ("-msse2",) for name in ("chunkset", "compare256", "slide_hash")},
                **{f"arch/x86/{name}_ssse3.c": ("-mssse3",) for name in ("adler32", "chunkset")},
                "arch/x86/adler32_sse42.c": ("-msse4.2",),
                **{
                    f"arch/x86/{name}_avx2.c": ("-mavx2", "-mbmi2")
                    for name in ("adler32", "chunkset", "compare256", "slide_hash")
                },
            },
        },
        defines=(
            "WITH_ALL_FALLBACKS",
            "WITHOUT_CHORBA",
            "WITHOUT_CHORBA_SSE",
            "HAVE_ATTRIBUTE_ALIGNED",
            "HAVE_BUILTIN_ASSUME_ALIGNED",
            "HAVE_BUILTIN_CTZ",
            "HAVE_BUILTIN_CTZLL",
            "HAVE_VISIBILITY_HIDDEN",
            "HAVE_UNISTD_H",
        ),
        machine_defines={
            "x86_64": (
                "WITH_OPTIM",
                "X86_FEATURES",
                "HAVE_CPUID_GNU",
                "X86_HAVE_XSAVE_INTRIN",
                "X86_SSE2",
                "X86_SSSE3",
                "X86_SSE42",
                "X86_AVX2",
            ),
        },
        feature="CAP_HAVE_ZLIB_NG",
        isolated=True,
    ),
}
# What the extension links. A unit test of csrc/http names its own.
EXTENSION = ("libuv", "llhttp", "zlib-ng")


@dataclass
class Library:
    """What a compiler and a linker need to use a dependency."""

    name: str
    cflags: list[str]
    link: list[str]
    """Archives and -l flags, in link order."""
    licenses: dict[str, str] = field(default_factory=dict)
    """File name to text; empty for a system library."""


def platform_name() -> str:
    for name in ("linux", "darwin"):
        if sys.platform.startswith(name):
            return name
    raise BuildError(
        f"Capicorn cannot be built on {sys.platform}: it runs on Linux and macOS; on Windows, use it inside WSL."
    )


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = Path(base) / "capicorn-build"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError
    except OSError:
        # A home that cannot be written to (build users have none): cache for this machine's boot at most.
        path = Path(tempfile.gettempdir()) / f"capicorn-build-{os.getuid()}"
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid != os.getuid():
            raise BuildError(f"{path} belongs to somebody else; set XDG_CACHE_HOME to a folder of yours.") from None
    return path


def mode_from_environment() -> str:
    mode = os.environ.get("CAPICORN_BUILD") or "release"
    if mode not in MODES:
        raise BuildError(f"CAPICORN_BUILD={mode!r} is not known; choose one of {', '.join(MODES)}.")
    return mode


def c_compiler() -> list[str]:
    """The C compiler and its fixed arguments: $CC, else the one that built CPython, else cc, gcc or clang."""
    given = os.environ.get("CC")
    candidates = [given] if given else [sysconfig.get_config_var("CC") or "cc", "cc", "gcc", "clang"]
    for candidate in candidates:
        command = shlex.split(candidate)
        if command and shutil.which(command[0]):
            return command
    raise BuildError(
        f"Capicorn is compiled here and needs a C compiler, but {' or '.join(dict.fromkeys(candidates))} was not "
        "found: install one (Debian and Ubuntu: apt install gcc libc6-dev; Fedora: dnf install gcc; Alpine: apk add "
        "gcc musl-dev; macOS: xcode-select --install) or set CC."
    )


def archiver() -> list[str]:
    """What makes static libraries: $AR, else the one that built CPython."""
    return shlex.split(os.environ.get("AR") or sysconfig.get_config_var("AR") or "ar")


def mode_flags(mode: str) -> list[str]:
    """What distinguishes a mode, for our own code and for the libraries."""
    if mode == "release":
        return ["-g"]
    flags = ["-O1", "-g", "-fno-omit-frame-pointer"]
    if mode == "asan":
        flags += ["-fsanitize=address"]
    return flags


def run_all(commands: list[list[str]], what: str) -> None:
    """Runs compilers side by side; prints what they say. BuildError after the first that fails."""

    def one(command: list[str]) -> tuple[list[str], int, str]:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        return command, done.returncode, done.stdout + done.stderr

    failed = False
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        for command, code, output in pool.map(one, commands):
            if output.strip():
                print(output.rstrip(), file=sys.stderr)
            if code != 0:
                failed = True
                print(f"failed ({code}): {shlex.join(command)}", file=sys.stderr)
    if failed:
        raise BuildError(
            f"{what} did not compile (the compiler's words stand above): a complete C toolchain with the C library's "
            "headers is needed (Debian and Ubuntu: apt install gcc libc6-dev)."
        )


def up_to_date(target: Path, command: list[str]) -> bool:
    """Whether an object is newer than all that it was made of, by this very command."""
    try:
        made = target.stat().st_mtime
        if target.with_suffix(".cmd").read_text() != shlex.join(command):
            return False
        rule = target.with_suffix(".d").read_text().replace("\\\n", " ")
        return all(os.stat(path).st_mtime < made for path in shlex.split(rule.split(":", 1)[1]))
    except (OSError, IndexError, ValueError):
        return False


def compile_objects(
    compiler: list[str], flags: list[str], root: Path, files: list[Path], folder: Path, what: str, force: bool = False
) -> list[str]:
    """Compiles `files`, which lie below `root`, into `folder`; only what changed, unless `force`. Returns the objects.

    Beside each object lie a .cmd with the command that made it and a .d with what it was made of.
    """
    objects: list[str] = []
    commands: list[list[str]] = []
    for source in files:
        target = folder / (source.relative_to(root).as_posix().replace("/", "_") + ".o")
        objects.append(str(target))
        command = [*compiler, *flags, "-MMD", "-MF", str(target.with_suffix(".d"))]
        command += ["-c", str(source), "-o", str(target)]
        if force or not up_to_date(target, command):
            # Before the compiler runs: a failed build leaves no object that fits the new command.
            target.unlink(missing_ok=True)
            target.with_suffix(".cmd").write_text(shlex.join(command))
            commands.append(command)
    if commands:
        print(f"compiling {what}: {len(commands)} of {len(objects)} files", flush=True)
        run_all(commands, what)
    return objects


def _sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _check(dependency: Dependency, archive: Path) -> None:
    found = _sha256(archive)
    if found != dependency.sha256:
        raise BuildError(
            f"{archive} is not the {dependency.archive} that Capicorn was tested with (its SHA-256 is {found}, "
            f"expected {dependency.sha256}): remove the file, or get that release from PyPI or a trusted mirror."
        )


def _pip_download(dependency: Dependency, folder: Path) -> Path:
    """Lets pip fetch the source distribution into `folder`.

    pip prepares metadata of what it downloads. With build isolation that means installing Cython and more (minutes);
    without, it runs setup.py's egg_info with the setuptools that is here (half a second). `--hash` makes pip compare
    the checksum before it runs anything.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{dependency.sdist}=={dependency.sdist_version} --hash=sha256:{dependency.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--no-input", "--no-binary", dependency.sdist, "--dest", str(folder), "-r", str(requirements)]
    # A user's constraints concern what is installed, not what is unpacked here.
    environment = {k: v for k, v in os.environ.items() if k not in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT")}
    attempts = [command] if dependency.isolated else [[*command, "--no-build-isolation"], command]
    output = ""
    for attempt in attempts:
        done = subprocess.run(
            attempt, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environment
        )
        output = done.stdout + done.stderr
        if (folder / dependency.archive).is_file():
            return folder / dependency.archive
        if "DO NOT MATCH THE HASHES" in output:
            print(output.rstrip(), file=sys.stderr)
            raise BuildError(
                f"The index served a {dependency.archive} whose SHA-256 is not {dependency.sha256}: use an index that "
                "mirrors PyPI faithfully, or put the file into a folder and set CAPICORN_DEPS_DIR to it."
            )
        if "No module named pip" in output:
            break
    print(output.rstrip(), file=sys.stderr)
    raise BuildError(
        f"{dependency.name} is needed to build Capicorn and pip could not fetch it ({dependency.sdist} "
        f"{dependency.sdist_version} from the configured package index; pip's words stand above): check the network "
        f"and pip's settings, or put {dependency.archive} into a folder and set CAPICORN_DEPS_DIR to it, or install "
        "the system's libuv, llhttp and zlib-ng with headers and set CAPICORN_SYSTEM_LIBS=1."
    )


def _unpack(dependency: Dependency, archive: Path, into: Path) -> None:
    prefix = f"{dependency.top}/{dependency.root}/"
    keep = tuple(prefix + name for name in dependency.keep)
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes()), mode="r:gz") as tar:
        for member in tar:
            if not member.isfile() or not member.name.startswith(keep) or ".." in member.name.split("/"):
                continue
            source = tar.extractfile(member)
            assert source is not None
            target = into / member.name[len(prefix) :]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read())


def _publish(made: Path, target: Path) -> None:
    """Moves a finished folder or file into the cache at once; another build may have been first."""
    try:
        os.replace(made, target)
    except OSError:
        if not target.exists():
            raise


def source_dir(dependency: Dependency) -> Path:
    """The dependency's sources, unpacked: from CAPICORN_DEPS_DIR, the cache, or fetched."""
    given = os.environ.get("CAPICORN_DEPS_DIR")
    target = cache_dir() / "src" / f"{dependency.name}-{dependency.version}-{dependency.sha256[:16]}"
    archive: Path | None = None
    if given:
        unpacked = Path(given).resolve() / dependency.top / dependency.root
        if unpacked.is_dir():
            return unpacked
        archive = Path(given).resolve() / dependency.archive
        if not archive.is_file():
            raise BuildError(
                f"CAPICORN_DEPS_DIR={given} holds neither {dependency.archive} nor {dependency.top}/: put the source "
                f"distribution of {dependency.sdist} {dependency.sdist_version} there."
            )
        _check(dependency, archive)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary)
        if archive is None:
            print(f"fetching {dependency.name} {dependency.version} ({dependency.archive})", flush=True)
            archive = _pip_download(dependency, folder)
            _check(dependency, archive)
        made = folder / "made"
        _unpack(dependency, archive, made)
        missing = [s for s in sources(dependency) if not (made / s).is_file()]
        if missing:
            raise BuildError(f"{archive} lacks {missing[0]}: get {dependency.archive} from PyPI or a trusted mirror.")
        _publish(made, target)
    return target


def machine() -> str:
    return os.uname().machine


def sources(dependency: Dependency) -> list[str]:
    return [
        *dependency.sources,
        *dependency.sources_for.get(platform_name(), ()),
        *dependency.machine_sources.get(machine(), ()),
    ]


def library(dependency: Dependency, mode: str = "release", cc: list[str] | None = None) -> Library:
    """The dependency as a static library, compiled unless the cache has it. It does not depend on Python."""
    cc = cc or c_compiler()
    root = source_dir(dependency)
    platform = platform_name()
    flags = ["-O2", "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections", "-w"]
    flags += mode_flags(mode)
    flags += [] if mode == "release" else ["-UNDEBUG"]
    flags += dependency.cflags
    for variable in ("ARCHFLAGS", "CPPFLAGS", "CFLAGS"):
        flags += shlex.split(os.environ.get(variable, ""))
    defines = (*dependency.defines, *dependency.defines_for.get(platform, ()), *dependency.user_defines)
    defines += dependency.machine_defines.get(machine(), ())
    own_flags = {**dependency.file_flags, **dependency.machine_sources.get(machine(), {})}
    flags += [f"-D{define}" for define in defines]
    flags += [f"-I{root / path}" for path in (dependency.include, *dependency.private_includes)]
    version = subprocess.run([*cc, "--version"], capture_output=True, text=True, errors="replace").stdout
    files = sources(dependency)
    key = hashlib.sha256(repr((cc, version, machine(), flags, files, own_flags)).encode())
    for name in files if os.environ.get("CAPICORN_DEPS_DIR") else ():
        key.update((root / name).read_bytes())  # Sources that are not pinned by a checksum.
    target = cache_dir() / "lib" / f"{dependency.name}-{dependency.version}-{mode}-{key.hexdigest()[:16]}"
    archive = target / f"lib{dependency.name}.a"
    if not archive.is_file():
        print(f"compiling {dependency.name} {dependency.version} ({mode})", flush=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            objects = [str(Path(temporary) / f"{name.replace('/', '_')}.o") for name in files]
            for name, template in dependency.templates.items():
                text = (root / template).read_text("utf-8").replace("@ZLIB_SYMBOL_PREFIX@", "")
                (made / "include").mkdir(exist_ok=True)
                (made / "include" / name).write_text(text, encoding="utf-8")
            compiler = [*cc, *flags, f"-I{made / 'include'}"]
            run_all(
                [
                    [*compiler, *own_flags.get(s, ()), "-c", str(root / s), "-o", o]
                    for s, o in zip(files, objects, strict=True)
                ],
                dependency.name,
            )
            run_all([[*archiver(), "rcs", str(made / archive.name), *objects]], dependency.name)
            _publish(made, target)
    include = target / "include" if dependency.templates else root / dependency.include
    feature = [dependency.feature] if dependency.feature else []
    return Library(
        name=dependency.name,
        cflags=["-isystem", str(include), *(f"-D{d}" for d in (*dependency.user_defines, *feature))],
        link=[str(archive), *(f"-l{name}" for name in dependency.libraries_for.get(platform, ()))],
        licenses={
            name: (root / name).read_text("utf-8", "replace") for name in dependency.licenses if (root / name).is_file()
        },
    )


def system_library(dependency: Dependency) -> Library:
    """The system's copy of the dependency, as pkg-config describes it."""
    tool = os.environ.get("PKG_CONFIG") or "pkg-config"
    if shutil.which(tool) is None:
        raise BuildError(f"CAPICORN_SYSTEM_LIBS is set but {tool} was not found: install pkg-config, or unset it.")
    # llhttp's own installer names its file libllhttp.pc; some distributions call it llhttp.pc.
    for name in dict.fromkeys((dependency.name, "lib" + dependency.name.removeprefix("lib"))):
        done = subprocess.run([tool, "--cflags", "--libs", name], capture_output=True, text=True)
        if done.returncode == 0:
            words = shlex.split(done.stdout)
            link = [w for w in words if w.startswith(("-l", "-L", "-Wl,"))]
            feature = [f"-D{dependency.feature}"] if dependency.feature else []
            return Library(dependency.name, [w for w in words if w not in link] + feature, link)
    raise BuildError(
        f"CAPICORN_SYSTEM_LIBS is set but pkg-config knows no {dependency.name}: install its development files (Debian "
        "and Ubuntu: apt install libuv1-dev libllhttp-dev), or unset the variable to build the pinned release."
    )


def libraries(names: tuple[str, ...] = EXTENSION, mode: str = "release", cc: list[str] | None = None) -> list[Library]:
    """The named dependencies, ready to compile and link with. BuildError when one is not to be had."""
    if os.environ.get("CAPICORN_SYSTEM_LIBS", "") not in ("", "0"):
        return [system_library(DEPENDENCIES[name]) for name in names]
    return [library(DEPENDENCIES[name], mode, cc) for name in names]


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch and compile C libraries; print compiler and linker arguments.")
    parser.add_argument("--mode", choices=MODES, default="release")
    parser.add_argument("names", nargs="*", default=list(EXTENSION), metavar="LIBRARY", help=", ".join(DEPENDENCIES))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in DEPENDENCIES]
    if unknown:
        parser.error(f"unknown library {unknown[0]}; choose from {', '.join(DEPENDENCIES)}")
    try:
        with_output = sys.stdout
        sys.stdout = sys.stderr
        try:
            found = libraries(tuple(arguments.names), arguments.mode)
        finally:
            sys.stdout = with_output
    except BuildError as e:
        print(e, file=sys.stderr)
        return 1
    print(shlex.join([word for lib in found for word in lib.cflags]))
    print(shlex.join([word for lib in found for word in lib.link]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
