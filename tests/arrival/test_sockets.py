"""Unix sockets, abstract names, several addresses at once, inherited sockets, systemd."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.arrival.app import app
from tests.harness.client import Client
from tests.harness.process import ServerProcess
from tests.harness.thread import ThreadServer

pytestmark = pytest.mark.ours
APP = "tests.arrival.app:app"
Launch = Callable[..., ServerProcess]


def told(address: Any) -> dict[str, Any]:
    with Client(address) as c:
        found: dict[str, Any] = json.loads(c.get("/x").response().body)
        return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---------------------------------------------------------------- unix sockets


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), 0o666),
        (("--uds-permissions", "660"), 0o660),
        (("--uds-permissions", "0o600"), 0o600),
        (("--umask", "007"), 0o660),
        (("--umask", "077", "--uds-permissions", "666"), 0o666),
    ],
)
def test_permissions(
    launch: Launch, tmp_path: Path, options: tuple[str, ...], expected: int, workers: tuple[str, ...]
) -> None:
    path = tmp_path / "s"
    server = launch(APP, "--uds", str(path), *options, *workers)
    assert mode(path) == expected
    assert told(str(path))["client"] is None
    assert server.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert not path.exists()


def test_permissions_are_stronger_than_those_of_the_socket_that_was_there(launch: Launch, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    path.chmod(0o600)
    launch(APP, "--uds", str(path)).stop()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    path.chmod(0o600)
    server = launch(APP, "--uds", str(path))
    assert mode(path) == 0o600
    server.kill()
    launch(APP, "--uds", str(path), "--uds-permissions", "640")
    assert mode(path) == 0o640


@pytest.mark.parametrize("value", ["8", "rw", "1777", "-1"])
def test_permissions_that_are_none(launch: Launch, tmp_path: Path, value: str) -> None:
    server = launch(APP, "--uds", str(tmp_path / "s"), f"--uds-permissions={value}", wait=False)
    assert server.wait() == 2
    assert "uds_permissions" in server.log.text()
    assert "Traceback" not in server.log.text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_socket_belongs_to_the_user_of_the_workers(launch: Launch, tmp_path: Path) -> None:
    path = tmp_path / "s"
    launch(APP, "--uds", str(path), "--user", "65534", "--group", "65534", "--uds-permissions", "600")
    found = path.stat()
    assert (found.st_uid, found.st_gid, mode(path)) == (65534, 65534, 0o600)
    assert told(str(path))["client"] is None


@pytest.mark.parametrize("flag", ["--uds", "--bind"])
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_an_abstract_name(launch: Launch, flag: str, workers: tuple[str, ...]) -> None:
    name = f"capicorn-test-{os.getpid()}-{flag}-{len(workers)}"
    server = launch(APP, flag, ("unix:@" if flag == "--bind" else "@") + name, *workers)
    assert server.address == "@" + name
    assert told("\0" + name)["client"] is None
    assert not Path("@" + name).exists()
    taken = launch(APP, "--uds", "@" + name, wait=False)
    assert taken.wait() == 3
    assert f"cannot bind unix socket '@{name}': Address already in use" in taken.log.text()


# ---------------------------------------------------------------- several


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_several_addresses_each_with_its_line(launch: Launch, tmp_path: Path, workers: tuple[str, ...]) -> None:
    path = tmp_path / "s"
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        given.listen()
        given.set_inheritable(True)
        fd = given.fileno()
        server = launch(
            APP, "-b", "127.0.0.1:0", "-b", "[::1]:0", "-b", f"unix:{path}", "-b", f"fd://{fd}", *workers, pass_fds=[fd]
        )
        number = given.getsockname()[1]
        first = server.log.wait_for(r"Capicorn running on http://127\.0\.0\.1:(\d+) ")
        sixth = server.log.wait_for(r"Capicorn running on http://\[::1\]:(\d+) ")
        server.log.wait_for(f"Capicorn running on unix socket {path} ")
        server.log.wait_for(rf"Capicorn running on http://127\.0\.0\.1:{number} ")
        assert told(("127.0.0.1", int(first[1])))["server"] == ["127.0.0.1", int(first[1])]
        assert told(("::1", int(sixth[1])))["server"] == ["::1", int(sixth[1])]
        assert told(str(path))["client"] is None
        assert told(("127.0.0.1", number))["server"] == ["127.0.0.1", number]
        assert server.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert not path.exists()


def test_one_that_is_taken_stops_all(launch: Launch, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = launch(APP, "-b", f"unix:{tmp_path / 's'}", "-b", f"127.0.0.1:{port}", wait=False)
        assert server.wait() == 3
        assert "address already in use" in server.log.text()


# ---------------------------------------------------------------- systemd


class Passing:
    """Sockets at the descriptors 3, 4, ... of a child."""

    WRAP = (
        "import os, sys; n = [int(x) for x in sys.argv[1].split(',')];"
        "high = [os.dup2(fd, 200 + i) for i, fd in enumerate(n)];"
        "[os.dup2(fd, 3 + i) for i, fd in enumerate(high)];"
        "os.environ.update(LISTEN_FDS=str(len(n)), LISTEN_FDNAMES=os.environ.get('NAMES', ':'.join('x' for _ in n)),"
        " LISTEN_PID=str(os.getpid() + int(sys.argv[2]))); os.execv(sys.argv[3], sys.argv[3:])"
    )

    def __init__(self, *sockets: Any, off: int = 0) -> None:
        self.fds = [sock.fileno() for sock in sockets]
        numbers = ",".join(map(str, self.fds))
        wrapped = "{python} -m capicorn {app} --port 0 {options}"
        self.template = f"{{python}} -c {shlex.quote(self.WRAP)} {numbers} {off} {wrapped}"


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_socket_activation_with_two_sockets(launch: Launch, tmp_path: Path, workers: tuple[str, ...]) -> None:
    path = tmp_path / "s"
    with socket.socket() as one, socket.socket(socket.AF_UNIX) as two:
        one.bind(("127.0.0.1", 0))
        two.bind(str(path))
        one.listen()
        two.listen()
        p = Passing(one, two)
        server = launch(APP, "--host", "127.0.0.2", *workers, pass_fds=p.fds, template=p.template)
        port = one.getsockname()[1]
        server.log.wait_for(rf"Capicorn running on http://127\.0\.0\.1:{port} ")
        server.log.wait_for(f"Capicorn running on unix socket {path} ")
        assert "127.0.0.2" not in server.log.text()
        assert told(("127.0.0.1", port))["server"] == ["127.0.0.1", port]
        assert told(str(path))["client"] is None
        assert server.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert path.exists(), "the file is systemd's"


def test_the_file_of_systemds_socket_stays_after_an_upgrade(launch: Launch, tmp_path: Path) -> None:
    path, pidfile = tmp_path / "s", tmp_path / "pid"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        p = Passing(one)
        options = ("--workers", "2", "--pid", str(pidfile))
        server = launch(APP, *options, pass_fds=p.fds, template=p.template)
        old = int(pidfile.read_text())
        os.kill(old, signal.SIGUSR2)
        end = time.monotonic() + 20
        while not pidfile.exists() or int(pidfile.read_text()) == old:
            assert time.monotonic() < end, server.log.text()
            time.sleep(0.05)
        new = int(pidfile.read_text())
        os.kill(old, signal.SIGTERM)
        assert server.wait() == 0
        assert told(str(path))["client"] is None
        os.kill(new, signal.SIGTERM)
        while Path(f"/proc/{new}").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
    assert path.exists(), "the file is systemd's"


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_sockets_by_their_names(launch: Launch, tmp_path: Path, workers: tuple[str, ...]) -> None:
    with socket.socket() as web, socket.socket() as other, socket.socket() as second:
        for sock in (web, other, second):
            sock.bind(("127.0.0.1", 0))
            sock.listen()
        ports = [sock.getsockname()[1] for sock in (web, other, second)]
        p = Passing(web, other, second)
        path = tmp_path / "s"
        binds = ["-b", "systemd:web", "-b", f"unix:{path}"]
        env = {"NAMES": "web:other:web"}
        server = launch(APP, *binds, *workers, pass_fds=p.fds, template=p.template, env=env)
        server.log.wait_for(f"Capicorn running on unix socket {path} ")
        for port in (ports[0], ports[2]):
            assert told(("127.0.0.1", port))["server"] == ["127.0.0.1", port]
        assert told(str(path))["client"] is None
        assert str(ports[1]) not in server.log.text(), "nobody asked for that one"
        assert server.stop(signal.SIGTERM) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("more", [("--workers", "2"), ("--reload",), ()])
@pytest.mark.parametrize("handed", [False, True])
def test_a_name_that_no_socket_has(launch: Launch, handed: bool, more: tuple[str, ...]) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        p = Passing(one, off=0 if handed else 1)
        server = launch(APP, "-b", "systemd:web", *more, pass_fds=p.fds, template=p.template, wait=False)
        assert server.wait() == 3
        assert "bind: systemd" in server.log.text() and "Traceback" not in server.log.text()


def test_sockets_for_another_process_are_left_alone(launch: Launch) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        p = Passing(one, off=1)
        server = launch(APP, pass_fds=p.fds, template=p.template)
        assert server.port != one.getsockname()[1]


def test_a_descriptor_that_is_no_socket(launch: Launch, tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file:
        p = Passing(file)
        server = launch(APP, pass_fds=p.fds, template=p.template, wait=False)
        assert server.wait() == 3
        assert "LISTEN_FDS: descriptor 3:" in server.log.text()
        assert "Traceback" not in server.log.text()


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[tuple[str, Callable[[str], str]]]:
    """NOTIFY_SOCKET, and a function that waits for a message that begins so."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(10)

        def wait(begin: str) -> str:
            while True:
                text = sock.recv(4096).decode()
                if text.startswith(begin):
                    return text

        yield path, wait


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_ready_watchdog_and_stopping(launch: Launch, notified: Any, workers: tuple[str, ...]) -> None:
    path, wait = notified
    env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
    server = launch(APP, *workers, env=env)
    assert wait("READY=1") == f"READY=1\nMAINPID={server.pid}"
    begin = time.monotonic()
    for _ in range(4):
        wait("WATCHDOG=1")
    assert 0.4 < time.monotonic() - begin < 4
    server.signal(signal.SIGTERM)
    assert wait("STOPPING=1") == "STOPPING=1"
    server.wait()


def test_an_abstract_notify_socket(launch: Launch) -> None:
    name = f"capicorn-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(10)
        launch(APP, env={"NOTIFY_SOCKET": "@" + name})
        assert sock.recv(100).startswith(b"READY=1")


def test_a_server_inside_another_program_says_nothing(launch: Launch, notified: Any) -> None:
    path, wait = notified
    code = (
        "import asyncio, capicorn; s = capicorn.Server(capicorn.Config('tests.arrival.app:app', port=0));"
        "asyncio.run(s.serve())"
    )
    server = launch(APP, env={"NOTIFY_SOCKET": path}, template=f"{{python}} -c {shlex.quote(code)} capicorn")
    server.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"END", path)
    assert wait("") == "END"


# ---------------------------------------------------------------- congestion control


def modelling() -> str | None:
    """A congestion control of this kernel that is neither reno nor cubic."""
    try:
        names = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    except OSError:
        return None
    return next((name for name in names if name not in ("reno", "cubic")), None)


def congestion_controls(sockets: Iterable[socket.socket]) -> set[str]:
    found = (s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) for s in sockets)
    return {name.rstrip(b"\0").decode() for name in found}


def connections_of_this_process(port: int) -> list[socket.socket]:
    """Copies of the sockets whose own port is `port` and that are connected."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        if not os.path.exists(f"/proc/self/fd/{name}"):
            continue  # that of listdir()
        if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
            continue
        copy = socket.socket(fileno=os.dup(int(name)))
        try:
            copy.getpeername()
            ours = copy.getsockname()[1] == port
        except (OSError, IndexError):
            ours = False
        if ours:
            found.append(copy)
        else:
            copy.close()
    return found


@pytest.mark.skipif(modelling() is None, reason="this kernel has only reno and cubic")
@pytest.mark.parametrize(
    ("family", "bound", "connected"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
)
def test_who_connects_on_this_machine_is_not_paced(family: int, bound: str, connected: str) -> None:
    with socket.socket(family) as listening:
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, str(modelling()).encode())
        listening.bind((bound, 0))
        listening.listen()
        port = listening.getsockname()[1]
        with ThreadServer(app, fd=listening.fileno()), Client((connected, port)) as client:
            assert client.get("/x").response().status == 200
            accepted = connections_of_this_process(port)
            try:
                assert congestion_controls(accepted) == {"reno"}
            finally:
                for s in accepted:
                    s.close()
