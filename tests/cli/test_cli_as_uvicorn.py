"""Capicorn by uvicorn's name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Run = Callable[..., "CompletedProcess[str]"]
Launch = Callable[..., Any]

FAKE = "__version__ = 'the installed one'\n"


@pytest.fixture
def installed(folder: Path) -> Path:
    """A folder in which a uvicorn is installed, or something of that name."""
    (folder / "uvicorn").mkdir()
    (folder / "uvicorn" / "__init__.py").write_text(FAKE)
    (folder / "uvicorn" / "private.py").write_text("")
    return folder


NAMES = """
import json, sys
sys.path.insert(0, "")
from capicorn.uvicorn_names import install
assert install(shadow=True)
import uvicorn, capicorn, importlib.util
from uvicorn import Config, Server, run
from uvicorn.main import Server as Again
from uvicorn.config import LOGGING_CONFIG
from uvicorn.logging import DefaultFormatter
from uvicorn.lifespan.on import LifespanOn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.utils import ClientDisconnected
import uvicorn.supervisors, uvicorn.importer, uvicorn.server
import uvicorn.lifespan.off, uvicorn.loops.auto, uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto
from uvicorn.config import HTTP_PROTOCOLS, LIFESPAN, LOG_LEVELS, LOOP_FACTORIES, SSL_PROTOCOL_VERSION, WS_PROTOCOLS
from uvicorn.config import HTTPProtocolType, InterfaceType, LifespanType, LoopFactoryType, WSProtocolType
from uvicorn._types import ASGIApplication, Scope
from uvicorn._compat import asyncio_run
assert "gunicorn" not in sys.modules and "watchfiles" not in sys.modules
assert sorted(HTTP_PROTOCOLS) == ["auto", "h11", "httptools", "zttp"] and "none" in WS_PROTOCOLS and "on" in LIFESPAN
async def seven():
    return 7
assert asyncio_run(seven(), loop_factory=capicorn.new_event_loop) == 7
assert Again is Server is capicorn.Server is uvicorn.server.Server
assert Config is capicorn.Config
assert importlib.util.find_spec("uvicorn") is not None
assert Config.__module__ == "capicorn.config"
try:
    import uvicorn.private
except ImportError:
    pass
else:
    raise AssertionError("a module of the installed uvicorn")
LOGGING_CONFIG["loggers"]["uvicorn.access"]["level"] = "ERROR"
import logging
Config("x:y")
assert logging.getLogger("capicorn.access").level == logging.ERROR
assert logging.getLogger("uvicorn.access") is logging.getLogger("capicorn.access")
print(uvicorn.__version__)
"""


def test_names_are_our_objects_also_where_uvicorn_is_installed(run_python: Run, installed: Path) -> None:
    done = run_python(NAMES)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0.54.0\n"


PROTOCOLS = """
from capicorn.uvicorn_names import install
assert install(shadow=True)
import asyncio, capicorn, uvicorn
from uvicorn.config import UvicornDeprecationWarning, create_ssl_context
from uvicorn.main import INTERFACES, LIFESPAN, LOGGING_CONFIG, LOG_LEVELS, SSL_PROTOCOL_VERSION, STARTUP_FAILURE
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.loops.auto import auto_loop_factory
from uvicorn.loops.asyncio import asyncio_loop_factory
from uvicorn.loops.uvloop import uvloop_loop_factory
import uvicorn.protocols.http.h11_impl
assert auto_loop_factory(use_subprocess=True) is capicorn.new_event_loop
assert asyncio_loop_factory() is asyncio.SelectorEventLoop
assert uvloop_loop_factory.__name__ == "uvloop_loop_factory"

async def app(scope, receive, send): ...

config = uvicorn.Config(app, log_config=None)
config.load()
def refused(function, *args):
    try:
        function(*args)
    except AttributeError as exc:
        assert "in C" in str(exc), exc
    else:
        raise AssertionError(function)
for name in ("http_protocol_class", "ws_protocol_class"):
    assert not hasattr(config, name)
    refused(getattr, config, name)
    refused(setattr, config, name, object)
assert uvicorn.Config(app, log_config=None, ws="none").ws_protocol_class is None
refused(getattr, uvicorn.protocols.http.h11_impl, "H11Protocol")
try:
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
except ImportError:
    print("done")
"""


def test_what_is_there_of_protocols_and_loops(run_python: Run) -> None:
    """What is in C cannot be derived from or replaced, and says so."""
    done = run_python(PROTOCOLS)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


TRANSPORTS = """
import asyncio, os, sys
from capicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
import capicorn

class Plain(asyncio.Transport):  # of a test, or of a loop that gives no sockets
    def __init__(self, **extra):
        super().__init__(extra)

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    transport, _ = await loop.create_connection(asyncio.Protocol, *address)
    assert get_remote_addr(transport) == address and not is_ssl(transport)
    assert get_local_addr(transport)[0] == "127.0.0.1" and get_local_addr(transport)[1] != address[1]
    transport.abort()
    server.close()
    server = await loop.create_unix_server(asyncio.Protocol, "socket")
    transport, _ = await loop.create_unix_connection(asyncio.Protocol, "socket")
    assert get_remote_addr(transport) is None and get_local_addr(Plain(socket=server.sockets[0])) == ("socket", None)
    transport.abort()
    server.close()

with asyncio.Runner(loop_factory=capicorn.new_event_loop) as runner:
    runner.run(main())
assert get_remote_addr(Plain(peername=["::1", "80"])) == ("::1", 80)
assert get_remote_addr(Plain(peername=None)) is None is get_local_addr(Plain())
assert get_local_addr(Plain(sockname="/a/path")) == ("/a/path", None)
assert is_ssl(Plain(sslcontext=object()))
"""


def test_what_helpers_say_of_a_transport(run_python: Run, folder: Path) -> None:
    done = run_python(TRANSPORTS)
    assert done.returncode == 0, done.stderr


def test_an_import_does_not_hide_an_installed_uvicorn_but_warns(run_python: Run, installed: Path) -> None:
    done = run_python(
        "import sys; sys.path.insert(0, ''); import capicorn.as_uvicorn, uvicorn; print(uvicorn.__version__)"
    )
    assert done.stdout == "the installed one\n"
    assert "UserWarning: uvicorn is installed" in done.stderr


def test_an_import_hides_it_when_the_environment_asks(run_python: Run, installed: Path) -> None:
    code = "import sys; sys.path.insert(0, ''); import capicorn.as_uvicorn, uvicorn; print(uvicorn.__version__)"
    assert run_python(code, CAPICORN_SHADOW_UVICORN="1").stdout == "0.54.0\n"


def test_a_uvicorn_in_use_is_not_replaced(run_python: Run, installed: Path) -> None:
    code = "import sys; sys.path.insert(0, ''); import uvicorn; from capicorn.uvicorn_names import install\n"
    done = run_python(code + "print(install()); install(shadow=True)")
    assert done.stdout == "False\n"
    assert "RuntimeError: uvicorn has been imported already" in done.stderr


def test_names_that_need_another_project(run_python: Run) -> None:
    """uvicorn.workers is gunicorn's way, and its worker is ours."""
    done = run_python(
        "from capicorn.uvicorn_names import install\n"
        "assert install(shadow=True)\n"
        "try:\n"
        "    from uvicorn.workers import UvicornH11Worker, UvicornWorker\n"
        "except ModuleNotFoundError as e:\n"
        "    assert e.name.startswith('gunicorn'), e.name\n"
        "else:\n"
        "    import capicorn.gunicorn_worker as ours\n"
        "    assert UvicornWorker is UvicornH11Worker is ours.GunicornWorker\n"
        "    assert ours.__spec__.name == ours.__name__ == 'capicorn.gunicorn_worker'\n"
        "try:\n"
        "    from uvicorn.supervisors.watchfilesreload import WatchFilesReload\n"
        "except ModuleNotFoundError as e:\n"
        "    assert e.name == 'watchfiles', e.name\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", ["script", "module", "code", "python"])
def test_commands_run_with_our_uvicorn(launch: Launch, installed: Path, form: str) -> None:
    text = "import json, sys, uvicorn\nprint(json.dumps([uvicorn.__version__, sys.argv[1:], __name__]))\n"
    (installed / "tool.py").write_text(text)
    words = {"script": ["tool.py"], "module": ["-m", "tool"], "code": ["-c", text], "python": ["python", "tool.py"]}[
        form
    ]
    process = launch("a", "-b", app=None, port=None, command=("-m", "capicorn.as_uvicorn", *words))
    assert process.exit_code() == 0, process.text
    assert json.loads(process.lines[-1]) == ["0.54.0", ["a", "-b"], "__main__"]


@pytest.mark.parametrize("words", [("uvicorn",), ("-m", "uvicorn"), (sys.executable, "-m", "uvicorn")])
def test_the_command_uvicorn_is_ours(launch: Launch, words: tuple[str, ...]) -> None:
    process = launch(command=("-m", "capicorn.as_uvicorn", *words))
    process.wait_for("Capicorn running on http://127.0.0.1:")


def test_a_command_that_is_not_there(launch: Launch) -> None:
    process = launch(app=None, port=None, command=("-m", "capicorn.as_uvicorn", "no-such-command-at-all"))
    assert process.exit_code() == 127
    assert process.lines == ["Error: there is no command and no file no-such-command-at-all"]


@pytest.mark.parametrize("mode", ["run", "dev"])
def test_fastapi_cli_serves_with_us(launch: Launch, folder: Path, mode: str) -> None:
    pytest.importorskip("fastapi_cli")
    (folder / "main.py").write_text(
        "from fastapi import FastAPI\nimport uvicorn\napp = FastAPI()\n"
        "@app.get('/')\ndef root() -> dict[str, str]:\n    return {'uvicorn': uvicorn.__version__}\n"
    )
    process = launch("main.py", app=None, port="0", command=("-m", "capicorn", "fastapi", mode))
    process.wait_for("Application startup complete")
    response, body = process.get()
    assert response.headers["server"] == "capicorn"
    assert json.loads(body) == {"uvicorn": "0.54.0"}
