"""Compiles plain C programs that need no Python: tests/unit/test_*.c and tests/fuzz/fuzz_*.c.

Each is linked with all of csrc/base and csrc/http, what csrc/net has without libuv, claims.c and outbox.c of csrc/pool,
and the libraries that these need, with assertions on, and with AddressSanitizer and UndefinedBehaviorSanitizer when the
compiler can do that.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build_deps

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("base", "http")
FILES = ("net/proxy_protocol.c", "pool/claims.c", "pool/outbox.c")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
FUZZ = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined")
WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers")
LIBRARIES = tuple(name for name in build_deps.DEPENDENCIES if name != "libuv")

_PROBE = "#include <stdlib.h>\nint main(void) { void *volatile p = malloc(8); free(p); return 0; }\n"
_ENTRY = "#include <stddef.h>\nint LLVMFuzzerTestOneInput(const char *d, size_t n) { return d && n > 1000; }\n"


def environment(leaks: bool) -> dict[str, str]:
    """The environment in which a sanitized program runs. Nothing that another stage preloads gets in."""
    env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS")}
    env["ASAN_OPTIONS"] = f"detect_leaks={int(leaks)}:detect_stack_use_after_return=1:abort_on_error=0"
    env["UBSAN_OPTIONS"] = "print_stacktrace=1"
    return env


def _works(cc: list[str], flags: tuple[str, ...], source: str, arguments: list[str], leaks: bool) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "probe.c").write_text(source)
        program = str(Path(folder) / "probe")
        compiling = [*cc, *flags, str(Path(folder) / "probe.c"), "-o", program]
        if subprocess.run(compiling, stdin=subprocess.DEVNULL, capture_output=True).returncode != 0:
            return False
        running = [program, *arguments]
        done = subprocess.run(running, stdin=subprocess.DEVNULL, capture_output=True, env=environment(leaks))
        return done.returncode == 0


class Programs:
    """Builds programs in `folder`; what they share is compiled once, and again only when it changed.

    With `fuzzing` they are libFuzzer's (clang only), otherwise programs with a main() of their own.
    BuildError when there is no compiler or something does not compile.
    """

    def __init__(self, folder: Path, cc: list[str] | None = None, fuzzing: bool = False) -> None:
        self.cc = cc or build_deps.c_compiler()
        self.fuzzing = fuzzing
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if fuzzing and not _works(self.cc, FUZZ, _ENTRY, ["-runs=1"], leaks=False):
            raise build_deps.BuildError(
                f"{shlex.join(self.cc)} has no libFuzzer: install clang (Debian and Ubuntu: apt install clang), or set "
                "CC to one that takes -fsanitize=fuzzer."
            )

    @cached_property
    def sanitized(self) -> bool:
        """Does the compiler have the sanitizers, and do their programs run here?"""
        return self.fuzzing or _works(self.cc, SANITIZE, _PROBE, [], leaks=False)

    @cached_property
    def leaks(self) -> bool:
        """Can leaks be looked for? Not where ptrace is forbidden, as in some containers."""
        return self.sanitized and _works(self.cc, SANITIZE, _PROBE, [], leaks=True)

    @property
    def flags(self) -> list[str]:
        flags = ["-std=gnu11", "-O1", "-g", "-fno-omit-frame-pointer", "-D_GNU_SOURCE=1", "-UNDEBUG", *WARNINGS]
        flags += ["-U_FORTIFY_SOURCE", "-I", str(ROOT / "csrc")]
        if self.fuzzing:
            flags += ["-fsanitize=fuzzer-no-link,address,undefined", "-fno-sanitize-recover=undefined"]
        elif self.sanitized:
            flags += SANITIZE
        for library in self.libraries:
            flags += library.cflags
        return flags

    @cached_property
    def libraries(self) -> list[build_deps.Library]:
        # gcc's and clang's AddressSanitizer are different libraries: the key of the cache knows the compiler.
        return build_deps.libraries(LIBRARIES, "asan" if self.sanitized else "debug", self.cc)

    def compile(self, sources: list[Path], defines: tuple[str, ...] = ()) -> list[str]:
        """The objects of `sources`."""
        flags = [*self.flags, *(f"-D{define}" for define in defines)]
        return build_deps.compile_objects(self.cc, flags, ROOT, sources, self.folder, "the C programs")

    @cached_property
    def shared(self) -> str:
        """csrc/base and csrc/http as an archive: a program gets from it what it uses, and nothing else."""
        shared = [path for name in FOLDERS for path in sorted((ROOT / "csrc" / name).glob("*.c"))]
        objects = self.compile([*shared, *(ROOT / "csrc" / name for name in FILES)])
        archive = self.folder / "libshared.a"
        archive.unlink(missing_ok=True)  # ar would keep members whose source is gone.
        build_deps.run_all([[*build_deps.archiver(), "rcs", str(archive), *objects]], archive.name)
        return str(archive)

    def build(self, source: Path, defines: tuple[str, ...] = ()) -> Path:
        """The program made of `source`."""
        objects = self.compile([source], defines)
        program = self.folder / source.stem
        link = [word for library in self.libraries for word in library.link]
        sanitize = FUZZ if self.fuzzing else SANITIZE if self.sanitized else ()
        command = [*self.cc, *objects, self.shared, "-o", str(program), *link, "-lpthread", "-lm", *sanitize]
        build_deps.run_all([command], f"{source.name} (linking)")
        return program

    def run(self, program: Path, *arguments: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Runs it; subprocess.TimeoutExpired after `timeout` seconds."""
        return subprocess.run(
            [str(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(self.leaks),
            timeout=timeout,
        )
