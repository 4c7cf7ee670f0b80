"""`-c FILE` with gunicorn's names and hooks, gunicorn's flags, and Capicorn as a worker of gunicorn's."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from capicorn.supervisors.gunicorn_config import ConfigFileError, load_config_file

from ..harness.process import Process
from .conftest import APP, Launch, until

HOOKS = """
import sys
def note(name, *numbers):
    sys.stderr.write(" ".join(map(str, ("hook:", name, *numbers))) + "\\n")
def on_starting(server): note("on_starting", server.pid)
def when_ready(server): note("when_ready", server.num_workers)
def on_reload(server): note("on_reload")
def on_exit(server): note("on_exit")
def nworkers_changed(server, new, old): note("nworkers_changed", new, old)
def pre_fork(server, worker): note("pre_fork", worker.age)
def post_fork(server, worker): note("post_fork", worker.pid, server.pid)
def post_worker_init(worker): note("post_worker_init", worker.pid); worker.log.info("by the hook")
def worker_exit(server, worker): note("worker_exit", worker.pid)
def child_exit(server, worker): note("child_exit", worker.pid)
"""


def test_hooks_are_called_in_the_process_where_gunicorn_calls_them(workers: Launch, tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text(HOOKS)
    server = workers("-c", str(config), "--workers", "2")
    first = sorted(server.children())
    server.signal(signal.SIGTTIN)
    server.wait_children(3)
    server.log.wait_for("hook: post_worker_init .*", after=server.log.text().count("\n") - 3)
    server.signal(signal.SIGHUP)
    server.wait_children(3, without=first)
    assert server.stop() == 0
    text = server.log.text()
    assert f"hook: on_starting {server.pid}" in text and "hook: when_ready 2" in text
    for pid in first:
        assert text.count(f"hook: post_fork {pid} {server.pid}") == 1
        for name in ("post_worker_init", "worker_exit", "child_exit"):
            assert text.count(f"hook: {name} {pid}") == 1
    assert re.findall(r"hook: pre_fork (\d+)", text)[:3] == ["1", "2", "3"]
    assert text.count("hook: on_reload") == 1 and text.count("hook: on_exit") == 1
    assert "hook: nworkers_changed 3 2" in text and "by the hook" in text


STOCK_HOOKS = """
import sys
def pre_fork(server, worker): worker.log.info("pre_fork %s", worker.age)
def post_fork(server, worker): server.log.info("post_fork %s %s %s", worker.pid, server.pid, server.cfg.workers)
def worker_int(worker): worker.log.info("worker_int %s", worker.pid)
def worker_abort(worker): worker.log.info("worker_abort %s", worker.pid)
def child_exit(server, worker): worker.log.info("child_exit %s", worker.pid)
def worker_exit(server, worker): server.log.info("worker_exit %s", worker.pid)
"""


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_server_and_worker_have_a_log_in_every_hook(workers: Launch, tmp_path: Path, how: str) -> None:
    """As gunicorn's example of a configuration file has it."""
    config = tmp_path / "conf.py"
    config.write_text(STOCK_HOOKS)
    server = workers("-c", str(config), "--workers", "2", "--worker-start", how, "--timeout", "3.5")
    first = server.children()
    for pid in first:
        server.log.wait_for(f"post_fork {pid} {server.pid} 2")
    client = server.connect().get("/block/60")
    server.log.wait_for("app: blocks")
    aborted = int(server.log.wait_for(r"worker_abort (\d+)")[1])
    server.log.wait_for(f"child_exit {aborted}")
    client.close()
    server.wait_children(2, without=[aborted])
    server.signal(signal.SIGQUIT)
    assert server.wait() == 0
    (left,) = set(first) - {aborted}
    assert f"worker_int {left}" in server.log.text() and f"worker_exit {left}" in server.log.text()
    assert "Traceback" not in server.log.text() and "In the hook" not in server.log.text()


def test_a_reload_of_preloaded_code_with_hooks(workers: Launch, tmp_path: Path) -> None:
    """The new workers are interpreters of their own then."""
    config = tmp_path / "conf.py"
    config.write_text(STOCK_HOOKS)
    server = workers("-c", str(config), "--workers", "2", "--preload")
    before = server.children()
    server.signal(signal.SIGHUP)
    for pid in server.wait_children(2, without=before):
        server.log.wait_for(f"post_fork {pid} {server.pid} 2")
    assert server.stop() == 0


def test_settings_by_gunicorns_names(workers: Launch, tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text(
        "import multiprocessing\n"
        "bind = ['127.0.0.1:0']\nworkers = 2\nkeepalive = 7\nloglevel = 'debug'\npreload_app = True\n"
        f"wsgi_app = {APP!r}\nraw_env = ['WORKING_RAW=raw']\nworker_class = 'uvicorn_worker.UvicornWorker'\n"
        "threads = 3\nmax_requests = 0\nno_such_setting = 1\nstatsd_prefix = 'x'\n"
        "def helper(): pass\ndef post_request(worker, req, environ, resp): pass\n"
    )
    process = Process([sys.executable, "-m", "capicorn", "-c", str(config)])
    with process:
        found = process.log.wait_for(r"running on http://127.0.0.1:(\d+)")
        process.log.wait_for("unknown here and without effect: no_such_setting, post_request, statsd_prefix")
        assert process.alive and int(found[1])
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


def test_flags_and_variables_are_stronger_than_the_file(workers: Launch, tmp_path: Path) -> None:
    config = tmp_path / "conf.py"
    config.write_text("workers = 4\nbind = '127.0.0.1:1'\n")
    assert len(workers("-c", str(config), "--workers", "2").children()) == 2
    assert len(workers("-c", str(config), env={"CAPICORN_WORKERS": "3"}).children()) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no file"),
        ("workers = ", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("post_fork = 3", "post_fork is not a function"),
        ("workers = -2", "workers: -2 is not 0 to 512"),
    ],
)
def test_a_file_that_is_wrong_is_told(workers: Launch, tmp_path: Path, text: str | None, told: str) -> None:
    config = tmp_path / "conf.py"
    if text is not None:
        config.write_text(text)
    server = workers("-c", str(config), wait=False)
    assert server.wait() == 2
    assert told in server.log.text() and "Traceback" not in server.log.text()


def test_what_a_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf_module.py").write_text("keepalive = 3\numask = 0o27\naccesslog = '-'\ngraceful_timeout = 9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = load_config_file("python:conf_module")
    assert found.values == {
        "timeout_keep_alive": 3,
        "umask": "0o27",
        "access_logfile": "-",
        "timeout_graceful_shutdown": 9,
    }
    assert not found.unknown
    with pytest.raises(ConfigFileError):
        load_config_file("python:no_such_conf_module")


def test_gunicorns_flags(workers: Launch) -> None:
    server = workers(
        *("-w", "2", "-k", "uvicorn_worker.UvicornWorker", "-t", "60", "--keep-alive", "3", "--preload"),
        *("--graceful-timeout", "5", "--max-requests", "1000", "--max-requests-jitter", "10", "-n", "name"),
        *("--access-logfile", "-", "--error-logfile", "-", "--threads", "2"),
    )
    assert len(server.children()) == 2 and server.get("/thread").startswith("capicorn")
    server.log.wait_for("GET /thread")


def test_threads_are_as_many_as_asked_for(workers: Launch) -> None:
    server = workers("--threads", "3", "--workers", "1")
    names = {server.get("/thread") for _ in range(12)}
    assert names <= {f"capicorn_{i}" for i in range(3)}


@pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed")
def test_as_a_worker_of_gunicorn() -> None:
    argv = [sys.executable, "-m", "gunicorn", "-k", "capicorn.GunicornWorker", APP, "-b", "127.0.0.1:0", "-w", "2"]
    if importlib.util.find_spec("gunicorn.ctl") is not None:
        argv.append("--no-control-socket")
    with Process([*argv, "--access-logfile", "-"]) as process:
        port = int(process.log.wait_for(r"Listening at: http://127.0.0.1:(\d+)")[1])
        until(lambda: process.log.text().count("Application startup complete.") == 2, 15, "two workers")
        from ..harness.client import Client

        with Client(("127.0.0.1", port)) as client:
            pid = int(client.get("/pid").response().text)
        assert pid != process.pid
        process.log.wait_for("GET /pid")
        os.kill(pid, signal.SIGKILL)
        until(lambda: process.log.text().count("Application startup complete.") == 3, 15, "a new worker")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert process.log.text().count("app: lifespan.shutdown") == 2
