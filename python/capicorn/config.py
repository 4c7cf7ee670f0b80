"""Config: all settings of a server, uvicorn's and our own, and what is made from them.

Making a Config configures logging and reads the environment file; the application is loaded by `load()`.
"""

from __future__ import annotations

import errno
import inspect
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

from capicorn import listeners
from capicorn.importer import ImportFromStringError, import_from_string
from capicorn.logging import TRACE_LOG_LEVEL, ColourizedFormatter, adopted_loggers, own_names, own_names_ini, style
from capicorn.settings import BY_NAME, HTTP_IMPLEMENTATIONS, POSITIONAL, SETTINGS, WS_IMPLEMENTATIONS
from capicorn.settings import INTERFACES as INTERFACES
from capicorn.settings import UnsupportedSettingError as UnsupportedSettingError

if TYPE_CHECKING:
    import asyncio
    import ssl
    from configparser import RawConfigParser
    from pathlib import Path
    from typing import Unpack

    from capicorn._arguments import ConfigArguments
    from capicorn.lifespan import LifespanOff, LifespanOn
    from capicorn.supervisors.worker import Worker
    from capicorn.systemd import Service

STARTUP_FAILURE = 3
"""Exit code when the application or the socket is not to be had."""

_IN_C = "Config.{}: Capicorn's HTTP and WebSocket are in C; there is no protocol class to derive from or to replace."

LOG_LEVELS: dict[str, int] = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE_LOG_LEVEL,
}

# What programs that wrap the command import for their own options, by uvicorn's names.
HTTPProtocolType = Literal["auto", "h11", "httptools", "zttp"]
WSProtocolType = Literal["auto", "none", "websockets", "websockets-sansio", "wsproto"]
LifespanType = Literal["auto", "on", "off"]
LoopFactoryType = Literal["none", "auto", "asyncio", "uvloop", "zuvloop"]
InterfaceType = Literal["auto", "asgi3", "asgi2", "wsgi"]
HTTP_PROTOCOLS: dict[str, str] = dict.fromkeys(get_args(HTTPProtocolType), "capicorn.server:Server")
WS_PROTOCOLS: dict[str, str] = dict.fromkeys(get_args(WSProtocolType), "capicorn.server:Server")
LIFESPAN: dict[str, str] = dict.fromkeys(get_args(LifespanType), "capicorn.lifespan:LifespanOn")
LOOP_FACTORIES: dict[str, str] = dict.fromkeys(get_args(LoopFactoryType), "capicorn.loop:new_event_loop")
SSL_PROTOCOL_VERSION = 17  # ssl.PROTOCOL_TLS_SERVER, without the import

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {
            "()": "capicorn.logging.DefaultFormatter",
            "fmt": "%(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "access": {
            "()": "capicorn.logging.AccessFormatter",
            "fmt": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "default": {"formatter": "default", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
        "access": {"formatter": "access", "class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "capicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "capicorn.error": {"level": "INFO"},
        "capicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
"""The default of `log_config`, and that very object: changes made before a Config is made count."""

logger = logging.getLogger("capicorn.error")


class Config:
    """What a Server needs to know. `app` is an import string or the application; the keyword arguments are uvicorn's
    and those of `capicorn.settings`.

    Raises TypeError for an argument that does not exist and ValueError for a value out of its range. What this
    release cannot do is refused by `load()` with UnsupportedSettingError.
    """

    if TYPE_CHECKING:
        host: str | None
        port: int
        uds: str | None
        uds_permissions: int | str | None
        fd: int | None
        backlog: int
        loop: str
        http: Any
        ws: Any
        lifespan: str
        interface: str
        root_path: str
        factory: bool
        reload: bool
        reload_delay: float
        log_config: dict[str, Any] | str | os.PathLike[str] | RawConfigParser | Any | None
        log_level: str | int | None
        access_log: bool
        access_log_format: str | None
        access_log_json: bool
        use_colors: bool | None
        proxy_headers: bool
        forwarded_header: str
        proxy_protocol: bool
        proxy_allow_from: list[str] | str
        server_header: bool
        limit_max_requests: int | None
        limit_max_requests_jitter: int
        limit_request_line: int
        limit_request_head: int
        h11_max_incomplete_event_size: int | None
        worker_start: str
        preload: bool
        threads: int | None
        native_threads: bool
        gc_freeze: bool
        timeout: float
        max_worker_memory: int | None
        block_warn: float
        rescue: bool
        health_bind: str | None
        metrics_bind: str | None
        health_path: str | None
        daemon: bool
        pidfile: str | None
        user: str | None
        group: str | None
        umask: str | None
        chdir: str | None
        proc_name: str | None
        hooks: dict[str, Callable[..., Any]] | None
        access_logfile: str | None
        error_logfile: str | None
        timeout_keep_alive: float
        timeout_notify: int
        timeout_graceful_shutdown: float | None
        timeout_shutdown_idle: float
        timeout_shutdown_streams: float
        callback_notify: Callable[..., Any] | None
        ssl_keyfile: str | os.PathLike[str] | None
        ssl_certfile: str | os.PathLike[str] | None
        ssl_keyfile_password: str | None
        ssl_version: int
        ssl_cert_reqs: int
        ssl_ca_certs: str | os.PathLike[str] | None
        ssl_ciphers: str | None
        ssl_context_factory: Callable[..., Any] | None

    def __init__(self, app: Any, *args: Any, **kwargs: Unpack[ConfigArguments]) -> None:
        values = _arguments(args, dict(kwargs))
        self.app = app
        for name, value in values.items():
            setattr(self, name, value)
        self.workers: int = values["workers"] or 1
        self.bind: list[str] = _as_list(values["bind"])
        self.addresses = [listeners.parse_address(text) for text in self.bind if listeners.socket_name(text) is None]
        self.socket_names = [name for name in map(listeners.socket_name, self.bind) if name is not None]
        """Sockets that systemd hands over and that are asked for by name."""
        if self.addresses:  # the first one by uvicorn's names as well
            self.host, self.port, self.uds, self.fd = self.addresses[0]
        _check_health(values["health_bind"], values["health_path"])
        if values["metrics_bind"] is not None:
            from capicorn.metrics import check_address

            check_address(values["metrics_bind"])
        self.uds_mode = _permissions(self.uds_permissions)
        self.service: Service | None = None
        """What systemd says and is told, when the process is this server's."""
        self.inherited = False
        """Are the sockets systemd's? Then they are in the place of the addresses, unless both are named in bind."""
        self.owns_process = False
        """Of the command and run(): nothing else lives in this process."""
        self.supervisor: Any = None
        self.start_folder: str | None = None
        self.config_file: str | None = None
        self.worker: Worker | None = None
        """In a worker process, its way to the supervisor."""
        self.headers: list[tuple[str, str]] = [(str(name), str(value)) for name, value in values["headers"] or []]
        self.encoded_headers: list[tuple[bytes, bytes]] = _encoded_headers(self.headers)
        self.access_log_exclude: list[str] = _as_list(values["access_log_exclude"])
        if self.h11_max_incomplete_event_size is not None:
            for name in ("limit_request_head", "limit_request_line"):
                if getattr(self, name) == BY_NAME[name].default:
                    setattr(self, name, self.h11_max_incomplete_event_size)

        self.loaded = False
        self.loaded_app: Any = None
        self.ssl: Any = None
        self.configure_logging()

        self.reload_dirs: list[Path] = []
        self.reload_dirs_excludes: list[Path] = []
        self.reload_includes: list[str] = []
        self.reload_excludes: list[str] = []
        wanted = [_as_list(values[name]) for name in ("reload_dirs", "reload_includes", "reload_excludes")]
        if self.should_reload:
            from capicorn.reload_paths import reload_paths

            watched = reload_paths(*wanted)
            self.reload_dirs, self.reload_includes, self.reload_excludes, self.reload_dirs_excludes = watched
            logger.info(
                "Will watch for changes in these directories: %s", sorted(str(path) for path in self.reload_dirs)
            )
        elif any(wanted):
            logger.warning(
                "Current configuration will not reload as not all conditions are met, please refer to documentation."
            )

        if values["env_file"] is not None:
            _load_env_file(values["env_file"])
        if values["workers"] is None and os.environ.get("WEB_CONCURRENCY"):
            self.workers = _web_concurrency(os.environ["WEB_CONCURRENCY"])
        self.forwarded_allow_ips: list[str] | str = values["forwarded_allow_ips"]
        if self.forwarded_allow_ips is None:
            self.forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")
        if self.reload and self.workers > 1:
            logger.warning('"workers" flag is ignored when reloading is enabled.')

    # ---- what follows from the settings

    @property
    def asgi_version(self) -> Literal["2.0", "3.0"]:
        return "2.0" if self.interface == "asgi2" else "3.0"

    @property
    def is_ssl(self) -> bool:
        return bool(self.ssl_keyfile or self.ssl_certfile or self.ssl_context_factory)

    @property
    def use_subprocess(self) -> bool:
        return bool(self.reload or self.use_workers)

    @property
    def use_workers(self) -> bool:
        """Is there a supervisor? For several workers, and for what only a supervisor can do for one."""
        wanted = self.timeout, self.max_worker_memory, self.user, self.group, self.preload, self.hooks
        return self.workers > 1 or any(wanted)

    def call_hook(self, name: str, *args: Any) -> None:
        """Call a function of the configuration file, if it is there. Its error is the caller's."""
        hook = (self.hooks or {}).get(name)
        if hook is not None:
            hook(*args)

    @property
    def should_reload(self) -> bool:
        return isinstance(self.app, str) and self.reload

    @property
    def lifespan_class(self) -> type[LifespanOn] | type[LifespanOff]:
        from capicorn.lifespan import LifespanOff, LifespanOn

        return LifespanOff if self.lifespan == "off" else LifespanOn

    def refused(self) -> str:
        """What of these settings this release cannot do, with the reason; "" when it can do all."""
        for setting in SETTINGS:
            if setting.scope == "run":
                continue
            if reason := setting.refuse(getattr(self, setting.name)):
                return reason
        return ""

    # ---- logging

    def configure_logging(self) -> None:
        """Apply log_config, log_level, use_colors and access_log to the loggers `capicorn…`."""
        logging.addLevelName(TRACE_LOG_LEVEL, "TRACE")
        renamed = False
        if self.log_config is not None:
            with adopted_loggers():
                try:
                    renamed = self._apply_log_config()
                except (OSError, ImportError):
                    raise
                except Exception as exc:  # of a parser, or of logging.config for whatever it cannot make
                    where = f" in {self.log_config}" if isinstance(self.log_config, str) else ""
                    raise ValueError(f"log_config: {str(exc) or type(exc).__name__}{where}") from exc
        if self.log_level is not None:
            level = self.log_level
            number = LOG_LEVELS[level.lower()] if isinstance(level, str) else level
            for name in ("capicorn.error", "capicorn.access", "capicorn.asgi"):
                logging.getLogger(name).setLevel(number)
        if self.access_log is False:
            access = logging.getLogger("capicorn.access")
            access.handlers = []
            access.propagate = False
        self._log_to_files()
        if renamed:
            logger.debug("The logging configuration names uvicorn's loggers or formatters; Capicorn's are meant.")

    def _log_to_files(self) -> None:
        for path, name, stream in (
            (self.error_logfile, "capicorn", sys.stderr),
            (self.access_logfile, "capicorn.access", sys.stdout),
        ):
            if path is None:
                continue
            from capicorn.supervisors.log_files import tell_problems_once

            target = logging.getLogger(name)
            formatter = target.handlers[0].formatter if target.handlers else None
            handler = logging.StreamHandler(stream) if path == "-" else logging.FileHandler(path)
            handler.setFormatter(formatter)
            target.handlers = [handler]
            if isinstance(formatter, ColourizedFormatter) and path != "-" and self.use_colors is None:
                formatter.use_colors = False
            if isinstance(handler, logging.FileHandler):
                tell_problems_once(handler)

    def _apply_log_config(self) -> bool:
        """Did it name uvicorn's loggers?"""
        source = self.log_config
        import logging.config

        if isinstance(source, os.PathLike):
            source = self.log_config = os.fspath(source)
        if isinstance(source, str) and source.endswith(".json"):
            import json

            with open(source, encoding="utf-8") as file:
                source = json.load(file)
        elif isinstance(source, str) and source.endswith((".yaml", ".yml")):
            source = _read_yaml(source)
        if isinstance(source, dict):
            shim = sys.modules.get("capicorn.uvicorn_names")
            own, renamed = own_names(source, theirs_first=shim is not None and shim.active())
            for name in ("default", "access") if self.use_colors is not None else ():
                formatter = own.get("formatters", {}).get(name)
                if isinstance(formatter, dict):
                    formatter["use_colors"] = self.use_colors
            logging.config.dictConfig(own)
            return renamed
        import configparser

        if isinstance(source, str):
            if not os.path.exists(source):
                raise FileNotFoundError(f"log_config: there is no file {source}")
            parser = configparser.ConfigParser()
            parser.read(source, encoding="utf-8")
            source = parser
        renamed = isinstance(source, configparser.RawConfigParser) and own_names_ini(source)
        logging.config.fileConfig(source, disable_existing_loggers=False)  # type: ignore[arg-type]
        return renamed

    # ---- the application

    def load_app(self) -> Any:
        """The object that `app` names. Exits with code 3 when it does not exist; an error inside the application's
        module comes through."""
        try:
            return import_from_string(self.app)
        except ImportFromStringError as exc:
            logger.error("Error loading ASGI app. %s", exc)
            sys.exit(STARTUP_FAILURE)

    def load(self) -> None:
        """Load the application and settle which interface it has. Once; `loaded` and `loaded_app` tell afterwards."""
        if self.loaded:
            raise RuntimeError("this Config is loaded already")
        if reason := self.refused():
            raise UnsupportedSettingError(reason)
        self._explain()
        self.ssl = self._make_ssl()
        if self.server_header and not any(name == b"server" for name, _ in self.encoded_headers):
            self.encoded_headers = [(b"server", b"capicorn"), *self.encoded_headers]
        app = self._made_by_factory(self.load_app())
        if self.interface == "auto":
            self.interface = "asgi3" if _is_asgi3(app) else "asgi2"
        if self.interface == "wsgi":
            from capicorn.middleware.wsgi import WSGIMiddleware

            app = WSGIMiddleware(app)
        elif self.interface == "asgi2":
            from capicorn.middleware.asgi2 import ASGI2Middleware

            app = ASGI2Middleware(app)
        if logger.getEffectiveLevel() <= TRACE_LOG_LEVEL:
            from capicorn.middleware.message_logger import MessageLoggerMiddleware

            app = MessageLoggerMiddleware(app)
        self.loaded_app = app
        self.loaded = True

    def _make_ssl(self) -> Any:
        """uvicorn's attribute `ssl`: the SSLContext, or None. Exits with a message when it cannot be made."""
        if not self.is_ssl:
            return None
        from capicorn.tls import TLSConfigError, make_context

        try:
            return make_context(self)
        except TLSConfigError as exc:
            logger.error("TLS: %s.", exc)
            sys.exit(STARTUP_FAILURE)

    def _made_by_factory(self, app: Any) -> Any:
        """uvicorn's rule: what can be called without an argument is a factory."""
        if not callable(app) or (not self.factory and _wants_arguments(app)):
            return app
        try:
            made = app()
        except TypeError as exc:
            if not self.factory:
                return app
            if not _wants_arguments(app):
                raise  # the factory's own error
            logger.error("Error loading ASGI app factory: %s", exc)
            sys.exit(STARTUP_FAILURE)
        if not self.factory:
            logger.warning(
                "ASGI app factory detected. Using it, but please consider setting the --factory flag explicitly."
            )
        return made

    def _explain(self) -> None:
        """Say what becomes of names of implementations that are not ours."""
        if self.http != "auto":
            logger.debug("http=%r: Capicorn has one HTTP implementation, which is used.", self.http)
        if self.ws not in ("auto", "none"):
            logger.debug("ws=%r: Capicorn has one WebSocket implementation, which is used.", self.ws)
        if self.h11_max_incomplete_event_size is not None:
            logger.debug(
                "h11_max_incomplete_event_size=%d: taken as limit_request_head and limit_request_line.",
                self.h11_max_incomplete_event_size,
            )

    # ---- loop and socket

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """What makes the event loop; None stands for asyncio's own choice. Exits with code 3 for a wrong name."""
        if self.loop == "none":
            return None
        if self.loop == "auto":
            from capicorn.loop import Loop

            loop: Callable[[], asyncio.AbstractEventLoop] = Loop
            return loop
        if self.loop == "asyncio":
            import asyncio

            return asyncio.SelectorEventLoop
        found: Callable[[], asyncio.AbstractEventLoop]
        named = f"{self.loop}:new_event_loop" if self.loop in ("uvloop", "zuvloop") else self.loop
        try:
            found = import_from_string(named)
        except ImportFromStringError as exc:
            logger.error("Error loading custom loop setup function. %s", exc)
            sys.exit(STARTUP_FAILURE)
        return found

    # uvicorn's protocol classes, which others derive from or put their own in the place of.

    @property
    def http_protocol_class(self) -> NoReturn:
        raise AttributeError(_IN_C.format("http_protocol_class"))

    @http_protocol_class.setter
    def http_protocol_class(self, value: Any) -> NoReturn:
        raise AttributeError(_IN_C.format("http_protocol_class"))

    @property
    def ws_protocol_class(self) -> None:
        """None with `ws="none"`, as in uvicorn. Otherwise AttributeError."""
        if self.ws != "none":
            raise AttributeError(_IN_C.format("ws_protocol_class"))

    @ws_protocol_class.setter
    def ws_protocol_class(self, value: Any) -> NoReturn:
        raise AttributeError(_IN_C.format("ws_protocol_class"))

    def setup_event_loop(self) -> NoReturn:
        raise AttributeError("Config.setup_event_loop() is gone, in uvicorn as here; use Config.get_loop_factory().")

    def bind_unix(self, path: str) -> socket.socket:
        """A bound Unix socket with the permissions and the owner that the settings give its file. Raises OSError."""
        from capicorn.supervisors.process import umask_of, user_and_group

        mode = self.uds_mode
        if mode is None and self.umask is not None:
            mode = 0o666 & ~umask_of(self.umask)
        return listeners.bind_unix(path, mode, user_and_group(self))

    def bind_sockets(self) -> list[socket.socket]:
        """A bound socket for every address, not yet listening. Raises OSError."""
        self.check_names()
        found: list[socket.socket] = []
        try:
            for host, port, uds, fd in self.addresses or [(self.host, self.port, self.uds, self.fd)]:
                if uds is not None:
                    found.append(self.bind_unix(uds))
                elif fd is not None:
                    found.append(listeners.from_descriptor(fd))
                else:
                    found.extend(listeners.bind_all(host, port))
        except BaseException:
            for sock in found:
                sock.close()
            raise
        return found

    def check_names(self) -> None:
        """Raises OSError when systemd's sockets are asked for by name where none are looked for: with reload, and
        inside other programs."""
        if self.socket_names and not self.inherited:
            name = self.socket_names[0]
            raise OSError(errno.ENOENT, f"bind: systemd:{name}: a server of this kind takes no sockets from systemd")

    def log_running_all(self, sockets: list[socket.socket]) -> None:
        """The line for each address (not for each socket: a name may stand for several)."""
        if len(self.addresses) < 2 and not self.inherited:
            self.log_running(sockets[0])
            return
        for sock in sockets:
            self.log_running(sock, sock.getsockname())

    def bind_socket(self) -> socket.socket:
        """The bound socket for child processes, not yet listening; says where. Exits with code 3 when that fails."""
        try:
            self.check_names()
            if self.uds is not None:
                sock = self.bind_unix(self.uds)
            elif self.fd is not None:
                sock = listeners.from_descriptor(self.fd)
            else:
                sock = listeners.bind_first(self.host, self.port)
        except OSError as exc:
            logger.error(exc)
            sys.exit(STARTUP_FAILURE)
        self.log_running(sock)
        sock.set_inheritable(True)
        return sock

    def log_running(self, sock: socket.socket, name: Any = None) -> None:
        """The line that says where the server listens; tools and people read the port from it. `name`: its address,
        when there are several."""
        tail = " (Press CTRL+C to quit)"
        if self.uds is not None if name is None else isinstance(name, (str, bytes)):
            where, args = "%s", (listeners.unix_name(name or self.uds or ""),)
            what = "Capicorn running on unix socket "
        elif self.fd is not None and name is None:
            where, args = "%s", (sock.getsockname(),)
            what = "Capicorn running on socket "
        elif name is not None:
            where = "%s://[%s]:%d" if ":" in name[0] else "%s://%s:%d"
            args = ("https" if self.is_ssl else "http", name[0], name[1])  # type: ignore[assignment]
            what = "Capicorn running on "
        else:
            host = self.host or "0.0.0.0"
            where = "%s://[%s]:%d" if ":" in host else "%s://%s:%d"
            args = ("https" if self.is_ssl else "http", host, self.port or sock.getsockname()[1])  # type: ignore[assignment]
            what = "Capicorn running on "
        logger.info(what + where + tail, *args, extra={"color_message": what + style(where, bold=True) + tail})


class UvicornDeprecationWarning(UserWarning):
    """Never issued here; filters of warnings name it."""


def create_ssl_context(
    certfile: str | os.PathLike[str],
    keyfile: str | os.PathLike[str] | None,
    password: str | None,
    ssl_version: int,
    cert_reqs: int,
    ca_certs: str | os.PathLike[str] | None,
    ciphers: str | None,
    alpn_protocols: list[str] | None = None,
) -> ssl.SSLContext:
    """The ssl.SSLContext of a server, as uvicorn's function of that name makes it. Raises ssl.SSLError and OSError."""
    import ssl

    context = ssl.SSLContext(ssl_version)
    context.load_cert_chain(certfile, keyfile, password or None)
    context.verify_mode = ssl.VerifyMode(cert_reqs)
    if ca_certs:
        context.load_verify_locations(ca_certs)
    if ciphers:
        context.set_ciphers(ciphers)
    if alpn_protocols:
        context.set_alpn_protocols(alpn_protocols)
    return context


# ---- arguments


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All settings of Config by name, checked."""
    if len(args) > len(POSITIONAL):
        raise TypeError(f"Config() takes at most {len(POSITIONAL) + 1} positional arguments")
    for name, value in zip(POSITIONAL, args, strict=False):
        if name in kwargs:
            raise TypeError(f"Config() got multiple values for argument {name!r}")
        kwargs[name] = value
    values = {setting.name: setting.default for setting in SETTINGS if setting.scope != "run"}
    values["log_config"] = LOGGING_CONFIG
    for name, value in kwargs.items():
        if name not in values:
            raise TypeError(f"Config() got an unexpected keyword argument {name!r}")
        if problem := BY_NAME[name].problem(value):
            raise ValueError(f"{name}: {problem}")
        values[name] = value
    for name, known in (("http", HTTP_IMPLEMENTATIONS), ("ws", WS_IMPLEMENTATIONS)):
        if values[name] not in known:
            raise ValueError(f"{name}: {values[name]!r} is not one of {', '.join(known)}")
    level = values["log_level"]
    if isinstance(level, str) and level.lower() not in LOG_LEVELS:
        raise ValueError(f"log_level: {level!r} is not one of {', '.join(LOG_LEVELS)}")
    return values


def _signature() -> inspect.Signature:
    """Of Config, in uvicorn's order, then ours: people read it to know which arguments there are."""
    own = [setting.name for setting in SETTINGS if setting.scope != "run" and setting.name not in POSITIONAL]
    parameter = inspect.Parameter
    rows = [parameter("self", parameter.POSITIONAL_OR_KEYWORD), parameter("app", parameter.POSITIONAL_OR_KEYWORD)]
    for names, kind in ((POSITIONAL, parameter.POSITIONAL_OR_KEYWORD), (own, parameter.KEYWORD_ONLY)):
        for name in names:
            default = LOGGING_CONFIG if name == "log_config" else BY_NAME[name].default
            rows.append(parameter(name, kind, default=default, annotation=BY_NAME[name].annotation))
    return inspect.Signature(rows)


Config.__init__.__signature__ = _signature()  # type: ignore[attr-defined]


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [os.fspath(value)] if isinstance(value, (str, os.PathLike)) else [os.fspath(item) for item in value]


_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")  # RFC 9110 5.6.2


def _encoded_headers(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    encoded = []
    for name, value in headers:
        name, value = name.strip(" \t").lower(), value.strip(" \t")
        if not name or not _TOKEN.issuperset(name):
            raise ValueError(f"headers: {name!r} is not the name of a header field")
        try:
            octets = value.encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError(f"headers: the value of {name} has characters beyond Latin-1") from None
        if any((octet < 32 and octet != 9) or octet == 127 for octet in octets):
            raise ValueError(f"headers: the value of {name} has a control character")
        encoded.append((name.encode("ascii"), octets))
    return encoded


def _permissions(value: int | str | None) -> int | None:
    """A number, or the octal digits of one."""
    try:
        mode = int(value.removeprefix("0o"), 8) if isinstance(value, str) else value
    except ValueError:
        mode = -1
    if mode is not None and not 0 <= mode <= 0o777:
        raise ValueError(f"uds_permissions: {value!r} is not a number of octal digits up to 777")
    return mode


def _web_concurrency(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    most = BY_NAME["workers"].maximum
    if not 0 <= number <= most:
        raise ValueError(f"WEB_CONCURRENCY: {text!r} is not a number of workers (0 to {most:.0f})")
    return number or 1


def _load_env_file(path: Any) -> None:
    try:
        from dotenv import load_dotenv
    except ImportError:
        raise ModuleNotFoundError(
            "env_file needs python-dotenv, which is not installed: pip install 'capicorn[standard]'", name="dotenv"
        ) from None
    logger.info("Loading environment from '%s'", path)
    load_dotenv(dotenv_path=path)


def _read_yaml(path: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ModuleNotFoundError(
            "log_config in YAML needs PyYAML, which is not installed: pip install 'capicorn[standard]'", name="yaml"
        ) from None
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def _is_asgi3(app: Any) -> bool:
    """One callable that is a coroutine function (ASGI 3), rather than one that returns another (ASGI 2)."""
    if inspect.isclass(app):
        return hasattr(app, "__await__")
    if inspect.isfunction(app):
        return inspect.iscoroutinefunction(_marked(app))
    return inspect.iscoroutinefunction(_marked(getattr(app, "__call__", None)))  # noqa: B004


def _marked(function: Any) -> Any:
    """What asyncio.coroutine-like markers are on counts as a coroutine function: asgiref sets asyncio's."""
    import asyncio.coroutines

    mark = getattr(asyncio.coroutines, "_is_coroutine", None)
    if mark is not None and getattr(function, "_is_coroutine", None) is mark:
        return _coroutine_function
    return function


async def _coroutine_function() -> None: ...


def _wants_arguments(app: Any) -> bool:
    """Is it sure that `app()` raises TypeError? Then it need not be called to know that it is no factory."""
    try:
        inspect.signature(app).bind()
    except TypeError:
        return True
    except ValueError:
        return False
    return False


def _check_health(bind: str | None, path: str | None) -> None:
    """ValueError when health checks cannot be answered so."""
    if path is not None and not (path.startswith("/") and path.isascii() and path.isprintable() and len(path) < 256):
        raise ValueError(f"health_path: {path!r} is no path; it should begin with / and be plain ASCII.")
    if bind is not None:
        from capicorn.guard import health_address

        health_address(bind)
