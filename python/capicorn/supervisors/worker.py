"""A worker process: the side of it that talks with its supervisor.

The two share a socket pair and a slot of the scoreboard. The worker writes one octet for each thing it has to say
(READY, REPLACE), reads one for each it is told (RETIRE), and takes the end of the stream as the end of its supervisor.
"""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from capicorn.supervisors import process
from capicorn.supervisors.log_files import reopen_log_files

if TYPE_CHECKING:
    from capicorn._core import Scoreboard
    from capicorn.config import Config
    from capicorn.server import Server

READY = b"R"
REPLACE = b"M"
RETIRE = b"r"

ORPHAN = 60
"""Seconds for a worker whose supervisor is gone, when there is no limit for requests at shutdown."""

logger = logging.getLogger("capicorn.error")


class Parent:
    """What a worker that is an interpreter of its own knows of its supervisor. Hooks get it as their `server`."""

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        self.config = self.cfg = config
        self.sockets = sockets
        self.log = logger
        self.pid = os.getppid()
        self.num_workers = max(1, config.workers)


class Worker:
    """In a worker process `config.worker` is one of these; the Server calls it. Hooks of a configuration file get it
    as their `worker`."""

    def __init__(
        self,
        config: Config,
        channel: socket.socket,
        board: Scoreboard,
        slot: int,
        age: int,
        rescue: tuple[socket.socket, socket.socket] | None,
    ) -> None:
        self.cfg = config
        self.channel = channel
        self.board = board
        self.slot = slot
        self.age = age
        self.rescue = rescue
        self.pid = os.getpid()
        self.ppid = os.getppid()
        self.log = logger
        self.retiring = False
        self.server: Server | None = None
        board.set_state(slot, "starting")  # and its number
        self._asked = False
        self._orphaned = False
        self._loop: asyncio.AbstractEventLoop | None = None

    # ---- called by the Server, in its loop

    def started(self, server: Server) -> None:
        """The application has started and the sockets are listened on."""
        self.server = server
        loop = self._loop = asyncio.get_running_loop()
        self.channel.setblocking(False)
        loop.add_reader(self.channel.fileno(), self._on_message)
        self.cfg.call_hook("post_worker_init", self)
        self._say(READY)

    def wants_end(self, limit: int) -> None:
        """The limit of requests is reached: go on until the supervisor has a replacement."""
        if not self._asked:
            self._asked = True
            logger.info("Maximum request limit of %d exceeded. Asking for a replacement.", limit)
            self._say(REPLACE)

    def idle_grace(self, usual: float) -> float:
        """Seconds for idle connections at the end: nobody waits for a worker that has been replaced, so they live
        as long as they would have."""
        if not self.retiring:
            return usual
        longest = self.cfg.timeout_graceful_shutdown
        return max(usual, min(self.cfg.timeout_keep_alive, 30.0 if longest is None else longest))

    def stream_grace(self, usual: float) -> float:
        """Seconds after which applications are told that their client is gone; as above."""
        if not self.retiring:
            return usual
        longest = self.cfg.timeout_graceful_shutdown
        return max(usual, 30.0 if longest is None else longest / 2)

    def heeds(self, sig: int) -> bool:
        """Does this signal concern the server? A terminal's SIGINT goes to all processes of the group, but it is the
        supervisor that decides; not so when it is gone. As long as the application is imported, which may take long,
        there is nothing to end gracefully."""
        if sig == signal.SIGTERM and not self.cfg.loaded:
            sys.exit(0)
        return sig != signal.SIGINT or self._orphaned

    # ---- inside

    def _say(self, what: bytes) -> None:
        try:
            self.channel.send(what)
        except OSError:  # it is gone; the reader will see that
            pass

    def _on_message(self) -> None:
        try:
            said = self.channel.recv(64)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            said = b""
        if not said:
            self._orphaned = True
            if self._loop is not None:
                self._loop.remove_reader(self.channel.fileno())
            logger.error("The parent process is gone. Shutting down process [%d].", self.pid)
        elif RETIRE not in said:
            return
        else:
            self.retiring = True
        if self.server is not None:
            self.server.should_exit = True

    def end(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM while no server runs: before it was made; afterwards the process is on its way out."""
        if self.server is None:
            sys.exit(0)

    def quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGQUIT: end without waiting for anybody."""
        try:
            self.cfg.call_hook("worker_int", self)
        except Exception:
            logger.exception("In the hook worker_int of the configuration file")
        server = self.server
        if server is None:
            os._exit(0)
        server.force_exit = True
        server.should_exit = True


def run_worker(
    config: Config,
    target: Callable[..., None],
    sockets: list[socket.socket],
    worker: Worker,
) -> int:
    """Serve in this process, which was made for it; the exit code. SIGTERM ends the server gracefully; while the
    application is still imported it ends the process."""
    from capicorn.cli import print_without_us

    _take_signals(worker)
    try:
        process.die_with_parent(worker.ppid)
        process.become(config)
        process.die_with_parent(worker.ppid)  # a change of user has forgotten it
        process.set_title(config, "worker")
        config.worker = worker
        graceful = config.timeout_graceful_shutdown
        worker.board.end_with_parent(worker.channel.fileno(), ORPHAN if graceful is None else int(graceful) + 5)
        config.call_hook("post_fork", config.supervisor, worker)
        target(sockets=sockets)
    except KeyboardInterrupt:
        return 0
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return exc.code or 0
        print(exc.code, file=sys.stderr)
        return 1
    except Exception as exc:
        print_without_us(exc)
        return 1
    return 0


def end_process(code: int, worker: Worker | None) -> None:
    """What an interpreter does at its end, for a process that was forked out of the middle of another's."""
    try:
        if worker is not None:
            worker.cfg.call_hook("worker_exit", worker.cfg.supervisor, worker)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        logging.shutdown()
    except BaseException:
        logger.exception("At the end of process [%d]", os.getpid())
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    os._exit(code)


def _take_signals(worker: Worker) -> None:
    for sig in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH, signal.SIGINT):
        signal.signal(sig, signal.SIG_IGN)  # the supervisor's
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, worker.end)
    signal.signal(signal.SIGQUIT, worker.quit)
    signal.signal(signal.SIGUSR1, _on_usr1)
    try:
        # SIGABRT is what a worker gets whose loop stands still: then its stack is seen, whoever holds the GIL.
        if not faulthandler.is_enabled() and sys.__stderr__ is not None:
            faulthandler.enable(file=sys.__stderr__)
    except (AttributeError, OSError, RuntimeError, ValueError):  # no stderr
        pass


def _on_usr1(sig: int, frame: FrameType | None) -> None:
    reopen_log_files()


def forked(
    config: Config,
    target: Callable[..., None],
    sockets: list[socket.socket],
    channel: socket.socket,
    board: Scoreboard,
    slot: int,
    age: int,
    rescue: tuple[socket.socket, socket.socket] | None,
) -> None:
    """The main function of a forked worker. Does not return."""
    code, worker = 1, None
    try:
        if not config.preload:
            atexit._clear()  # what the parent process has to do at its end
        gc.enable()
        worker = Worker(config, channel, board, slot, age, rescue)
        code = run_worker(config, target, sockets, worker)
    except BaseException:
        logger.exception("Worker process [%d]", os.getpid())
    finally:
        end_process(code, worker)


def spawned(
    config: Config,
    target: Callable[..., None],
    sockets: list[socket.socket],
    channel: socket.socket,
    board_fd: int,
    slot: int,
    age: int,
    rescue: tuple[socket.socket, socket.socket] | None,
    as_uvicorn: bool,
) -> None:
    """The main function of a worker that is an interpreter of its own."""
    from capicorn import _core

    if as_uvicorn:
        from capicorn.uvicorn_names import install

        install(shadow=True)
    config.configure_logging()
    if config.config_file is not None:
        from capicorn.supervisors.gunicorn_config import load_config_file

        config.hooks = load_config_file(config.config_file).values.get("hooks")
    config.supervisor = Parent(config, sockets)
    worker = Worker(config, channel, _core.Scoreboard(fd=board_fd), slot, age, rescue)
    end_process(run_worker(config, target, sockets, worker), worker)
