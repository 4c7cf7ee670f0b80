"""Our objects by uvicorn's names, and commands run with them. See capicorn.as_uvicorn for what people type."""

from __future__ import annotations

import asyncio
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import runpy
import shutil
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

UVICORN_VERSION = "0.54.0"
"""The release whose names and behaviour these are: what `uvicorn.__version__` says."""

SUBMODULES = {
    "config": "capicorn.config",
    "importer": "capicorn.importer",
    "lifespan.off": "capicorn.lifespan",
    "lifespan.on": "capicorn.lifespan",
    "logging": "capicorn.logging",
    "main": "capicorn.main",
    "middleware.asgi2": "capicorn.middleware.asgi2",
    "middleware.message_logger": "capicorn.middleware.message_logger",
    "middleware.proxy_headers": "capicorn.middleware.proxy_headers",
    "middleware.wsgi": "capicorn.middleware.wsgi",
    "protocols.utils": "capicorn.protocols.utils",
    "server": "capicorn.server",
    "supervisors": "capicorn.supervisors",
    "supervisors.basereload": "capicorn.supervisors.basereload",
    "supervisors.multiprocess": "capicorn.supervisors.multiprocess",
    "supervisors.statreload": "capicorn.supervisors.statreload",
}
LOOPS = {"auto": "auto_loop_factory", "asyncio": "asyncio_loop_factory", "uvloop": "uvloop_loop_factory"}
"""What `uvicorn.loops.NAME` has: a function that gives what makes a loop."""

PACKAGES = ("lifespan", "loops", "middleware", "protocols", "protocols.http", "protocols.websockets")
EMPTY = (
    *(f"protocols.http.{name}" for name in ("auto", "h11_impl", "httptools_impl")),
    *(f"protocols.websockets.{name}" for name in ("auto", "websockets_impl", "websockets_sansio_impl", "wsproto_impl")),
)
"""Imported for a bundler's sake (PyInstaller), without a look at what is inside: uvicorn's protocols, which are in C
here."""

LATER = {
    "supervisors.watchfilesreload": ("capicorn.supervisors.watchfilesreload", {"WatchFilesReload": "WatchFilesReload"}),
    "workers": (
        "capicorn.gunicorn_worker",
        {"UvicornWorker": "GunicornWorker", "UvicornH11Worker": "GunicornWorker"},
    ),
}
"""What needs another project (watchfiles, gunicorn), and so is made when it is imported: module and its names."""


def active() -> bool:
    """Is `uvicorn` in this process made of our objects?"""
    return getattr(sys.modules.get("uvicorn"), "__capicorn__", False) is True


def install(shadow: bool = False) -> bool:
    """Put the modules in their places; true when they are there. With `shadow` also in place of an installed
    uvicorn, unless that has been imported already (RuntimeError): its objects would be mixed with ours."""
    if active():
        return True
    if "uvicorn" in sys.modules:
        if shadow:
            raise RuntimeError("uvicorn has been imported already; Capicorn cannot take its place in this process")
        return False
    if not shadow and importlib.util.find_spec("uvicorn") is not None:
        return False
    package = _module("uvicorn", package=True)
    vars(package).update(__capicorn__=True, __version__=UVICORN_VERSION, __all__=["Config", "Server", "main", "run"])
    capicorn = importlib.import_module("capicorn")
    for name in ("Config", "Server", "main", "run"):
        setattr(package, name, getattr(capicorn, name))
    modules: dict[str, ModuleType] = {"uvicorn": package}
    for name in PACKAGES:
        modules[f"uvicorn.{name}"] = _module(f"uvicorn.{name}", package=True)
    for name in EMPTY:
        modules[f"uvicorn.{name}"] = _module(f"uvicorn.{name}", package=False)
        vars(modules[f"uvicorn.{name}"])["__getattr__"] = _no_protocol(f"uvicorn.{name}")
    for name, function in LOOPS.items():
        modules[f"uvicorn.loops.{name}"] = _module(f"uvicorn.loops.{name}", package=False)
        vars(modules[f"uvicorn.loops.{name}"])[function] = _loop_factory(name, function)
    for name, own in SUBMODULES.items():
        modules[f"uvicorn.{name}"] = importlib.import_module(own)
    modules["uvicorn._compat"] = _module("uvicorn._compat", package=False)
    vars(modules["uvicorn._compat"])["asyncio_run"] = _asyncio_run  # uvicorn-worker's
    modules["uvicorn._types"] = _module("uvicorn._types", package=False)
    vars(modules["uvicorn._types"])["__getattr__"] = _any_type
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        if parent in modules and not hasattr(modules[parent], last):
            setattr(modules[parent], last, module)
    sys.modules.update(modules)
    sys.meta_path.insert(0, _Later())
    _share_logging_names(capicorn.config.LOGGING_CONFIG)
    return True


def _module(name: str, package: bool) -> ModuleType:
    module = ModuleType(name, "Capicorn by uvicorn's name.")
    spec = importlib.machinery.ModuleSpec(name, None, is_package=package)
    module.__spec__ = spec
    if package:
        module.__path__ = []  # what is not here does not exist, wherever uvicorn may be installed
    return module


class _Later(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules of LATER."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return importlib.machinery.ModuleSpec(fullname, self) if package == "uvicorn" and name in LATER else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        own, names = LATER[module.__name__.partition(".")[2]]
        source = importlib.import_module(own)
        vars(module).update({name: getattr(source, ours) for name, ours in names.items()})


def _asyncio_run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """asyncio.run() as CPython has it since 3.12."""
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)


def _any_type(name: str) -> Any:
    """The types of ASGI, for annotations."""
    if name.startswith("_"):
        raise AttributeError(f"module 'uvicorn._types' has no attribute {name!r}")
    return Any


def _no_protocol(module: str) -> Callable[[str], Any]:
    def lookup(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise AttributeError(
            f"{module}.{name}: Capicorn's HTTP and WebSocket are in C; it has none of uvicorn's protocols"
        )

    return lookup


def _loop_factory(loop: str, name: str) -> Callable[..., Any]:
    def factory(use_subprocess: bool = False) -> Callable[[], asyncio.AbstractEventLoop]:
        if loop == "auto":
            return importlib.import_module("capicorn.loop").new_event_loop  # type: ignore[no-any-return]
        if loop == "asyncio":
            return asyncio.SelectorEventLoop
        return importlib.import_module(loop).new_event_loop  # type: ignore[no-any-return]

    factory.__name__ = factory.__qualname__ = name
    return factory


def _share_logging_names(config: dict[str, Any]) -> None:
    """Whoever edits `uvicorn.config.LOGGING_CONFIG["loggers"]["uvicorn.access"]` edits ours; whoever asks for the
    logger uvicorn.access gets ours."""
    from capicorn.logging import adopted_loggers

    loggers = config["loggers"]
    for name in [name for name in loggers if name.startswith("capicorn")]:
        loggers.setdefault("uvicorn" + name[len("capicorn") :], loggers[name])
    with adopted_loggers():
        pass


def run_fastapi(arguments: Sequence[str]) -> int:
    """`capicorn fastapi …`: fastapi-cli, serving with Capicorn. An exit code."""
    if importlib.util.find_spec("fastapi_cli") is None:
        print(
            "Error: `capicorn fastapi` needs fastapi-cli, which is not installed: pip install fastapi-cli",
            file=sys.stderr,
        )
        return 1
    install(shadow=True)
    sys.argv = ["fastapi", *arguments]
    cli = importlib.import_module("fastapi_cli.cli")
    return _code(cli.main())


def run_command(words: Sequence[str]) -> int:
    """Run a command line in this process. An exit code."""
    if words and os.path.basename(words[0]) in ("python", "python3", os.path.basename(sys.executable)):
        words = words[1:]
    if not words:
        print("usage: python -m capicorn.as_uvicorn COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    install(shadow=True)
    first = words[0]
    if first == "-c" and len(words) > 1:
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        main = ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(words[1], "<string>", "exec"), vars(main))
        return 0
    if first == "-m" and len(words) > 1:
        if words[1] == "uvicorn" or words[1].startswith("uvicorn."):
            return _uvicorn(words[2:])
        sys.argv = list(words[1:])
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return 0
    if first == "uvicorn":
        return _uvicorn(words[1:])
    sys.argv = list(words)
    for script in entry_points(group="console_scripts", name=os.path.basename(first)):
        return _code(script.load()())
    path = first if os.path.exists(first) else shutil.which(first)
    if path is None:
        print(f"Error: there is no command and no file {first}", file=sys.stderr)
        return 127
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(path, run_name="__main__")
    return 0


def _uvicorn(arguments: Sequence[str]) -> int:
    from capicorn.cli import main

    return _code(main(list(arguments), prog_name="uvicorn"))


def _code(result: Any) -> int:
    return result if isinstance(result, int) else 0
