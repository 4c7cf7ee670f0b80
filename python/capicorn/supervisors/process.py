"""What a process is to the system: its user, its name, its pid file, its controlling terminal, its memory."""

from __future__ import annotations

import errno
import grp
import importlib
import os
import pwd
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capicorn.config import Config

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15


class ProcessError(Exception):
    """What was asked for cannot be done; the text says what and why."""


# ---- users


def user_and_group(config: Config) -> tuple[int, int]:
    """The numbers of `user` and `group`, -1 where none is asked for. Raises ProcessError."""
    uid = gid = -1
    if config.user is not None:
        try:
            entry = pwd.getpwuid(int(config.user)) if str(config.user).isdigit() else pwd.getpwnam(str(config.user))
            uid, gid = entry.pw_uid, entry.pw_gid
        except KeyError:
            if not str(config.user).isdigit():
                raise ProcessError(f"user: there is no user {config.user!r}") from None
            uid = int(config.user)
    if config.group is not None:
        try:
            gid = int(config.group) if str(config.group).isdigit() else grp.getgrnam(str(config.group)).gr_gid
        except KeyError:
            raise ProcessError(f"group: there is no group {config.group!r}") from None
    return uid, gid


def become(config: Config) -> None:
    """Take on user and group. Raises ProcessError."""
    uid, gid = user_and_group(config)
    try:
        if gid != -1 and gid != os.getegid():
            if os.geteuid() == 0:
                name = None
                try:
                    name = pwd.getpwuid(uid).pw_name if uid != -1 else None
                except KeyError:
                    pass
                if name is not None:
                    os.initgroups(name, gid)
                else:
                    os.setgroups([gid])
            os.setgid(gid)
        if uid != -1 and uid != os.geteuid():
            os.setuid(uid)
    except PermissionError as exc:
        raise ProcessError(f"user {config.user}, group {config.group}: {exc.strerror}") from None


def die_with_parent(parent: int) -> None:
    """SIGTERM when the thread that made this process ends, also by SIGKILL (Linux; elsewhere the worker sees the end
    of its channel once its loop runs)."""
    if sys.platform == "linux" and os.getppid() == parent:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int | bytes) -> None:
    import ctypes

    try:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def umask_of(text: str) -> int:
    """Octal digits, or a number as Python writes it. Raises ValueError."""
    return int(text, 0) if text.startswith(("0x", "0o", "0b")) else int(text, 8)


def enter(config: Config) -> None:
    """Folder and umask, before anything is opened. Raises ProcessError."""
    config.start_folder = config.start_folder or os.getcwd()
    if config.chdir is not None:
        try:
            os.chdir(config.chdir)
        except OSError as exc:
            raise ProcessError(f"chdir: {config.chdir}: {exc.strerror}") from None
        config.chdir = os.getcwd()
    if config.umask is not None:
        try:
            os.umask(umask_of(config.umask))
        except ValueError:
            raise ProcessError(f"umask: {config.umask!r} is not a number of octal digits") from None
    user_and_group(config)


# ---- names


def set_title(config: Config, role: str) -> None:
    """`NAME: worker [app]` with setproctitle, where that is installed; else the short name of the thread, if one was
    asked for."""
    name = config.proc_name or "capicorn"
    try:
        setproctitle = importlib.import_module("setproctitle").setproctitle
    except ImportError:
        if config.proc_name and sys.platform == "linux":
            _prctl(PR_SET_NAME, name.encode()[:15])
        return
    app = config.app if isinstance(config.app, str) else type(config.app).__name__
    setproctitle(f"{name}: {role} [{app}]")


# ---- the pid file


class PidFile:
    """A file with the number of this process. Raises ProcessError when a living process is named in it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._written = False

    def create(self) -> None:
        other = self.owner()
        if other is not None and other != os.getpid():
            raise ProcessError(f"pid file {self.path}: process {other} is running")
        temporary = f"{self.path}.{os.getpid()}"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            with os.fdopen(fd, "w") as file:
                file.write(f"{os.getpid()}\n")
            os.replace(temporary, self.path)
        except OSError as exc:
            raise ProcessError(f"pid file {self.path}: {exc.strerror}") from None
        self._written = True

    def owner(self) -> int | None:
        """The living process that the file names."""
        try:
            with open(self.path) as file:
                pid = int(file.read(32).strip() or "0")
        except (OSError, ValueError):
            return None
        if pid <= 0:
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return pid

    def rename(self, path: str) -> None:
        try:
            os.rename(self.path, path)
        except FileNotFoundError:
            pass
        self.path = path

    def remove(self) -> None:
        """If it is still ours."""
        try:
            if self._written and self.owner() == os.getpid():
                os.unlink(self.path)
        except OSError:
            pass


# ---- in the background


def daemonize() -> int:
    """Go on in a process without terminal; the one that was called waits until `daemon_ready()` and ends with the
    exit code. The descriptor for daemon_ready()."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        code = os.read(reader, 1)
        os._exit(code[0] if code else 1)
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    return writer


def daemon_ready(writer: int, code: int) -> None:
    """Let the process that was called end with this code; afterwards nothing is written to its terminal."""
    try:
        os.write(writer, bytes([code]))
    except OSError:
        pass
    os.close(writer)
    if code == 0:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2):
            if os.isatty(fd):
                os.dup2(null, fd)
        os.close(null)


# ---- memory


def resident_octets(pid: int) -> int:
    """The resident memory of a process; 0 when it is gone or the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def explain_exit(status: int) -> str:
    """What a status of waitpid() says."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    more = " (perhaps by the system, for want of memory)" if -code == signal.SIGKILL else ""
    return f"killed by {name}{more}"


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as exc:
        return exc.errno == errno.ESRCH
    return False
