"""Runs the C programs of this folder and, over their corpus, those of tests/fuzz.

A unit test is a plain C program tests/unit/test_NAME.c whose main() returns 0 when all is well; it prints what is not.
A fuzz target is tests/fuzz/fuzz_NAME.c; compiled with -DREPLAY it has a main() that runs each file named on its command
line. Its corpus lies in tests/fuzz/corpus/NAME/.

CAPICORN_UNIT_BUILD: a folder that keeps the objects, so that the next run compiles only what changed; a temporary one
otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import c_programs  # noqa: E402

PROGRAMS = sorted((ROOT / "tests" / "unit").glob("test_*.c"))
TARGETS = sorted((ROOT / "tests" / "fuzz").glob("fuzz_*.c"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> c_programs.Programs:
    kept = os.environ.get("CAPICORN_UNIT_BUILD")
    return c_programs.Programs(Path(kept).resolve() if kept else tmp_path_factory.mktemp("c"))


def build(programs: c_programs.Programs, source: Path, *defines: str) -> Path:
    """The program; what the compiler said stands in the test's captured output when there is none."""
    try:
        return programs.build(source, defines)
    except c_programs.build_deps.BuildError as e:
        pytest.fail(str(e), pytrace=False)


def fails(programs: c_programs.Programs, program: Path, *arguments: str) -> str | None:
    """What a program said that did not return 0."""
    done = programs.run(program, *arguments)
    if done.returncode == 0:
        return None
    said = done.stdout if len(done.stdout) < 12_000 else f"{done.stdout[:9000]}\n...\n{done.stdout[-3000:]}"
    return f"{program.name} ended with {done.returncode}:\n{said}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", PROGRAMS, ids=lambda path: path.stem.removeprefix("test_"))
def test_program(source: Path, programs: c_programs.Programs) -> None:
    failure = fails(programs, build(programs, source))
    if failure:
        pytest.fail(failure, pytrace=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", TARGETS, ids=lambda path: path.stem.removeprefix("fuzz_"))
def test_fuzz_corpus(source: Path, programs: c_programs.Programs) -> None:
    folder = ROOT / "tests" / "fuzz" / "corpus" / source.stem.removeprefix("fuzz_")
    files = sorted(str(path) for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    assert files, f"tests/fuzz/corpus/{folder.name} is empty: put at least one input there"
    program = build(programs, source, "REPLAY")
    if fails(programs, program, *files) is None:
        return
    for name in files:
        failure = fails(programs, program, name)
        if failure:
            pytest.fail(f"{os.path.relpath(name, ROOT)}: {failure}", pytrace=False)
    pytest.fail(f"each input alone is fine, all together are not: {fails(programs, program, *files)}", pytrace=False)
