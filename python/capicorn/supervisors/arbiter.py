"""The supervisor: keeps as many workers running as are wanted, and replaces them one by one.

It is one thread around one poll: signals and what workers say wake it, and nothing it does waits for a worker. Each
turn compares the workers that are there with those that should be (`_reconcile`); reload, a reached limit of requests
or memory and a changed number of workers are only marks on workers that the next turn acts upon.

A worker is *starting* until its application's lifespan has started, then *serving*, and *retiring* from the moment
it was told to end. An *outdated* worker serves on until its replacement is serving.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from capicorn import systemd
from capicorn.config import STARTUP_FAILURE
from capicorn.logging import style
from capicorn.presence import describe
from capicorn.supervisors import process
from capicorn.supervisors.log_files import own_log_files, reopen_log_files
from capicorn.supervisors.signals import Blocked, SignalQueue, reap_all
from capicorn.supervisors.worker import READY, REPLACE, RETIRE, forked

if TYPE_CHECKING:
    from capicorn._core import Scoreboard
    from capicorn.config import Config
    from capicorn.metrics import MetricsServer

SLOTS = 1024
"""Of the scoreboard: workers that serve and that still retire."""

LOOK = 1.0
"""Seconds between two looks at the workers' beats."""

LOOK_MEMORY = 5.0
"""Seconds between two looks at the workers' memory."""

STALE = 3.0
"""Seconds without a beat after which a loop is taken to stand still."""

TELL = 15.0
"""Seconds without a beat after which the log says so."""

PATIENCE = 1.0
"""Seconds for a worker that is about to be ended to say what blocks it."""

ASK = 0.05
"""Seconds between two looks whether it did."""

STEADY = 10.0
"""A worker that has served so many seconds has not failed; before that the next one waits longer."""

MOST_BACK_OFF = 30.0
GIVE_UP = 6
"""Starts in a row that failed, with no worker left that serves."""

EVERY_WORKER_NEEDS = (
    "asyncio",
    "capicorn.access",
    "capicorn.guard",
    "capicorn.lifespan",
    "capicorn.loop",
    "capicorn.middleware.proxy_headers",
    "capicorn.thread_pool",
    "ctypes",
    "http",
)
"""Imported once before the fork, as the user who may read them."""

logger = logging.getLogger("capicorn.error")


class WorkerProcess:
    """What the supervisor knows of a worker. Hooks get it as their `worker`."""

    log = logger

    def __init__(
        self, config: Config, age: int, slot: int, channel: socket.socket, replaces: WorkerProcess | None
    ) -> None:
        self.cfg = config
        self.pid = 0
        self.ppid = os.getpid()
        self.age = age
        self.slot = slot
        self.channel = channel
        self.replaces = replaces
        self.born = time.monotonic()
        self.served_since: float | None = None
        self.retiring = False
        self.outdated = ""
        """Why it is to be replaced; "": it is not."""
        self.kill_at: float | None = None
        self.ask_until: float | None = None
        """So long its guard has to say what blocks it."""
        self.killed = False
        self.told = 0.0
        self.fresh = False
        """It has loaded the application itself, as the code that was preloaded was old."""
        self._terminated = False

    def kill(self, sig: int) -> None:
        try:
            os.kill(self.pid, sig)
        except ProcessLookupError:
            pass
        except PermissionError as exc:
            logger.error("Worker [%d] cannot be sent a signal: %s", self.pid, exc)

    def terminate(self) -> None:
        """SIGTERM, but only once: the second one means that it shall not wait for anything."""
        self.retiring = True
        if not self._terminated:
            self._terminated = True
            self.kill(signal.SIGTERM)

    @property
    def starting(self) -> bool:
        return self.served_since is None and not self.retiring


class Arbiter:
    """Runs `target(sockets=…)` in `config.workers` processes. `reload_config` makes the config and target anew for
    SIGHUP; None: they stay, only the workers are new."""

    def __init__(
        self,
        config: Config,
        target: Callable[..., None],
        sockets: list[socket.socket],
        reload_config: Callable[[], tuple[Config, Callable[..., None]]] | None = None,
    ) -> None:
        self.config = self.cfg = config
        self.target = target
        self.sockets = sockets
        self.reload_config = reload_config
        self.log = logger
        self.pid = os.getpid()
        self.num_workers = max(1, config.workers)
        self.workers: dict[int, WorkerProcess] = {}
        self.signals = SignalQueue()
        self.board: Scoreboard
        self.rescue: tuple[socket.socket, socket.socket] | None = None
        """Where blocked workers send connections, and where the others take them."""
        self.metrics: MetricsServer | None = None
        self.pidfile: process.PidFile | None = None
        self.watchdog = systemd.Watchdog()
        self.exit_code = 0
        self.upgrade_pid = 0
        self.start_folder = config.start_folder
        self.on_ready: Callable[[int], None] | None = None
        """Called once with 0 when all workers serve, or with the exit code when they cannot."""
        self._age = 0
        self._ready = False
        self._stopping = ""
        self._quick_at = 0.0
        self._kill_all_at: float | None = None
        self._failures = 0
        self._failed_starts = 0
        self._next_start = 0.0
        self._next_look = 0.0
        self._next_memory = 0.0
        self._last_turn = time.monotonic()
        self._preloaded = False
        self._code_is_old = False
        """The application was preloaded, and SIGHUP has come since."""
        self._fallback: tuple[Config, Callable[..., None]] | None = None
        self._old_workers_wanted = 0
        self._announced = False

    # ---- the loop

    def run(self) -> int:
        """Until the end; the exit code."""
        from capicorn import _core

        self.board = _core.Scoreboard(SLOTS)
        if self.config.rescue:
            self.rescue = rescue_channel()
        self._describe()
        self._open_metrics()
        self.config.supervisor = self
        logger.info(
            "Started parent process [%d]",
            self.pid,
            extra={"color_message": "Started parent process [" + style("%d", fg="cyan", bold=True) + "]"},
        )
        self.signals.open()
        try:
            self.config.call_hook("on_starting", self)
            self._preload()
            while not self._stopping or self.workers:
                self._turn()
        finally:
            self._kill_everything()
            self._close_metrics()
            self.signals.close()
            for sock in self.rescue or ():
                sock.close()
        self._hook("on_exit", self)
        logger.info(
            "Stopping parent process [%d]",
            self.pid,
            extra={"color_message": "Stopping parent process [" + style("%d", fg="cyan", bold=True) + "]"},
        )
        return self.exit_code

    def _turn(self) -> None:
        now = time.monotonic()
        if not self._stopping:
            self._reconcile(now)
        readable = self._poll(now)
        now = time.monotonic()
        for worker in readable:
            self._listen_to(worker, now)
        while self.signals.pending:
            self._on_signal(self.signals.pending.popleft(), now)
        self._reap(now)
        self._look(now)
        self.watchdog.beat()
        self._last_turn = now

    def _poll(self, now: float) -> list[WorkerProcess]:
        """Wait for something to happen, LOOK at most; the workers that have something to say."""
        wait = min(LOOK, self.watchdog.pause or LOOK)
        for moment in self._moments():
            wait = min(wait, max(0.0, moment - now))
        poll = select.poll()
        poll.register(self.signals.fileno(), select.POLLIN)
        by_fd: dict[int, WorkerProcess] = {}
        for worker in self.workers.values():
            fd = worker.channel.fileno()
            if fd >= 0:
                poll.register(fd, select.POLLIN)
                by_fd[fd] = worker
        metrics = self.metrics
        if metrics is not None:
            for fd, events in metrics.descriptors():
                poll.register(fd, events)
        if self.signals.pending:
            wait = 0
        ready = {fd for fd, _ in poll.poll(int(wait * 1000) + (1 if wait > 0 else 0))}
        if self.signals.fileno() in ready:
            self.signals.drain()
        if metrics is not None:
            metrics.handle(ready, time.monotonic())
        return [worker for fd, worker in by_fd.items() if fd in ready]

    def _moments(self) -> list[float]:
        moments = [worker.kill_at for worker in self.workers.values() if worker.kill_at is not None]
        if any(worker.ask_until is not None for worker in self.workers.values()):
            moments.append(self._last_turn + ASK)
        if self._kill_all_at is not None:
            moments.append(self._kill_all_at)
        if not self._stopping and self._next_start:
            moments.append(self._next_start)
        return moments

    # ---- what is there and what should be

    def _reconcile(self, now: float) -> None:
        live = [worker for worker in self.workers.values() if not worker.retiring]
        replacing = [w for w in live if w.starting and w.replaces is not None and not w.replaces.retiring]
        replaced = {id(worker.replaces) for worker in replacing}
        standing = len(live) - len(replacing)
        if standing > self.num_workers:
            # those go first that would go anyway, then the oldest
            live.sort(key=lambda w: (not w.outdated, w.age))
            for worker in [w for w in live if w not in replacing][: standing - self.num_workers]:
                self._retire(worker)
            return
        if now < self._next_start:
            return
        self._next_start = 0.0
        for _ in range(self.num_workers - standing):
            if self._start(now) is None or self._next_start > now:
                return
        starting = sum(worker.starting for worker in live)
        retiring = sum(worker.retiring for worker in self.workers.values())
        at_once = max(1, self.num_workers // 4)
        for worker in live:
            if starting >= at_once or retiring > 2 * self.num_workers:
                return
            if worker.outdated and not worker.starting and id(worker) not in replaced:
                if self._start(now, worker) is None:
                    return
                starting += 1

    def _start(self, now: float, replaces: WorkerProcess | None = None) -> WorkerProcess | None:
        slot = self._free_slot()
        if slot is None:
            return None
        self._age += 1
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            logger.error("Cannot start a worker: %s", exc)
            self._failed(now, serving=False)
            return None
        ours.setblocking(False)
        worker = WorkerProcess(self.config, self._age, slot, ours, replaces)
        self.board.take(slot)
        self.config.call_hook("pre_fork", self, worker)
        try:
            if self.config.worker_start == "spawn" or self._code_is_old:
                worker.pid = self._spawn(worker, theirs)
            else:
                worker.pid = self._fork(worker, theirs)
        except OSError as exc:
            logger.error("Cannot start a worker: %s", exc)
            ours.close()
            self.board.free(slot)
            self._failed(now, serving=False)
            return None
        finally:
            theirs.close()
        worker.fresh = self._code_is_old
        self.workers[worker.pid] = worker
        return worker

    def _fork(self, worker: WorkerProcess, theirs: socket.socket) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        with Blocked() as blocked:
            pid = os.fork()
            if pid == 0:
                self.signals.drop()
                worker.channel.close()
                for other in self.workers.values():
                    other.channel.close()
                if self.metrics is not None:
                    self.metrics.forget()
                blocked.restore()
                forked(self.config, self.target, self.sockets, theirs, self.board, worker.slot, worker.age, self.rescue)
        return pid

    def _spawn(self, worker: WorkerProcess, theirs: socket.socket) -> int:
        from capicorn.supervisors.child import spawn_worker

        return spawn_worker(
            self.config, self.target, self.sockets, theirs, self.board, worker.slot, worker.age, self.rescue
        )

    def _free_slot(self) -> int | None:
        taken = {worker.slot for worker in self.workers.values()}
        for slot in range(SLOTS):
            if slot not in taken:
                return slot
        return None

    def _listen_to(self, worker: WorkerProcess, now: float) -> None:
        try:
            said = worker.channel.recv(256)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            said = b""
        if not said:
            worker.channel.close()  # it ends, or has ended: waitpid will tell
            return
        if READY in said:
            self._on_serving(worker, now)
        if REPLACE in said and not worker.outdated:
            worker.outdated = "max requests"

    def _on_serving(self, worker: WorkerProcess, now: float) -> None:
        worker.served_since = now
        self._failed_starts = 0
        old = worker.replaces
        if old is not None and old.pid in self.workers and not old.retiring:
            self._retire(old)
        worker.replaces = None
        if self._stopping:
            return
        serving = sum(w.served_since is not None and not w.retiring for w in self.workers.values())
        if not self._ready and serving >= self.num_workers:
            self._ready = True
            self.config.log_running_all(self.sockets)
            systemd.notify(f"READY=1\nMAINPID={self.pid}")
            self.config.call_hook("when_ready", self)
            if self.on_ready is not None:
                self.on_ready(0)
        if self._fallback is not None and not any(w.outdated for w in self.workers.values() if not w.retiring):
            self._fallback = None

    def _retire(self, worker: WorkerProcess) -> None:
        """Nobody waits for it: it may take its time, and its idle connections keep theirs."""
        if worker.retiring:
            return
        if worker.starting:
            worker.terminate()
        else:
            worker.retiring = True
            try:
                worker.channel.send(RETIRE)
            except OSError:
                worker.terminate()
        graceful = self.config.timeout_graceful_shutdown
        worker.kill_at = time.monotonic() + (graceful + 2.0 if graceful is not None else 3600.0)

    # ---- workers that end

    def _reap(self, now: float) -> None:
        for pid, status in reap_all():
            if pid == self.upgrade_pid:
                self._on_upgrade_ended(status)
                continue
            worker = self.workers.pop(pid, None)
            if worker is None:
                continue
            worker.channel.close()
            self.board.free(worker.slot)
            self._hook("child_exit", self, worker)
            self._on_ended(worker, status, now)

    def _on_ended(self, worker: WorkerProcess, status: int, now: float) -> None:
        code = os.waitstatus_to_exitcode(status)
        if worker.retiring or self._stopping:
            logger.info("Terminated child process [%d]", worker.pid)
            return
        if worker.served_since is not None:
            if worker.killed:  # why has been said
                logger.warning("Child process [%d] was killed.", worker.pid)
            else:
                logger.warning("Child process [%d] died: %s", worker.pid, process.explain_exit(status))
            self._failed(now, serving=True, steady=now - worker.served_since >= STEADY)
            return
        why = f" ({process.explain_exit(status)})" if code not in (1, STARTUP_FAILURE) else ""
        if not self._ready:
            logger.error("Child process [%d] failed to start%s, stopping the parent process.", worker.pid, why)
            self._give_up()
            return
        old = worker.replaces
        if old is not None and old.pid in self.workers and not old.retiring:
            logger.error(
                "New child process [%d] failed to start%s; keeping worker [%d]%s.",
                worker.pid,
                why,
                old.pid,
                " and aborting the restart" if old.outdated == "reload" else "",
            )
            if old.outdated == "reload":
                self._abort_reload()
        else:
            logger.error("Child process [%d] failed to start%s.", worker.pid, why)
        self._failed(now, serving=False)

    def _failed(self, now: float, serving: bool, steady: bool = False) -> None:
        """A worker ended that should not have: when that happens again and again, wait longer each time."""
        self._failures = 1 if steady else self._failures + 1
        if not serving:
            self._failed_starts += 1
            left = any(w.served_since is not None and not w.retiring for w in self.workers.values())
            if self._failed_starts >= GIVE_UP and not left:
                logger.error("No worker can be started after %d attempts, stopping the parent process.", GIVE_UP)
                self._give_up()
                return
        if self._failures > 1:
            wait = min(MOST_BACK_OFF, 0.25 * 2.0 ** min(self._failures - 2, 20))
            self._next_start = now + wait
            if wait >= 1:
                logger.warning("The next worker is started in %.0f seconds.", wait)

    def _give_up(self) -> None:
        if self._stopping:
            return
        self.exit_code = STARTUP_FAILURE
        if self.on_ready is not None and not self._ready:
            self.on_ready(STARTUP_FAILURE)
        self._stop("graceful" if self._ready else "quick")

    # ---- looking after those that run

    def _look(self, now: float) -> None:
        for worker in self.workers.values():
            if worker.kill_at is not None and now >= worker.kill_at:
                self._end_overdue(worker, now)
            elif worker.ask_until is not None and not worker.killed:
                self._end_stuck(worker, now)
        if self._kill_all_at is not None and now >= self._kill_all_at:
            self._kill_all_at = now + 1.0
            for worker in self.workers.values():
                worker.kill(signal.SIGKILL)
        if now < self._next_look:
            return
        late = now - self._last_turn > LOOK + STALE  # it was we who stood still, and perhaps the whole machine
        self._next_look = now + LOOK + (STALE if late else 0.0)
        if late:
            return
        for worker in self.workers.values():
            if worker.served_since is not None and not worker.killed:
                self._look_at(worker, now)
        if any(w.served_since is not None and now - w.served_since >= STEADY for w in self.workers.values()):
            if now - self._newest_serving() >= STEADY:
                self._failures = 0
        if self.config.max_worker_memory and now >= self._next_memory:
            self._next_memory = now + LOOK_MEMORY
            self._look_at_memory()

    def _newest_serving(self) -> float:
        return max((w.served_since for w in self.workers.values() if w.served_since is not None), default=0.0)

    def _look_at(self, worker: WorkerProcess, now: float) -> None:
        facts = self.board.read(worker.slot)
        still = facts["beat_age"]
        if still is None or still < STALE:
            worker.told = 0.0
            return
        limit = self.config.timeout
        if limit and still > limit and not worker.retiring:
            if worker.ask_until is None:
                self.board.ask(worker.slot)  # its guard logs the stack once more, and says where it is
                worker.ask_until = now + PATIENCE
        elif still >= TELL and still >= 2 * worker.told:
            worker.told = still
            logger.warning(
                "Worker [%d] has not run its event loop for %.0f seconds: something in it blocks.", worker.pid, still
            )

    def _end_stuck(self, worker: WorkerProcess, now: float) -> None:
        """Its loop stands still for longer than `timeout`: say what blocks it, and end it."""
        answer = self.board.answer(worker.slot)
        if answer is None and now < (worker.ask_until or 0.0):
            return
        worker.ask_until = None
        if answer == "over" or worker.retiring:
            return
        seen = self.board.inspect(worker.slot)
        inside = f" in {seen['running']}" if seen["running"] else ""
        if answer == "place":
            what = f"{inside} at {seen['place']}" if seen["place"] else inside
        elif answer == "gil":
            what = f"{inside}: a C call holds the GIL, and its stack follows"
        else:
            what = f"{inside}; its stack follows"
        logger.error(
            "Worker [%d] has not run its event loop for %.0f seconds (timeout: %g)%s: it is replaced.",
            worker.pid,
            seen["awake"] or seen["beat_age"] or 0.0,
            self.config.timeout,
            what,
        )
        worker.killed = True
        self._hook("worker_abort", worker)
        # SIGABRT has faulthandler write the stacks, which needs no GIL
        worker.kill(signal.SIGKILL if answer == "place" else signal.SIGABRT)
        worker.kill_at = now + 1.0

    def _look_at_memory(self) -> None:
        limit = self.config.max_worker_memory or 0
        for worker in self.workers.values():
            if worker.served_since is None or worker.retiring or worker.outdated:
                continue
            used = process.resident_octets(worker.pid) / 1048576
            if used > limit:
                logger.warning(
                    "Worker [%d] has %.0f MiB of memory, more than %d: it is replaced.", worker.pid, used, limit
                )
                worker.outdated = "memory"

    def _end_overdue(self, worker: WorkerProcess, now: float) -> None:
        """Its time is over. As long as its loop runs it is at the application's shutdown, which may take long."""
        if not worker.killed and worker.served_since is not None:
            still = self.board.read(worker.slot)["beat_age"]
            if still is not None and still < STALE:
                worker.kill_at = now + 1.0
                return
            logger.warning("Worker [%d] does not end: it is killed.", worker.pid)
        worker.killed = True
        worker.kill_at = now + 5.0
        worker.kill(signal.SIGKILL)

    # ---- the end

    def _stop(self, how: str) -> None:
        """how: graceful, or quick, which also speeds up a graceful end that has begun."""
        now = time.monotonic()
        if how == "quick":
            if self._stopping == "quick":
                self._kill_all_at = now
            else:
                self._kill_all_at = now + 2.0
            self._stopping = "quick"
            for worker in self.workers.values():
                worker.kill(signal.SIGQUIT)
            return
        self._stopping = how
        systemd.notify("STOPPING=1")
        for worker in self.workers.values():
            self._tell_to_stop(worker)

    def _tell_to_stop(self, worker: WorkerProcess) -> None:
        worker.terminate()
        graceful = self.config.timeout_graceful_shutdown
        worker.kill_at = None if graceful is None else time.monotonic() + graceful + 2.0

    def _kill_everything(self) -> None:
        """Nothing is left when the end was reached in order; after an error no orphan may stay."""
        for worker in self.workers.values():
            worker.kill(signal.SIGKILL)
        for worker in self.workers.values():
            worker.channel.close()
            try:
                os.waitpid(worker.pid, 0)
            except ChildProcessError:
                pass
        self.workers.clear()

    def _hook(self, name: str, *args: object) -> None:
        """Once it runs, an error in a hook does not end everything."""
        try:
            self.config.call_hook(name, *args)
        except Exception:
            logger.exception("In the hook %s of the configuration file", name)

    # ---- signals

    def _on_signal(self, sig: int, now: float) -> None:
        action = self._actions.get(sig)
        if action is not None:
            action(self, sig)

    def _on_end(self, sig: int) -> None:
        name = signal.Signals(sig).name
        if self._stopping:
            logger.info("Received %s again, ending at once.", name)
            self._stop("quick")
        else:
            logger.info("Received %s, exiting.", name)
            self._stop("graceful")

    def _on_quit(self, sig: int) -> None:
        logger.info("Received SIGQUIT, ending at once.")
        self._stop("quick")

    def _on_more(self, sig: int) -> None:
        logger.info("Received SIGTTIN, increasing the number of processes.")
        self._set_num_workers(self.num_workers + 1)

    def _on_fewer(self, sig: int) -> None:
        logger.info("Received SIGTTOU, decreasing number of processes.")
        self._set_num_workers(max(1, self.num_workers - 1))

    def _set_num_workers(self, number: int) -> None:
        if number != self.num_workers:
            before, self.num_workers = self.num_workers, number
            self._describe()
            self._hook("nworkers_changed", self, number, before)

    def _on_reload(self, sig: int) -> None:
        if self._stopping:
            return
        logger.info("Received SIGHUP, restarting processes.")
        if self._old_workers_wanted:  # after WINCH: the old parent takes over again
            self.num_workers, self._old_workers_wanted = self._old_workers_wanted, 0
        self._hook("on_reload", self)
        self.reload()

    def _on_reopen(self, sig: int) -> None:
        try:
            uid, gid = process.user_and_group(self.config)
        except process.ProcessError as exc:
            logger.error("%s", exc)
            uid = gid = -1
        reopen_log_files(uid, gid)
        for worker in self.workers.values():
            worker.kill(signal.SIGUSR1)
        logger.info("Received SIGUSR1, the logs have been opened anew.")

    def _on_upgrade(self, sig: int) -> None:
        if self._stopping:
            return
        if self.upgrade_pid:
            logger.error("Received SIGUSR2, but process [%d] is upgrading already.", self.upgrade_pid)
            return
        self._hook("pre_exec", self)
        self._close_metrics()  # for the new parent process
        from capicorn.supervisors.upgrade import start_upgrade

        self.upgrade_pid = start_upgrade(self)
        if self.upgrade_pid:
            logger.info("Received SIGUSR2, started the new parent process [%d].", self.upgrade_pid)
        else:
            self._open_metrics(again=True)

    def _on_upgrade_ended(self, status: int) -> None:
        pid, self.upgrade_pid = self.upgrade_pid, 0
        if self.pidfile is not None:
            self.pidfile.rename(self.pidfile.path.removesuffix(".oldbin"))
        if self._old_workers_wanted:
            self.num_workers, self._old_workers_wanted = self._old_workers_wanted, 0
        self._open_metrics(again=True)
        logger.error("The new parent process [%d] ended (%s); this one goes on.", pid, process.explain_exit(status))

    def _on_winch(self, sig: int) -> None:
        """The workers end gracefully, this process stays: the step after USR2. A terminal sends it when its window
        changes; then it means nothing."""
        if self._stopping or (not self.upgrade_pid and _has_terminal()):
            return
        logger.info("Received SIGWINCH, the workers end.")
        self._old_workers_wanted = self._old_workers_wanted or self.num_workers
        self.num_workers = 0

    _actions: Mapping[int, Callable[[Arbiter, int], None]] = {
        signal.SIGTERM: _on_end,
        signal.SIGINT: _on_end,
        signal.SIGQUIT: _on_quit,
        signal.SIGHUP: _on_reload,
        signal.SIGTTIN: _on_more,
        signal.SIGTTOU: _on_fewer,
        signal.SIGUSR1: _on_reopen,
        signal.SIGUSR2: _on_upgrade,
        signal.SIGWINCH: _on_winch,
    }

    # ---- reload

    def reload(self) -> None:
        """New workers for all, each started and serving before the old one retires."""
        if self.reload_config is not None:
            try:
                config, target = self.reload_config()
                config.supervisor = self
                self._rebind(config)
            except (Exception, SystemExit) as exc:
                logger.error("The configuration cannot be loaded, so the old one stays: %s", str(exc) or repr(exc))
                config, target = self.config, self.target
            if config is not self.config:
                self._fallback = self.config, self.target
                if config.workers != self.config.workers:
                    self._set_num_workers(max(1, config.workers))
                self.config = self.cfg = config
                self.target = target
                self._describe()
                if self.metrics is None or self.metrics.address != config.metrics_bind:
                    self._close_metrics()
                    self._open_metrics(again=True)
        if self._preloaded and not self._code_is_old:
            # What has been imported here cannot be imported anew: an application may consist of anything.
            self._code_is_old = True
            logger.warning(
                "The code that --preload loaded is old now: the new workers are interpreters of their own, which load"
                " the application themselves and share no memory. SIGUSR2 loads it once for all again."
            )
        self._next_start = 0.0
        self._failures = self._failed_starts = 0
        for worker in self.workers.values():
            if not worker.retiring:
                worker.outdated = "reload"

    def _abort_reload(self) -> None:
        if self._preloaded and not any(w.fresh for w in self.workers.values() if w.served_since is not None):
            self._code_is_old = False  # it is the code of those that go on
        for worker in self.workers.values():
            if worker.outdated == "reload":
                worker.outdated = ""
        if self._fallback is not None:
            self.config, self.target = self._fallback
            self.cfg = self.config
            self._describe()
            self._fallback = None

    def _rebind(self, config: Config) -> None:
        """Sockets for the addresses of a new configuration: those that stay are kept."""
        from capicorn.supervisors.sockets import bind_again

        self.sockets = bind_again(self.config, config, self.sockets)

    def _open_metrics(self, again: bool = False) -> None:
        """Raises OSError; not so `again`, when workers serve."""
        address = self.config.metrics_bind
        if address is None or self.metrics is not None:
            return
        from capicorn.metrics import MetricsServer, render

        try:
            self.metrics = MetricsServer(address, lambda: render(self.board))
        except OSError as exc:
            if not again:
                raise
            logger.error("%s", exc)

    def _close_metrics(self) -> None:
        metrics, self.metrics = self.metrics, None
        if metrics is not None:
            metrics.close()

    def _describe(self) -> None:
        """For those who look at the scoreboard."""
        self.board.set_info(describe(self.config, self.sockets, self.num_workers))

    # ---- before the first fork

    def _preload(self) -> None:
        if self.config.worker_start == "fork":
            for name in EVERY_WORKER_NEEDS:
                importlib.import_module(name)
            if self.config.preload:
                self._preloaded = isinstance(self.config.app, str)
                if not self.config.loaded:
                    self.config.load()
                if "anyio" in sys.modules:  # its other half comes with the first use, so in each worker: 2 MiB
                    try:
                        importlib.import_module("anyio._backends._asyncio")
                    except ImportError:
                        pass
            gc.collect()
            gc.freeze()  # what is shared is not written to by the collector of a worker
        uid, gid = process.user_and_group(self.config)
        if uid != -1 or gid != -1:
            try:
                own_log_files(uid, gid)
            except OSError as exc:
                raise process.ProcessError(f"the log cannot be given to user {self.config.user}: {exc}") from None


def rescue_channel() -> tuple[socket.socket, socket.socket] | None:
    """A socket pair whose messages are whole; None: this system has none."""
    kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
    try:
        pair = socket.socketpair(socket.AF_UNIX, kind)
    except OSError as exc:
        logger.warning("Blocked workers keep their connections: %s", exc)
        return None
    for sock in pair:
        sock.setblocking(False)
    return pair


def _has_terminal() -> bool:
    return any(os.isatty(fd) for fd in (0, 1, 2))
