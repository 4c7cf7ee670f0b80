"""The README's table of settings is the one that the settings give."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_table_of_settings_is_current() -> None:
    table = subprocess.run(
        [sys.executable, "-m", "capicorn.settings", "--markdown"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.strip()
    found = re.search(r"<!-- settings: [^\n]*-->\n(.*?)<!-- /settings -->", README.read_text(encoding="utf-8"), re.S)
    assert found is not None
    assert found[1].strip() == table, "run: make readme"
