"""Runs a fuzz target of tests/fuzz with clang's libFuzzer.

    python tools/fuzz.py h1 60

runs tests/fuzz/fuzz_h1.c for 60 seconds from its corpus tests/fuzz/corpus/h1. What it finds on the way stays in
build/fuzz/h1.corpus; an input that crashes is written into the corpus as crash-..., where `make unit` replays it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

import build_deps
import c_programs

ROOT = c_programs.ROOT


def targets() -> list[str]:
    return sorted(path.stem.removeprefix("fuzz_") for path in (ROOT / "tests" / "fuzz").glob("fuzz_*.c"))


def clang() -> list[str] | None:
    """$CC, else clang by its usual names."""
    if os.environ.get("CC"):
        return build_deps.c_compiler()
    names = ["clang", *(f"clang-{version}" for version in range(22, 13, -1))]
    return next(([name] for name in names if shutil.which(name)), None)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a fuzz target of tests/fuzz with libFuzzer.")
    parser.add_argument("target", choices=targets(), help="; ".join(targets()))
    parser.add_argument("seconds", nargs="?", type=int, default=60)
    arguments = parser.parse_args()
    cc = clang()
    if cc is None:
        print("libFuzzer comes with clang, which was not found: apt install clang", file=sys.stderr)
        return 1
    corpus = ROOT / "tests" / "fuzz" / "corpus" / arguments.target
    found = ROOT / "build" / "fuzz" / f"{arguments.target}.corpus"
    dictionary = ROOT / "tests" / "fuzz" / f"{arguments.target}.dict"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    try:
        programs = c_programs.Programs(ROOT / "build" / "fuzz" / "objects", cc, fuzzing=True)
        program = programs.build(ROOT / "tests" / "fuzz" / f"fuzz_{arguments.target}.c")
    except build_deps.BuildError as e:
        print(e, file=sys.stderr)
        return 1
    command = [str(program), f"-max_total_time={arguments.seconds}", f"-artifact_prefix={corpus}{os.sep}"]
    command += ["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]
    command += [f"-dict={dictionary}"] if dictionary.is_file() else []
    environment = c_programs.environment(leaks=False)
    return subprocess.run([*command, str(found), str(corpus)], stdin=subprocess.DEVNULL, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
