"""Puts the table of settings into README.md, between its two marks (`make readme`)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
MARKS = re.compile(r"(<!-- settings: [^\n]*-->\n).*?(<!-- /settings -->)", re.S)


def main() -> int:
    table = subprocess.run(
        [sys.executable, "-m", "capicorn.settings", "--markdown"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    text = README.read_text(encoding="utf-8")
    if not MARKS.search(text):
        print("README.md has no marks for the table of settings", file=sys.stderr)
        return 1
    README.write_text(MARKS.sub(lambda m: m[1] + table.rstrip() + "\n" + m[2], text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
