"""Writes compile_commands.json for clangd: what the last build in this tree ran (`make compdb` builds first)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def entries() -> list[dict[str, str]]:
    """The newest command for each source file below build/."""
    found: dict[str, dict[str, str]] = {}
    commands = sorted((ROOT / "build").rglob("*.cmd"), key=lambda path: path.stat().st_mtime)
    for path in commands:
        command = path.read_text()
        source = command.split(" -c ", 1)[1].split(" -o ", 1)[0].strip("'")
        if Path(source).is_file():
            found[source] = {"directory": str(ROOT), "command": command, "file": source}
    return [found[source] for source in sorted(found)]


def main() -> int:
    found = entries()
    if not found:
        print("nothing was built in this tree: run `make build` first", file=sys.stderr)
        return 1
    (ROOT / "compile_commands.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"compile_commands.json: {len(found)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
