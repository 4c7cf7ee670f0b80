"""What `make lint` checks that no other tool knows; prints `file:line: what`, and ends with 1 when there is anything.

- An include that the table of layers (LAYERS below; ARCHITECTURE.md has it too) does not allow.
- PY_VERSION_HEX and its like outside csrc/py: differences between CPython versions live in one place.
- Tabs, trailing blanks and lines over 120 columns in C (140 in tests).
- An exported symbol other than PyInit__core of a built extension: uvloop brings another libuv into the same process,
  and the dynamic linker would mix the two. Also a symbol of ours that is missing: the linker lets it pass.

A file of more than 1,000 lines is only mentioned. Then ruff and mypy run, where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_ALL = {"base", "http", "net", "pool", "py", "loop", "libuv", "llhttp", "zlib-ng", "Python"}
LAYERS = {
    "base": set[str](),
    "http": {"base", "llhttp", "zlib-ng"},
    "net": {"base", "libuv"},
    "pool": {"base"},
    "py": {"base", "Python"},
    "loop": {"base", "net", "py", "libuv", "Python"},
    "asgi": _ALL,
    "module": _ALL | {"asgi"},
}
"""What a folder of csrc may include, besides itself and the C library."""

LIBRARIES = {
    "libuv": re.compile(r"uv\.h|uv/"),
    "llhttp": re.compile(r"llhttp\.h"),
    "zlib-ng": re.compile(r"zlib-ng\.h|zconf-ng\.h"),
    "Python": re.compile(
        r"Python\.h|(pymacro|patchlevel|structmember|frameobject|datetime|pythread|marshal|opcode)\.h|(internal|cpython)/"
    ),
    # Never ours: they would bring what is not pinned.
    "zlib": re.compile(r"zlib\.h"),
    "OpenSSL": re.compile(r"openssl/"),
}
INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
VERSION = re.compile(r"\b(PY_VERSION_HEX|PY_(?:MAJOR|MINOR|MICRO)_VERSION|Py_Version)\b")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
OURS = ("cap_", "uv_", "llhttp_", "zng_")
"""How the names of functions begin that are linked statically."""
COLUMNS = 120
COLUMNS_OF_TABLES = 140
"""In tests, where a line is often a whole case."""
LINES = 1000


def c_files() -> list[Path]:
    """Every C file of ours, programs of tests and benchmarks included."""
    found = [path for top in ("csrc", "tests", "benchmarks") for path in (ROOT / top).rglob("*.[ch]")]
    return sorted(path for path in found if path.is_file())


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def check_include(path: Path, folder: str, quoted: str | None, angled: str | None) -> str | None:
    """What is wrong with an include of a file in csrc/`folder`."""
    allowed = LAYERS.get(folder)
    if allowed is None:
        return f"csrc/{folder} is not in the table of layers (tools/lint.py)"
    if quoted is not None:
        parts = quoted.split("/")
        if len(parts) != 2 or parts[0] not in LAYERS:
            return f'"{quoted}": write it as "folder/file.h", seen from csrc'
        if not (ROOT / "csrc" / quoted).is_file():
            return f'"{quoted}" is no file of csrc'
        if parts[0] != folder and parts[0] not in allowed:
            return f"csrc/{folder} may not include csrc/{parts[0]} ({quoted})"
        return None
    for library, pattern in LIBRARIES.items():
        if angled is not None and pattern.match(angled) and library not in allowed:
            return f"csrc/{folder} may not include {library} (<{angled}>)"
    return None


def check_c(path: Path) -> Iterator[str]:
    """What is wrong with a C file."""
    text = path.read_text("utf-8", "replace")
    where = path.relative_to(ROOT).parts
    folder = where[1] if where[0] == "csrc" and len(where) > 2 else None
    if where[0] == "csrc" and folder is None:
        yield f"{name(path)}:1: a file of csrc belongs into one of its folders"
    lines = text.split("\n")
    columns = COLUMNS_OF_TABLES if where[0] == "tests" else COLUMNS
    for number, line in enumerate(lines, 1):
        at = f"{name(path)}:{number}:"
        if "\t" in line:
            yield f"{at} tab"
        if line != line.rstrip():
            yield f"{at} blank at the end of the line"
        if len(line) > columns:
            yield f"{at} {len(line)} columns, more than {columns}"
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield f"{name(path)}:{len(lines)}: one newline ends a file"
    # Comments become blanks, so that line numbers hold.
    code = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text).split("\n")
    for number, line in enumerate(code, 1):
        at = f"{name(path)}:{number}:"
        if folder is not None and (m := INCLUDE.match(line)):
            wrong = check_include(path, folder, m[1], m[2])
            if wrong:
                yield f"{at} {wrong}"
        if folder not in (None, "py") and (v := VERSION.search(line)):
            yield f"{at} {v[0]} belongs into csrc/py"


def extensions() -> list[Path]:
    """The built extensions in this tree: in place and below build/."""
    found = [*(ROOT / "python").rglob("_core*.so"), *(ROOT / "build").glob("*/capicorn/_core*.so")]
    return sorted(path for path in found if not path.parts[-3].startswith("lib."))  # setuptools' copy of the former


def check_exports(path: Path) -> Iterator[str]:
    """Symbols that the dynamic linker sees and should not."""
    if shutil.which("nm") is None:
        yield f"{name(path)}: nm (binutils) is needed to see what it exports"
        return
    what = ["-g"] if sys.platform == "darwin" else ["-D"]
    done = subprocess.run(["nm", *what, str(path)], capture_output=True, text=True)
    if done.returncode != 0:
        yield f"{name(path)}: nm: {done.stderr.strip()}"
        return
    exported = set()
    for line in done.stdout.splitlines():
        *_, kind, symbol = line.split()
        symbol = symbol.removeprefix("_") if sys.platform == "darwin" else symbol
        # Weak undefined symbols (w) are those that the compiler's runtime may lack.
        if kind not in "UwvA":
            exported.add(symbol)
        elif kind == "U" and symbol.startswith(OURS):
            yield f"{name(path)}: {symbol} is used and not there"
    if "PyInit__core" not in exported:
        yield f"{name(path)}: PyInit__core is not exported"
    for symbol in sorted(exported - {"PyInit__core"}):
        yield f"{name(path)}: exports {symbol}"


def run_tool(module: str, *arguments: str) -> bool:
    """Runs a Python tool of this interpreter's environment; True when it found nothing or is not installed."""
    if importlib.util.find_spec(module) is None:
        print(f"{module} is not installed here and was left out")
        return True
    print(f"{module} {' '.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Check the sources by the rules of this project, then with ruff and mypy."
    )
    parser.add_argument("--own", action="store_true", help="our own rules only")
    parser.add_argument("extension", nargs="*", type=Path, help="built extensions; default: those in this tree")
    arguments = parser.parse_args()
    findings = [finding for path in c_files() for finding in check_c(path)]
    built = [path.resolve() for path in arguments.extension] or extensions()
    for path in built:
        findings += check_exports(path)
    for finding in findings:
        print(finding)
    for path in [*c_files(), *sorted((ROOT / "python").rglob("*.py"))]:
        count = path.read_bytes().count(b"\n")
        if count > LINES:
            print(f"{name(path)}: {count} lines; is that one concept? (no error)")
    if not built:
        print("no built extension here: what it exports was not checked")
    print(f"{len(c_files())} C files, {len(built)} built extensions: {len(findings)} findings")
    good = not findings
    if not arguments.own:
        good &= run_tool("ruff", "check", "--quiet", "--output-format=concise", ".")
        good &= run_tool("ruff", "format", "--check", "--output-format=concise", ".")
        good &= run_tool("mypy")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
