"""--reload: what is watched, and that a change is served."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from capicorn.config import Config
from capicorn.reload_paths import reload_paths

Launch = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a/deep", "b", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("directories", "includes", "excludes", "watched", "patterns"),
    [
        ([], [], [], ["."], []),
        (["a"], [], [], ["a"], []),
        (["a", "a/deep", "b"], [], [], ["a", "b"], []),
        ([], ["b"], [], ["b"], ["b"]),
        ([], ["*.txt"], [], ["."], ["*.txt"]),
        (["a", "b"], [], ["b"], ["a"], []),
        (["nosuch"], [], [], ["."], []),
        ([], ["*.txt", "*.py"], ["*.txt"], ["."], ["*.py"]),
        ([], [".*"], [], ["."], [".*"]),
    ],
)
def test_what_is_watched(
    here: Path,
    directories: list[str],
    includes: list[str],
    excludes: list[str],
    watched: list[str],
    patterns: list[str],
) -> None:
    found, kept, _, _ = reload_paths(directories, includes, excludes)
    assert found == [(here / name).resolve() for name in watched]
    assert kept == patterns


@pytest.mark.parametrize(
    ("includes", "excludes", "name", "counts"),
    [
        ([], [], "x.py", True),
        ([], [], "x.txt", False),
        ([], [], ".x.py", False),
        (["*.txt"], [], "x.txt", True),
        ([], ["x.py"], "x.py", False),
        ([], ["*.py"], "x.py", False),
        ([], ["a"], "a/x.py", False),
        (["b/x.txt"], [], "b/x.txt", True),
    ],
)
def test_which_files_count(here: Path, includes: list[str], excludes: list[str], name: str, counts: bool) -> None:
    pytest.importorskip("watchfiles")
    from capicorn.supervisors.watchfilesreload import FileFilter

    config = Config("x:y", reload=True, reload_includes=includes, reload_excludes=excludes)
    assert FileFilter(config)(here / name) is counts


@pytest.mark.parametrize("reloader", ["WatchFiles", "StatReload"])
def test_a_change_is_served_and_a_broken_file_does_not_end_it(launch: Launch, folder: Path, reloader: str) -> None:
    if reloader == "WatchFiles":
        pytest.importorskip("watchfiles")
        command = ("-m", "capicorn")
    else:  # without watchfiles; the child does not import it
        (folder / "go.py").write_text(
            "import sys\nsys.modules['watchfiles'] = None\nfrom capicorn.cli import main\n"
            "if __name__ == '__main__':\n    main()\n"
        )
        command = ("go.py",)
    source = (folder / "apps.py").read_text()
    (folder / "changing.py").write_text(source)
    process = launch("--reload", "--reload-delay", "0.05", app="changing:app", command=command)
    process.wait_for(rf"Will watch for changes in these directories: \['{re.escape(str(folder))}'\]")
    process.wait_for(rf"Started reloader process \[{process.proc.pid}\] using {reloader}$")
    process.wait_for("Application startup complete")
    assert process.get()[0].status == 200
    (folder / "changing.py").write_text("def broken(:\n")
    process.wait_for("SyntaxError")
    changed = source.replace('shown["env"]', 'shown["new"] = 1; shown["env"]')
    (folder / "changing.py").write_text(changed)
    process.wait_for(rf"^WARNING: +{reloader} detected changes in 'changing\.py'\. Reloading\.\.\.$")
    assert json.loads(process.get()[1])["new"] == 1
    process.signal(15)
    assert process.exit_code() == 0
    process.wait_for(rf"Stopping reloader process \[{process.proc.pid}\]$")


def test_a_request_that_does_not_end_delays_the_new_code_by_seconds_only(launch: Launch, folder: Path) -> None:
    """A stream in an open browser tab."""
    source = (folder / "apps.py").read_text()
    (folder / "changing.py").write_text(source)
    process = launch("--reload", "--reload-delay", "0.05", app="changing:app")
    process.wait_for("Application startup complete")
    with socket.create_connection(("127.0.0.1", process.port)) as tab:
        tab.sendall(b"GET /sleep HTTP/1.1\r\nHost: a\r\n\r\n")
        process.wait_for("app: sleeping")
        begin = time.monotonic()
        (folder / "changing.py").write_text(source + "\nNEW = 1\n")
        process.wait_for("app: cancelled", timeout=15)
        assert 2 < time.monotonic() - begin < 15
        assert tab.recv(1000)[:12] == b"HTTP/1.1 503"
    assert process.get()[0].status == 200


def test_reload_and_an_app_object_is_refused(run_python: Callable[..., object]) -> None:
    done = run_python("import capicorn, apps; capicorn.run(apps.app, reload=True, port=0)")
    assert done.returncode == 3  # type: ignore[attr-defined]
    assert "You must pass the application as an import string" in done.stderr  # type: ignore[attr-defined]
