"""Every setting, once.

One row of `SETTINGS` is a flag of the command line, its environment variables, a keyword argument of `Config` and
`run()`, and a line of the README's table. Nothing here imports the server:

    python -m capicorn.settings --markdown    the table of the README
    python -m capicorn.settings --typed       python/capicorn/_arguments.py
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

ENV_PREFIXES = ("CAPICORN_", "UVICORN_")
"""Of the environment variables that stand for a flag; the first that is set wins."""

LOOPS = ("none", "auto", "asyncio", "uvloop", "zuvloop")
HTTP_IMPLEMENTATIONS = ("auto", "h11", "httptools", "zttp")
WS_IMPLEMENTATIONS = ("auto", "none", "websockets", "websockets-sansio", "wsproto")
LIFESPANS = ("auto", "on", "off")
INTERFACES = ("auto", "asgi3", "asgi2", "wsgi")
WORKER_STARTS = ("fork", "spawn")
LEVELS = ("critical", "error", "warning", "info", "debug", "trace")

Kind = Literal["str", "int", "float", "bool", "flag", "switch", "path", "object"]


class UnsupportedSettingError(ValueError):
    """A setting whose feature is not in this release."""


class Setting(NamedTuple):
    """One row. `name` is the keyword argument; the environment variables are made from it."""

    name: str
    flags: tuple[str, ...]
    """Spellings on the command line, the main one first; empty: programs only."""
    kind: Kind
    default: Any
    help: str
    group: str
    type: str = ""
    """The keyword argument's type as Python source; "": that of `kind`."""
    choices: tuple[str, ...] = ()
    """The values that exist; with `open` the ones that are told, since any import string will do."""
    open: bool = False
    metavar: str = ""
    multiple: bool = False
    minimum: float = -math.inf
    maximum: float = math.inf
    scope: Literal["all", "run", "program"] = "all"
    """all: Config and run(); run: run() alone, as it is about the process; program: no flag."""
    core: str = ""
    """The argument of `_core.HTTPServer` that takes this value (None becomes 0); "": Python alone uses it."""
    missing: str = ""
    """What this release cannot do, if the value is other than the default or those of `without`."""
    without: tuple[Any, ...] = ()

    @property
    def annotation(self) -> str:
        if self.type:
            return self.type
        base = {"flag": "bool", "switch": "bool", "path": "str | os.PathLike[str]", "object": "Any"}.get(
            self.kind, self.kind
        )
        return f"{base} | None" if self.default is None else base

    @property
    def env(self) -> tuple[str, ...]:
        """The environment variables, strongest first; none for what has no flag."""
        return tuple(prefix + self.name.upper() for prefix in ENV_PREFIXES) if self.flags else ()

    def refuse(self, value: Any, spelled: str = "") -> str:
        """Why this value cannot be served in this release; "" when it can."""
        if not self.missing or value == self.default or value in self.without or value is None:
            return ""
        return f"{spelled or self.name}: {self.missing} not in this release of Capicorn."

    def problem(self, value: Any) -> str:
        """What is wrong with a value of the right type; "" when nothing is."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if math.isnan(value) or not self.minimum <= value <= self.maximum:
                bounds = f"{self.minimum:g}" + (" or more" if self.maximum == math.inf else f" to {self.maximum:.0f}")
                return f"{value} is not {bounds}"
        if self.choices and not self.open and isinstance(value, str) and value not in self.choices:
            return f"{value!r} is not one of {', '.join(self.choices)}"
        return ""


# fmt: off
SETTINGS: tuple[Setting, ...] = (
    # ---- where
    Setting("host", ("--host",), "str", "127.0.0.1", "Address or name to listen on.", "Binding", "str | None"),
    Setting("port", ("--port",), "int", 8000, "Port to listen on; 0 takes a free one.", "Binding", minimum=0,
            maximum=65535),
    Setting("uds", ("--uds",), "str", None, "Listen on this Unix domain socket; @NAME is an abstract one.", "Binding"),
    Setting("uds_permissions", ("--uds-permissions",), "str", None,
            "Permissions of that socket's file, as 660; by default those of the file that was there, else 666 without"
            " the bits of --umask. User and group are those of --user and --group.", "Binding",
            type="int | str | None", metavar="OCTAL"),
    Setting("fd", ("--fd",), "int", None, "Listen on this inherited descriptor.", "Binding", minimum=0),
    Setting("bind", ("--bind", "-b"), "str", None,
            "HOST:PORT, unix:PATH, unix:@NAME or fd://NUMBER in place of the flags above, as gunicorn spells it; or"
            " systemd:NAME, a socket of socket activation with this FileDescriptorName. May be repeated.",
            "Binding", type="list[str] | str | None", multiple=True, metavar="ADDRESS"),
    Setting("backlog", ("--backlog",), "int", 2048, "Connections that may wait for accept().", "Binding", minimum=0),
    # ---- the application
    Setting("app_dir", ("--app-dir",), "str", "",
            "Folder in which APP is looked up, put in front of sys.path; the current one by default.", "Application",
            type="str | None", scope="run"),
    Setting("factory", ("--factory",), "flag", False, "APP is a callable that returns the application.",
            "Application"),
    Setting("interface", ("--interface",), "str", "auto", "What kind of application APP is.", "Application",
            choices=INTERFACES),
    Setting("lifespan", ("--lifespan",), "str", "auto",
            "Lifespan events; auto serves also an application that does not know them.", "Application",
            choices=LIFESPANS),
    Setting("root_path", ("--root-path",), "str", "", "Prefix under which a proxy mounts the app.", "Application",
            core="root_path"),
    Setting("env_file", ("--env-file",), "path", None, "File of variables set before APP is imported.",
            "Application"),
    Setting("reset_contextvars", ("--reset-contextvars",), "flag", False,
            "Begin each request with no context variable set.", "Application", core="reset_contextvars"),
    # ---- reload
    Setting("reload", ("--reload",), "flag", False, "Start anew when a file changes; for development.", "Reload"),
    Setting("reload_dirs", ("--reload-dir",), "path", None,
            "Watch this folder and not the current one. May be repeated.", "Reload", type="list[str] | str | None",
            multiple=True),
    Setting("reload_includes", ("--reload-include",), "str", None,
            "Glob of files to watch beside *.py; needs watchfiles. May be repeated.", "Reload",
            type="list[str] | str | None", multiple=True),
    Setting("reload_excludes", ("--reload-exclude",), "str", None,
            "Glob of files or folder not to watch beside .*, .py[cod], .sw.*, ~*; needs watchfiles. May be repeated.",
            "Reload", type="list[str] | str | None", multiple=True),
    Setting("reload_delay", ("--reload-delay",), "float", 0.25, "Seconds between two looks.", "Reload", minimum=0),
    # ---- processes and implementations
    Setting("workers", ("--workers", "-w"), "int", None, "Number of worker processes; $WEB_CONCURRENCY, else 1.",
            "Workers", minimum=0, maximum=512),
    Setting("worker_start", ("--worker-start",), "str", "fork",
            "How a worker comes to be: forked from the parent process, or an interpreter of its own.", "Workers",
            choices=WORKER_STARTS),
    Setting("preload", ("--preload",), "flag", False,
            "Load the application before the workers are forked: they share its memory. After SIGHUP each loads it"
            " itself, and none is shared; after SIGUSR2 it is again.", "Workers"),
    Setting("threads", ("--threads",), "int", None,
            "Threads for synchronous work: `def` endpoints (AnyIO's limiter) and run_in_executor(None, ...); their"
            " own numbers when not given.", "Workers", minimum=1),
    Setting("native_threads", ("--native-threads", "--no-native-threads"), "switch", True,
            "Run them in threads of Capicorn's own, which a call reaches in less time than AnyIO's and those of the"
            " standard library's executor; not in another event loop.", "Workers"),
    Setting("gc_freeze", ("--gc-freeze", "--no-gc-freeze"), "switch", True,
            "Leave what exists when the application has started out of later garbage collections (gc.freeze), which"
            " makes them short. Only of the command and run().", "Workers"),
    Setting("timeout", ("--timeout", "-t"), "float", 0.0,
            "Seconds for which a worker's event loop may stand still before the worker is killed and replaced; 0:"
            " for ever. Importing and the application's start do not count.", "Workers", minimum=0),
    Setting("block_warn", ("--block-warn",), "float", 1.0,
            "Seconds after which a callback that keeps the event loop from turning is logged, with its request and"
            " its stack; 0: not looked for.", "Workers", minimum=0),
    Setting("rescue", ("--rescue", "--no-rescue"), "switch", True,
            "While a worker's event loop is blocked, idle connections whose next request arrives are served by another"
            " worker; with several workers, and not for TLS.", "Workers"),
    Setting("health_bind", ("--health-bind",), "str", None,
            "HOST:PORT where health checks are answered by a thread of its own, also while the event loop is blocked.",
            "Workers", metavar="ADDRESS"),
    Setting("health_path", ("--health-path",), "str", None,
            "GET and HEAD of this path on the server's own port are health checks too, answered without the app,"
            " also while the event loop is blocked (not so over TLS), and not in the access log. 200: a worker serves,"
            " 503: none does. With --health-bind alone it is /healthz there.", "Workers", metavar="PATH"),
    Setting("metrics_bind", ("--metrics", "--metrics-bind"), "str", None,
            "HOST:PORT or unix:PATH where Prometheus reads /metrics: one address for all workers.", "Workers",
            metavar="ADDRESS"),
    Setting("max_worker_memory", ("--max-worker-memory",), "int", None,
            "MiB of resident memory above which a worker is replaced.", "Workers", minimum=1),
    Setting("worker_class", ("--worker-class", "-k"), "str", None,
            "gunicorn's; there is one class of workers, whatever is given.", "Workers", scope="run"),
    Setting("config_file", ("--config", "-c"), "str", None,
            "Settings and hooks from this Python file (PATH, file:PATH or python:MODULE), by our names or gunicorn's;"
            " flags and variables are stronger.", "Process", scope="run", metavar="CONFIG"),
    Setting("daemon", ("--daemon", "-D"), "flag", False,
            "Go on in the background once the application has started.", "Process"),
    Setting("pidfile", ("--pid", "-p", "--pidfile"), "str", None, "Write the number of the process into this file.",
            "Process", metavar="PATH"),
    Setting("user", ("--user", "-u"), "str", None, "User, by name or number, under which the workers run.", "Process"),
    Setting("group", ("--group", "-g"), "str", None, "Their group.", "Process"),
    Setting("umask", ("--umask", "-m"), "str", None, "Mode bits that new files do not get, as 022.", "Process"),
    Setting("chdir", ("--chdir",), "str", None, "Go to this folder first.", "Process", metavar="PATH"),
    Setting("proc_name", ("--proc-name", "-n", "--name"), "str", None,
            "Name of the processes, as ps shows them when setproctitle is installed.", "Process"),
    Setting("hooks", (), "object", None, "Functions by gunicorn's names for them, as post_fork.", "Process",
            type="dict[str, Callable[..., Any]] | None", scope="program"),
    Setting("loop", ("--loop",), "str", "auto", "Event loop: auto is capicorn.Loop; or module:factory.", "Process",
            choices=LOOPS, open=True),
    Setting("http", ("--http",), "str", "auto",
            "There is one HTTP implementation; uvicorn's names for others are taken for it.", "Process", type="Any",
            choices=HTTP_IMPLEMENTATIONS),
    Setting("http2", ("--http2",), "flag", False, "HTTP/2.", "Process", missing="HTTP/2 is"),
    # ---- WebSocket
    Setting("ws", ("--ws",), "str", "auto", "There is one WebSocket implementation; none turns it off.", "WebSocket",
            type="Any", choices=WS_IMPLEMENTATIONS),
    Setting("ws_max_size", ("--ws-max-size",), "int", 16 * 1024 * 1024, "Octets of the longest message.", "WebSocket",
            minimum=0, core="ws_max_size"),
    Setting("ws_max_queue", ("--ws-max-queue",), "int", 32,
            "Messages that may wait for the application before reading stops.", "WebSocket", minimum=0,
            core="ws_max_queue"),
    Setting("ws_ping_interval", ("--ws-ping-interval",), "float", 20.0, "Seconds between pings.", "WebSocket",
            type="float | None", minimum=0, core="ws_ping_interval"),
    Setting("ws_ping_timeout", ("--ws-ping-timeout",), "float", 20.0, "Seconds to wait for a pong.", "WebSocket",
            type="float | None", minimum=0, core="ws_ping_timeout"),
    Setting("ws_per_message_deflate", ("--ws-per-message-deflate",), "bool", True, "Offer compression of messages.",
            "WebSocket", core="ws_per_message_deflate"),
    # ---- logs
    Setting("log_config", ("--log-config",), "path", None,
            "Logging configuration: .json, .yaml, .yml, else the format of logging.config.fileConfig.", "Logs",
            type="dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None"),
    Setting("log_level", ("--log-level",), "str", None, "Level of the server's loggers; info when not given.", "Logs",
            type="str | int | None", choices=LEVELS, open=True),
    Setting("access_log", ("--access-log", "--no-access-log"), "switch", True, "A line for each response.", "Logs"),
    Setting("access_log_format", ("--access-log-format",), "str", None,
            'Format of that line in gunicorn\'s atoms, as \'%(h)s "%(r)s" %(s)s %(b)s %(D)s\'.', "Logs"),
    Setting("access_log_json", ("--access-log-json",), "flag", False, "Write that line as a JSON object.", "Logs"),
    Setting("access_log_exclude", ("--access-log-exclude",), "str", None,
            "Path without a line; with a * at its end all that begin so. May be repeated.", "Logs",
            type="list[str] | str | None", multiple=True),
    Setting("access_logfile", ("--access-logfile",), "str", None, "Write those lines to this file; - is stdout.",
            "Logs", metavar="PATH"),
    Setting("error_logfile", ("--error-logfile", "--log-file"), "str", None,
            "Write the server's own lines to this file; - is stderr. SIGUSR1 opens the files anew.", "Logs",
            metavar="PATH"),
    Setting("use_colors", ("--use-colors", "--no-use-colors"), "switch", None,
            "Colours in the logs; by default when a terminal shows them.", "Logs"),
    # ---- headers
    Setting("proxy_headers", ("--proxy-headers", "--no-proxy-headers"), "switch", True,
            "Take client and scheme from X-Forwarded-For and -Proto, or Forwarded, of trusted proxies.", "Headers"),
    Setting("forwarded_header", ("--forwarded-header",), "str", "auto",
            "Which of them the proxies set: auto reads Forwarded (RFC 7239) when there is no X-Forwarded field. Proxies"
            " that set one kind should remove the other, or it has to be named here.", "Headers",
            choices=("auto", "x-forwarded", "forwarded")),
    Setting("forwarded_allow_ips", ("--forwarded-allow-ips",), "str", None,
            "Trusted proxies: addresses, networks, names, divided by commas; unix are Unix sockets, * is all."
            " $FORWARDED_ALLOW_IPS, else 127.0.0.1,::1.",
            "Headers", type="list[str] | str | None"),
    Setting("proxy_protocol", ("--proxy-protocol",), "flag", False,
            "Connections from --proxy-allow-from begin with a PROXY header, version 1 or 2, that tells the client.",
            "Headers"),
    Setting("proxy_allow_from", ("--proxy-allow-from",), "str", "127.0.0.1,::1,unix",
            "Whose PROXY headers are believed, and demanded: addresses and networks, divided by commas; unix are Unix"
            " sockets, * is all.", "Headers", type="list[str] | str"),
    Setting("server_header", ("--server-header", "--no-server-header"), "switch", True, "Send `server: capicorn`.",
            "Headers"),
    Setting("date_header", ("--date-header", "--no-date-header"), "switch", True, "Send the date.", "Headers",
            core="date_header"),
    Setting("headers", ("--header",), "str", None,
            "NAME:VALUE that each response gets, unless the application sets it. May be repeated.", "Headers",
            type="list[tuple[str, str]] | None", multiple=True, metavar="TEXT"),
    # ---- limits
    Setting("limit_concurrency", ("--limit-concurrency",), "int", None,
            "Requests in flight; what comes beyond them gets 503.", "Limits", minimum=0, core="limit_concurrency"),
    Setting("limit_max_requests", ("--limit-max-requests", "--max-requests"), "int", None,
            "Requests after which the process ends.", "Limits", minimum=0),
    Setting("limit_max_requests_jitter", ("--limit-max-requests-jitter", "--max-requests-jitter"), "int", 0,
            "A random number up to this is added to it.", "Limits", minimum=0),
    Setting("limit_request_line", ("--limit-request-line",), "int", 16384,
            "Octets of the request line (414); 0: no limit of its own.", "Limits", minimum=0,
            core="limit_request_line"),
    Setting("limit_request_head", ("--limit-request-head",), "int", 65536,
            "Octets of request line and fields together (431).", "Limits", minimum=0, core="limit_request_head"),
    Setting("limit_request_fields", ("--limit-request-fields",), "int", 128, "Number of fields (431).", "Limits",
            minimum=0, core="limit_request_fields"),
    Setting("limit_request_field_size", ("--limit-request-field-size",), "int", 0,
            "Octets of one field (431); 0: what the head allows.", "Limits", minimum=0,
            core="limit_request_field_size"),
    Setting("limit_request_body", ("--limit-request-body",), "int", 0, "Octets of content (413); 0: no limit.",
            "Limits", minimum=0, core="limit_request_body"),
    Setting("h11_max_incomplete_event_size", ("--h11-max-incomplete-event-size",), "int", None,
            "uvicorn's name for the octets of a request's head: sets --limit-request-head and --limit-request-line.",
            "Limits", minimum=0),
    # ---- timeouts, in seconds
    Setting("timeout_keep_alive", ("--timeout-keep-alive", "--keep-alive"), "float", 5,
            "Seconds that an idle connection stays open after a response.", "Timeouts", minimum=0,
            core="timeout_keep_alive"),
    Setting("timeout_first_byte", ("--timeout-first-byte",), "float", 30.0,
            "Seconds to the first octet of a new connection, with its TLS handshake; 0: no limit.", "Timeouts",
            minimum=0, core="timeout_first_byte"),
    Setting("timeout_request_head", ("--timeout-request-head",), "float", 30.0,
            "Seconds from a request's first octet to the end of its fields (408); 0: no limit.", "Timeouts",
            minimum=0, core="timeout_request_head"),
    Setting("timeout_request_body", ("--timeout-request-body",), "float", 30.0,
            "Seconds without progress of the content (408); 0: no limit.", "Timeouts", minimum=0,
            core="timeout_request_body"),
    Setting("timeout_send", ("--timeout-send",), "float", 60.0,
            "Seconds in which a client takes nothing of a response; 0: no limit.", "Timeouts", minimum=0,
            core="timeout_send"),
    Setting("timeout_request", ("--timeout-request",), "float", 0.0,
            "Seconds for a whole request (504); 0: no limit.", "Timeouts", minimum=0, core="timeout_request"),
    Setting("timeout_shutdown_idle", ("--timeout-shutdown-idle",), "float", 0.5,
            "Seconds at shutdown in which a request that is on its way on an idle connection is still answered.",
            "Timeouts", minimum=0),
    Setting("timeout_shutdown_streams", ("--timeout-shutdown-streams",), "float", 3.0,
            "Seconds at shutdown after which receive() of requests that still run gives http.disconnect;"
            " at most half of --timeout-graceful-shutdown.",
            "Timeouts", minimum=0),
    Setting("timeout_graceful_shutdown", ("--timeout-graceful-shutdown", "--graceful-timeout"), "float", 30,
            "Seconds at shutdown after which requests that still run are cancelled; with --reload 3 in place of 30.",
            "Timeouts", type="float | None", minimum=0),
    Setting("timeout_worker_healthcheck", ("--timeout-worker-healthcheck",), "int", 5,
            "uvicorn's; has no effect here, where --timeout watches the workers.", "Timeouts", minimum=0),
    Setting("timeout_notify", (), "int", 30, "Seconds between two calls of callback_notify.", "Timeouts",
            scope="program"),
    Setting("callback_notify", (), "object", None, "Coroutine function that is called while the server is alive.",
            "Timeouts", type="Callable[..., Awaitable[None]] | None", scope="program"),
    # ---- TLS
    Setting("ssl_keyfile", ("--ssl-keyfile",), "path", None, "Private key.", "TLS", metavar="TEXT"),
    Setting("ssl_certfile", ("--ssl-certfile",), "path", None, "Certificate chain.", "TLS",
            metavar="TEXT"),
    Setting("ssl_keyfile_password", ("--ssl-keyfile-password",), "str", None, "Password of the key.", "TLS"),
    Setting("ssl_version", ("--ssl-version",), "int", 17, "Protocol, as the ssl module numbers it.", "TLS"),
    Setting("ssl_cert_reqs", ("--ssl-cert-reqs",), "int", 0, "Client certificate: 0 none, 1 optional, 2 required.",
            "TLS"),
    Setting("ssl_ca_certs", ("--ssl-ca-certs",), "path", None, "Certificates to trust.", "TLS",
            metavar="TEXT"),
    Setting("ssl_ciphers", ("--ssl-ciphers",), "str", None, "Ciphers, as OpenSSL names them.", "TLS"),
    Setting("ssl_context_factory", (), "object", None,
            "Called with the Config and a default factory; returns the ssl.SSLContext.", "TLS",
            type="Callable[[Any, Callable[[], ssl.SSLContext]], ssl.SSLContext] | None", scope="program"),
)
# fmt: on

LATER: tuple[tuple[tuple[str, ...], bool, str], ...] = (
    (("--statsd-host",), True, "sending metrics to statsd is"),
    (("--reuse-port",), False, "SO_REUSEPORT is"),
)
"""gunicorn's flags that this release knows only to refuse: spellings, does a value follow, what is missing."""

BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}

POSITIONAL = (
    *("host", "port", "uds", "fd", "loop", "http", "http2", "ws", "ws_max_size", "ws_max_queue", "ws_ping_interval"),
    *("ws_ping_timeout", "ws_per_message_deflate", "lifespan", "env_file", "log_config", "log_level", "access_log"),
    *("use_colors", "interface", "reload", "reload_dirs", "reload_delay", "reload_includes", "reload_excludes"),
    *("workers", "proxy_headers", "server_header", "date_header", "forwarded_allow_ips", "root_path"),
    *("limit_concurrency", "limit_max_requests", "limit_max_requests_jitter", "backlog", "timeout_keep_alive"),
    *("timeout_notify", "timeout_graceful_shutdown", "timeout_worker_healthcheck", "callback_notify", "ssl_keyfile"),
    *("ssl_certfile", "ssl_keyfile_password", "ssl_version", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ciphers"),
    *("ssl_context_factory", "headers", "factory", "h11_max_incomplete_event_size", "reset_contextvars"),
)
"""The arguments of uvicorn's Config in its order, for callers that give them by position."""


def markdown() -> str:
    """The README's table of flags."""
    lines = []
    group = ""
    for setting in SETTINGS:
        if not setting.flags:
            continue
        if setting.group != group:
            group = setting.group
            lines += ["", f"**{group}**", "", "| Flag | Default | Meaning |", "|---|---|---|"]
        if setting.kind == "switch":
            flags = f"`{setting.flags[0]}` / `{setting.flags[1]}`"
        else:
            flags = ", ".join(f"`{flag}`" for flag in setting.flags)
        default = "" if setting.default in (None, "") or setting.kind == "flag" else f"`{setting.default}`"
        if setting.kind == "switch" and setting.default is not None:
            default = "on" if setting.default else "off"
        text = setting.help.replace("|", "\\|")
        if setting.choices:
            text += " One of " + ", ".join(f"`{choice}`" for choice in setting.choices)
            text += ", or an import string." if setting.name == "loop" else "."
        if setting.missing:
            text += " *(not yet)*"
        lines.append(f"| {flags} | {default} | {text} |")
    return "\n".join(lines).strip() + "\n"


def typed() -> str:
    """Source of _arguments.py: what type checkers and editors know of the keyword arguments."""
    rows = {scope: [s for s in SETTINGS if s.scope in scopes] for scope, scopes in _CLASSES.items()}
    out = [
        '"""Config\'s keyword arguments for type checkers; written by `python -m capicorn.settings --typed`."""',
        "",
        "from __future__ import annotations",
        "",
        "import os",
        "import ssl",
        "from collections.abc import Awaitable, Callable",
        "from configparser import RawConfigParser",
        "from typing import IO, Any, TypedDict",
    ]
    for name, settings in rows.items():
        base = "TypedDict" if name == "ConfigArguments" else "ConfigArguments"
        out += ["", "", f"class {name}({base}, total=False):"]
        out += [f"    {setting.name}: {setting.annotation}" for setting in settings]
    return "\n".join(out) + "\n"


_CLASSES: Mapping[str, tuple[str, ...]] = {"ConfigArguments": ("all", "program"), "RunArguments": ("run",)}


def _main(arguments: list[str]) -> int:
    parts = {"--markdown": markdown, "--typed": typed}
    if len(arguments) != 1 or arguments[0] not in parts:
        print("usage: python -m capicorn.settings --markdown | --typed", file=sys.stderr)
        return 2
    sys.stdout.write(parts[arguments[0]]())
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
