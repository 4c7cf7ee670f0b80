"""A configuration file in Python: `-c PATH`, as gunicorn has it. Settings by our names or gunicorn's, and hooks."""

from __future__ import annotations

import importlib
import os
import runpy
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from capicorn.settings import BY_NAME

HOOKS = (
    *("on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init", "worker_int"),
    *("worker_abort", "pre_exec", "child_exit", "worker_exit", "nworkers_changed", "on_exit"),
)

NAMES = {
    "keepalive": "timeout_keep_alive",
    "graceful_timeout": "timeout_graceful_shutdown",
    "max_requests": "limit_max_requests",
    "max_requests_jitter": "limit_max_requests_jitter",
    "preload_app": "preload",
    "accesslog": "access_logfile",
    "errorlog": "error_logfile",
    "loglevel": "log_level",
    "logconfig": "log_config",
    "logconfig_dict": "log_config",
    "logconfig_json": "log_config",
    "keyfile": "ssl_keyfile",
    "certfile": "ssl_certfile",
    "ca_certs": "ssl_ca_certs",
    "cert_reqs": "ssl_cert_reqs",
    "ciphers": "ssl_ciphers",
    "asgi_lifespan": "lifespan",
    "proxy_allow_ips": "proxy_allow_from",
    "websocket_max_message_size": "ws_max_size",
}
"""gunicorn's name -> ours, where they differ."""

WITHOUT_EFFECT = frozenset(
    "worker_class worker_connections worker_tmp_dir reload_engine capture_output sendfile asgi_loop http_parser"
    " control_socket control_socket_disable control_socket_mode initgroups check_config print_config"
    " enable_stdio_inheritance spew".split()
)
"""gunicorn's settings about its own insides, or that only repeat what is so here anyway: nothing is lost."""

NOT_CALLED = frozenset("pre_request post_request ssl_context".split())
"""gunicorn's hooks that there are none of here."""

OURS = frozenset(name for name, row in BY_NAME.items() if row.scope != "run") | {"app_dir"}


class ConfigFileError(ValueError):
    """The file cannot be read, or holds a wrong value; the text names it."""


@dataclass
class ConfigFile:
    """What a file says."""

    path: str
    app: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    """Config's arguments."""
    environment: dict[str, str] = field(default_factory=dict)
    python_path: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Names that look like settings and are none."""


def load_config_file(spec: str) -> ConfigFile:
    """Run a file, or import a module (`python:NAME`), and sort its names. Raises ConfigFileError; an error of the
    code in it is the cause."""
    try:
        if spec.startswith("python:"):
            name = spec[len("python:") :]
            module = importlib.import_module(name)
            names = vars(importlib.reload(module)) if getattr(module, "__capicorn_read__", False) else vars(module)
            module.__dict__["__capicorn_read__"] = True
        else:
            path = spec.removeprefix("file:")
            if not os.path.isfile(path):
                raise ConfigFileError(f"there is no file {path}")
            names = runpy.run_path(path, run_name="__config__")
    except ConfigFileError:
        raise
    except (Exception, SystemExit) as exc:
        raise ConfigFileError(f"{spec}: {type(exc).__name__}: {exc}") from exc
    return _sorted(spec, names)


def absolute_spec(spec: str, folder: str) -> str:
    """The same file for a process in another folder."""
    return spec if spec.startswith("python:") else os.path.join(folder, spec.removeprefix("file:"))


def _sorted(spec: str, names: dict[str, Any]) -> ConfigFile:
    found = ConfigFile(spec)
    hooks: dict[str, Callable[..., Any]] = {}
    for name, value in names.items():
        if name.startswith("_"):
            continue
        if name in HOOKS:
            if not callable(value):
                raise ConfigFileError(f"{spec}: {name} is not a function")
            hooks[name] = value
        elif name in ("wsgi_app", "app"):
            if isinstance(value, str):
                found.app = value
        elif name == "raw_env":
            for pair in [value] if isinstance(value, str) else value:
                key, _, text = str(pair).partition("=")
                found.environment[key] = text
        elif name == "pythonpath":
            found.python_path = [part for part in str(value).split(",") if part]
        elif name == "umask":
            found.values[name] = oct(value) if isinstance(value, int) else value
        elif name == "proxy_protocol" and isinstance(value, str):  # gunicorn's off, v1, v2, auto
            found.values[name] = value.lower() not in ("off", "false", "0", "no", "")
        elif name in ("user", "group", "proc_name", "pidfile", "chdir", "accesslog", "errorlog"):
            found.values[NAMES.get(name, name)] = None if value is None else str(value)
        elif NAMES.get(name, name) in OURS:
            if not (NAMES.get(name) == "log_config" and not value):
                found.values[NAMES.get(name, name)] = value
        elif name in NOT_CALLED or (name not in WITHOUT_EFFECT and not _is_helper(value)):
            found.unknown.append(name)
    if hooks:
        found.values["hooks"] = hooks
    if isinstance(found.values.get("bind"), str):
        found.values["bind"] = [part for part in found.values["bind"].split(",") if part]
    if found.values.get("limit_max_requests") == 0:
        found.values["limit_max_requests"] = None  # gunicorn's 0 is no limit
    return found


def _is_helper(value: Any) -> bool:
    return isinstance(value, (types.ModuleType, type)) or callable(value)
