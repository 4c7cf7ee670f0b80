"""The servers: how each is started for a case, or why it cannot do it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .cases import Case
from .environment import Environment

# Seconds and connections, for the cases with many idle connections.
PATIENCE = 120
MANY = "8192"
QUIET = ["--no-access-log", "--log-level", "warning"]


class NotOffered(Exception):
    """The server does not have what the case is about."""


@dataclass(frozen=True)
class Server:
    """`needs` is the line of peers.txt; `command` gives the arguments for a case on a port of 127.0.0.1."""

    name: str
    title: str
    command: Callable[[Environment, Case, int], list[str]]
    needs: str = "base"
    floor: bool = False
    has_log: bool = True
    has_websocket: bool = True
    uses_capicorn: bool = False


def tls_files(env: Environment) -> tuple[str, str]:
    if env.certificate is None:
        raise NotOffered("no certificate: there is no openssl command")
    if not env.load_has_tls:
        raise NotOffered("the load program was built without OpenSSL")
    return str(env.certificate[0]), str(env.certificate[1])


def uvicorn_like(program: list[str], env: Environment, case: Case, port: int, *more: str) -> list[str]:
    tls = []
    if case.tls:
        cert, key = tls_files(env)
        tls = ["--ssl-certfile", cert, "--ssl-keyfile", key]
    idle = ["--timeout-keep-alive", str(PATIENCE)] if case.kind.startswith("idle") else []
    return [
        *program,
        case.app,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        str(case.workers),
        *more,
        *tls,
        *idle,
        *([] if case.access_log else QUIET),
    ]


def capicorn(env: Environment, case: Case, port: int) -> list[str]:
    return uvicorn_like([str(env.python), "-m", "capicorn"], env, case, port)


def uvicorn(env: Environment, case: Case, port: int) -> list[str]:
    return uvicorn_like([env.program("uvicorn")], env, case, port, "--http", "httptools", "--loop", "uvloop")


def uvicorn_zttp(env: Environment, case: Case, port: int) -> list[str]:
    return uvicorn_like([env.program("uvicorn")], env, case, port, "--http", "zttp", "--loop", "zuvloop")


def granian(env: Environment, case: Case, port: int) -> list[str]:
    tls = []
    if case.tls:
        cert, key = tls_files(env)
        tls = ["--ssl-certificate", cert, "--ssl-keyfile", key]
    idle = ["--backlog", MANY, "--backpressure", MANY] if case.kind.startswith("idle") else []
    return [
        env.program("granian"),
        case.app,
        "--interface",
        "asgi",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        str(case.workers),
        "--loop",
        "uvloop",
        *tls,
        *idle,
        *(["--access-log"] if case.access_log else ["--no-access-log", "--log-level", "warning"]),
    ]


def bound(program: str, env: Environment, case: Case, port: int, *more: str) -> list[str]:
    """gunicorn and hypercorn."""
    tls = []
    if case.tls:
        cert, key = tls_files(env)
        tls = ["--certfile", cert, "--keyfile", key]
    idle = ["--keep-alive", str(PATIENCE), "--backlog", MANY] if case.kind.startswith("idle") else []
    idle += ["--worker-connections", MANY] if idle and program == "gunicorn" else []
    return [
        env.program(program),
        case.app,
        "-b",
        f"127.0.0.1:{port}",
        "-w",
        str(case.workers),
        *more,
        *tls,
        *idle,
        *(["--access-logfile", "-"] if case.access_log else ["--log-level", "warning"]),
    ]


def hypercorn(env: Environment, case: Case, port: int) -> list[str]:
    return bound("hypercorn", env, case, port, "-k", "uvloop")


def gunicorn(env: Environment, case: Case, port: int) -> list[str]:
    # A stopped worker must not be taken for a dead one.
    return bound("gunicorn", env, case, port, "-k", "asgi", "--no-control-socket", "--timeout", "600")


def gunicorn_uvicorn(env: Environment, case: Case, port: int) -> list[str]:
    return bound(
        "gunicorn", env, case, port, "-k", "uvicorn_worker.UvicornWorker", "--no-control-socket", "--timeout", "600"
    )


def socketify(env: Environment, case: Case, port: int) -> list[str]:
    tls = []
    if case.tls:
        cert, key = tls_files(env)
        tls = ["--ssl-certfile", cert, "--ssl-keyfile", key]
    return [
        str(env.python),
        "-m",
        "socketify",
        case.app,
        "--interface",
        "asgi",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        str(case.workers),
        "--disable-listen-log",
        "True",
        *tls,
    ]


FASTPYSGI = """
import importlib, sys, fastpysgi
module, _, name = sys.argv[1].partition(":")
app = getattr(importlib.import_module(module), name)
if len(sys.argv) > 4:
    fastpysgi.server.tls_list = [(sys.argv[4], sys.argv[5], None)]
workers = int(sys.argv[3])
fastpysgi.run(app, "127.0.0.1", int(sys.argv[2]), workers=workers if workers > 1 else None)
"""


def fastpysgi(env: Environment, case: Case, port: int) -> list[str]:
    tls = list(tls_files(env)) if case.tls else []
    return [str(env.python), "-c", FASTPYSGI, case.app, str(port), str(case.workers), *tls]


NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600;
    default_type text/plain;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{ return 200 "Hello, world!"; }}
    }}
}}
"""


def find_nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def nginx(env: Environment, case: Case, port: int) -> list[str]:
    program = find_nginx()
    if program is None:
        raise NotOffered("nginx is not installed")
    folder = env.work / f"nginx-{port}"
    folder.mkdir(exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port))
    return [program, "-p", str(folder), "-e", "stderr", "-c", str(config)]


SERVERS: dict[str, Server] = {
    server.name: server
    for server in [
        Server("capicorn", "Capicorn", capicorn, uses_capicorn=True),
        Server("uvicorn", "uvicorn, httptools and uvloop", uvicorn),
        Server("uvicorn-zttp", "uvicorn, zttp and zuvloop", uvicorn_zttp, "uvicorn-zttp"),
        Server("granian", "granian", granian, "granian"),
        Server("hypercorn", "hypercorn", hypercorn, "hypercorn"),
        Server("gunicorn", "gunicorn, asgi worker", gunicorn, "gunicorn"),
        Server("gunicorn-uvicorn", "gunicorn, uvicorn-worker", gunicorn_uvicorn, "gunicorn-uvicorn"),
        Server("socketify", "socketify", socketify, "socketify", has_log=False),
        Server("fastpysgi", "fastpysgi", fastpysgi, "fastpysgi", has_log=False, has_websocket=False),
        Server("nginx", "nginx `return 200` (floor)", nginx, floor=True, has_log=False, has_websocket=False),
    ]
}
REFERENCE = "uvicorn"
OURS = "capicorn"


def why_not(server: Server, case: Case, env: Environment) -> str | None:
    """Why this server takes no part in this case; None when it does."""
    if server.needs in env.missing:
        return env.missing[server.needs]
    if case.access_log and not server.has_log:
        return "has no access log"
    if case.kind in ("websocket", "idle-websocket") and not server.has_websocket:
        return "has no WebSockets"
    return None


def file_for(folder: Path, name: str, data: bytes) -> Path:
    """Writes `data` for the load program to read."""
    path = folder / name
    path.write_bytes(data)
    return path
