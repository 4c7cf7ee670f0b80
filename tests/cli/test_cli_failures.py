"""What goes wrong at the start: one clear message, uvicorn's exit code, no traceback of ours."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Launch = Callable[..., Any]


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("nosuch:app", 'Error loading ASGI app. Could not import module "nosuch".'),
        ("nosuch.deeper:app", 'Error loading ASGI app. Could not import module "nosuch.deeper".'),
        ("apps:nosuch", 'Error loading ASGI app. Attribute "nosuch" not found in module "apps".'),
        ("apps", 'Error loading ASGI app. Import string "apps" must be in format "<module>:<attribute>".'),
    ],
)
def test_an_app_that_is_not_there_exits_3(launch: Launch, app: str, says: str) -> None:
    process = launch(app=app)
    assert process.exit_code() == 3
    assert process.lines == [f"ERROR:    {says}"]


def test_an_error_inside_the_app_exits_1_with_its_own_traceback(launch: Launch, folder: Path) -> None:
    (folder / "inner.py").write_text("import missing_thing\n")
    process = launch(app="inner:app")
    assert process.exit_code() == 1
    assert "ModuleNotFoundError: No module named 'missing_thing'" in process.text
    assert "inner.py" in process.text
    assert "capicorn" not in process.text and "importlib" not in process.text


def test_a_syntax_error_shows_no_frame_of_ours(launch: Launch, folder: Path) -> None:
    (folder / "wrong.py").write_text("def f(:\n")
    process = launch(app="wrong:app")
    assert process.exit_code() == 1
    assert "wrong.py" in process.text and "SyntaxError" in process.text
    assert "Traceback" not in process.text


def test_an_error_inside_a_factory_shows_only_the_factory(launch: Launch) -> None:
    process = launch("--factory", app="apps:broken_factory")
    assert process.exit_code() == 1
    assert "no such key in the factory" in process.text and "broken_factory" in process.text
    assert "capicorn" not in process.text


def test_a_busy_port_exits_3_after_lifespan_shutdown(launch: Launch) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        process = launch(port=str(port))
        assert process.exit_code() == 3
    process.wait_for(rf"^ERROR: .*\('127.0.0.1', {port}\): address already in use$")
    assert process.lines.index("app: lifespan.startup") < process.lines.index("app: lifespan.shutdown")
    assert "Traceback" not in process.text


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--uds", "/no/such/folder/s"), "cannot bind unix socket '/no/such/folder/s': No such file or directory"),
        (("--fd", "999"), "descriptor 999: Bad file descriptor"),
        (("--fd", "0"), "descriptor 0: "),
        (("--host", "no.such.host.invalid"), "host 'no.such.host.invalid': "),
        (("--host", "192.0.2.1"), "cannot assign requested address"),
    ],
)
def test_what_cannot_be_bound_exits_3(launch: Launch, flags: tuple[str, ...], says: str) -> None:
    process = launch(*flags)
    assert process.exit_code() == 3
    assert says in process.text
    assert "Traceback" not in process.text


def test_a_unix_socket_in_use_is_not_taken_away(launch: Launch, folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        process = launch("--uds", str(path))
        assert process.exit_code() == 3
        assert "Address already in use" in process.text
        assert path.exists()


def test_a_file_that_is_no_socket_is_not_removed(launch: Launch, folder: Path) -> None:
    path = folder / "precious"
    path.write_text("data")
    process = launch("--uds", str(path))
    assert process.exit_code() == 3
    assert path.read_text() == "data"


def test_failed_startup_exits_3_with_its_cause(launch: Launch) -> None:
    process = launch(app="apps:failing")
    assert process.exit_code() == 3
    assert "ERROR:    the cause of it" in process.lines
    assert "ERROR:    Application startup failed. Exiting." in process.lines


def test_an_exception_with_lifespan_on_exits_3_with_its_traceback(launch: Launch) -> None:
    process = launch("--lifespan", "on", app="apps:only_http")
    assert process.exit_code() == 3
    assert "AssertionError: this is no lifespan" in process.text


def test_a_factory_that_wants_arguments_exits_3(launch: Launch) -> None:
    process = launch("--factory", app="apps:Two")
    assert process.exit_code() == 3
    process.wait_for(r"^ERROR: +Error loading ASGI app factory: .*missing 1 required")


@pytest.mark.parametrize("loop", ["nosuch", "nosuch:factory", "os:nosuch"])
def test_a_loop_that_is_not_there_exits_3(launch: Launch, loop: str) -> None:
    process = launch("--loop", loop)
    assert process.exit_code() == 3
    process.wait_for(r"^ERROR: +Error loading custom loop setup function\.")


def test_fastapi_without_fastapi_cli_says_what_to_install(launch: Launch) -> None:
    code = "import sys; sys.modules['fastapi_cli'] = None; sys.argv = ['capicorn', 'fastapi', 'run']\n"
    code += "from importlib import util\nfind = util.find_spec\n"
    code += "util.find_spec = lambda name, *a: None if name == 'fastapi_cli' else find(name, *a)\n"
    code += "from capicorn.cli import main; main()"
    process = launch(command=("-c", code), app=None, port=None)
    assert process.exit_code() == 1
    assert "pip install fastapi-cli" in process.text


def test_an_unreadable_app_file_is_the_apps_error(launch: Launch, folder: Path) -> None:
    (folder / "raw.py").write_bytes(b"x = '\xff'\n")
    process = launch(app="raw:app")
    assert process.exit_code() == 1
    assert "raw.py" in process.text and os.sep + "capicorn" + os.sep not in process.text
