"""Pipe transports: both ends, over pipes, terminals, sockets and what is no pipe at all."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import socket
import subprocess
import sys
import tty
from typing import Any

import pytest
from capicorn import transports
from capicorn.loop import Loop

from .test_processes import python
from .test_transports import Recorder


def reader(loop: Loop, factory: Any = Recorder) -> tuple[int, Any, Any]:
    """(the other end, transport, protocol) of a pipe that is read."""
    r, w = os.pipe()
    transport, protocol = loop.run_until_complete(loop.connect_read_pipe(factory, os.fdopen(r, "rb", 0)))
    return w, transport, protocol


def writer(loop: Loop, factory: Any = Recorder) -> tuple[int, Any, Any]:
    """(the other end, transport, protocol) of a pipe that is written."""
    r, w = os.pipe()
    transport, protocol = loop.run_until_complete(loop.connect_write_pipe(factory, os.fdopen(w, "wb", 0)))
    return r, transport, protocol


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_they_are_the_native_ones(loop: Loop) -> None:
    w, reading, _ = reader(loop)
    r, writing, _ = writer(loop)
    assert isinstance(reading, transports.ReadPipeTransport)
    assert isinstance(reading, asyncio.ReadTransport)
    assert not isinstance(reading, asyncio.WriteTransport)
    assert not hasattr(reading, "write")
    assert isinstance(writing, transports.WritePipeTransport)
    assert isinstance(writing, asyncio.WriteTransport)
    os.close(w)
    loop.run_until_complete(until(reading.is_closing))
    writing.close()
    loop.run_until_complete(asyncio.sleep(0.01))
    os.close(r)


def test_reads_until_the_end_in_the_order_of_asyncio(loop: Loop) -> None:
    w, transport, protocol = reader(loop)
    pipe = transport.get_extra_info("pipe")
    os.write(w, b"one")
    loop.run_until_complete(until(lambda: b"one" in protocol.events))
    os.write(w, b"two")
    os.close(w)
    loop.run_until_complete(until(lambda: protocol.events[-1] == ("lost", None)))
    assert protocol.events == ["made", b"one", b"two", "eof", ("lost", None)]
    assert pipe.closed
    assert transport.is_closing()
    assert "closed" in repr(transport)


def test_paused_reading_leaves_data_and_the_end_where_they_are(loop: Loop) -> None:
    w, transport, protocol = reader(loop)
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    os.write(w, b"data")
    loop.run_until_complete(asyncio.sleep(0.01))
    os.close(w)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert protocol.events == ["made"]
    transport.resume_reading()
    transport.resume_reading()
    loop.run_until_complete(until(lambda: protocol.events[-1] == ("lost", None)))
    assert protocol.events == ["made", b"data", "eof", ("lost", None)]


def test_a_protocol_that_fails_is_told_to_the_loop_and_goes_on(loop: Loop) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise ZeroDivisionError(data)

    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
    w, transport, protocol = reader(loop, Failing)
    for data in (b"a", b"b"):
        os.write(w, data)
        loop.run_until_complete(until(lambda data=data: data in protocol.events))
    assert told == [ZeroDivisionError] * 2
    assert not transport.is_closing()
    os.close(w)
    loop.run_until_complete(until(transport.is_closing))
    loop.run_until_complete(asyncio.sleep(0))


def test_buffered_protocols_get_their_own_buffer(loop: Loop) -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(4)
            self.got = b""
            self.lost = False

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.got += self.buffer[:nbytes]

        def connection_lost(self, exc: BaseException | None) -> None:
            self.lost = True

    w, _, protocol = reader(loop, Buffered)
    os.write(w, b"0123456789")
    os.close(w)
    loop.run_until_complete(until(lambda: protocol.lost))
    assert protocol.got == b"0123456789"


def test_writes_of_one_turn_are_gathered_and_keep_their_order(loop: Loop) -> None:
    r, transport, protocol = writer(loop)

    async def write() -> None:
        for i in range(100):
            transport.write(b"%d," % i)
        transport.writelines([b"x", bytearray(b"y"), memoryview(b"z")])

    loop.run_until_complete(write())
    loop.run_until_complete(asyncio.sleep(0))
    transport.close()
    loop.run_until_complete(until(lambda: protocol.events[-1] == ("lost", None)))
    assert os.read(r, 65536) == b"".join(b"%d," % i for i in range(100)) + b"xyz"
    assert os.read(r, 1) == b""
    os.close(r)


def test_flow_control_and_close_that_waits_for_what_is_queued(loop: Loop) -> None:
    r, transport, protocol = writer(loop)
    data = os.urandom(1 << 20)
    transport.write(bytearray(data))
    assert transport.get_write_buffer_size() > 64 * 1024
    assert protocol.events == ["made", "pause"]
    transport.write_eof()
    transport.write(b"too late")
    got = bytearray()

    async def read_all() -> None:
        while chunk := await asyncio.get_running_loop().run_in_executor(None, os.read, r, 65536):
            got.extend(chunk)

    loop.run_until_complete(read_all())
    loop.run_until_complete(until(lambda: protocol.events[-1] == ("lost", None)))
    assert bytes(got) == data
    assert protocol.events == ["made", "pause", "resume", ("lost", None)]
    os.close(r)


@pytest.mark.parametrize("queued", [False, True])
def test_the_writer_learns_that_nobody_reads_any_more(loop: Loop, queued: bool) -> None:
    r, transport, protocol = writer(loop)
    if queued:
        transport.write(b"x" * (1 << 20))
    os.close(r)
    loop.run_until_complete(until(lambda: isinstance(protocol.events[-1], tuple)))
    assert protocol.events[-1] == ("lost", "BrokenPipeError" if queued else None)


def test_write_to_nobody_is_no_error_and_says_so_after_a_while(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    r, transport, protocol = writer(loop)
    os.close(r)
    with caplog.at_level(logging.WARNING, "asyncio"):
        for _ in range(8):
            transport.write(b"x")
    assert "pipe closed by peer or os.write(pipe, data) raised exception." in caplog.text
    loop.run_until_complete(until(lambda: isinstance(protocol.events[-1], tuple)))
    assert protocol.events == ["made", ("lost", "BrokenPipeError")]
    with pytest.raises(TypeError):
        transport.write("text")


def test_abort_drops_what_waits(loop: Loop) -> None:
    r, transport, protocol = writer(loop)
    transport.write(b"x" * (1 << 20))
    transport.abort()
    transport.abort()
    loop.run_until_complete(until(lambda: isinstance(protocol.events[-1], tuple)))
    assert protocol.events == ["made", "pause", ("lost", None)]
    assert transport.get_write_buffer_size() == 0
    os.close(r)


def test_one_terminal_for_both_directions(loop: Loop) -> None:
    outer, inner = os.openpty()
    tty.setraw(inner)
    file = os.fdopen(inner, "r+b", 0, closefd=False)
    reading, received = loop.run_until_complete(loop.connect_read_pipe(Recorder, file))
    writing, sent = loop.run_until_complete(loop.connect_write_pipe(Recorder, file))
    os.write(outer, b"typed")
    loop.run_until_complete(until(lambda: b"typed" in received.events))
    writing.write(b"shown")
    assert os.read(outer, 100) == b"shown"
    writing.write(b"x" * 100_000)  # more than a terminal keeps
    got = b""
    while len(got) < 100_000:
        loop.run_until_complete(asyncio.sleep(0))
        got += os.read(outer, 65536)
    assert got == b"x" * 100_000
    os.close(outer)
    loop.run_until_complete(until(lambda: isinstance(received.events[-1], tuple)))
    assert received.events == ["made", b"typed", "eof", ("lost", None)]
    writing.close()
    loop.run_until_complete(until(lambda: isinstance(sent.events[-1], tuple)))
    os.close(inner)


def test_dev_null_can_be_written_and_a_regular_file_cannot(loop: Loop, tmp_path: Any) -> None:
    transport, protocol = loop.run_until_complete(loop.connect_write_pipe(Recorder, open(os.devnull, "wb", 0)))
    transport.write(b"x" * 1000)
    transport.close()
    loop.run_until_complete(until(lambda: isinstance(protocol.events[-1], tuple)))
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with open(path, "rb", 0) as file, pytest.raises(ValueError, match="pipes/sockets only"):
        loop.run_until_complete(loop.connect_read_pipe(Recorder, file))
    with open(path, "wb", 0) as file, pytest.raises(ValueError, match="pipes, sockets and character devices"):
        loop.run_until_complete(loop.connect_write_pipe(Recorder, file))


def test_sockets_can_stand_for_pipes(loop: Loop) -> None:
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    reading, received = loop.run_until_complete(loop.connect_read_pipe(Recorder, a))
    writing, sent = loop.run_until_complete(loop.connect_write_pipe(Recorder, c))
    b.sendall(b"in")
    writing.write(b"out")
    loop.run_until_complete(until(lambda: b"in" in received.events))
    assert d.recv(100) == b"out"
    b.close()
    d.close()
    loop.run_until_complete(
        until(lambda: isinstance(sent.events[-1], tuple) and isinstance(received.events[-1], tuple))
    )
    assert sent.events == ["made", ("lost", None)]
    assert received.events == ["made", b"in", "eof", ("lost", None)]
    assert reading.is_closing() and writing.is_closing()


def test_a_file_that_is_closed_behind_our_back_harms_nobody(loop: Loop) -> None:
    w, transport, protocol = reader(loop)
    transport.get_extra_info("pipe").close()
    loop.run_until_complete(asyncio.sleep(0.01))
    transport.close()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert protocol.events == ["made", ("lost", None)]
    os.close(w)


def test_callbacks_run_in_the_context_of_the_creation(loop: Loop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[tuple[str, str]] = []

    class Watching(Recorder):
        def __getattribute__(self, name: str) -> Any:
            if name in ("data_received", "eof_received", "connection_lost", "connection_made"):
                seen.append((name, variable.get()))
            return super().__getattribute__(name)

    variable.set("creator")
    w, _, protocol = reader(loop, Watching)
    variable.set("later")
    os.write(w, b"x")
    os.close(w)
    loop.run_until_complete(until(lambda: isinstance(protocol.events[-1], tuple)))
    assert [name for name, _ in seen] == ["connection_made", "data_received", "eof_received", "connection_lost"]
    assert {where for _, where in seen} == {"creator"}


def test_a_loop_that_is_closed_first_leaves_a_warning_and_no_descriptor(loop: Loop) -> None:
    w, transport, *protocols = reader(loop)
    r, writing, *protocols = writer(loop)
    loop.close()
    assert "open" in repr(transport)
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, writing, protocols
        gc.collect()
    os.set_blocking(r, False)
    assert os.read(r, 1) == b""
    os.close(r)
    os.close(w)


def test_sigpipe_at_its_default_does_not_end_the_process() -> None:
    done = python(
        """
        import asyncio, os, signal, socket
        from capicorn import new_event_loop
        async def main():
            loop = asyncio.get_running_loop()
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            r, w = os.pipe()
            pipe, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(w, "wb", 0))
            os.close(r)
            pipe.write(b"x")
            a, b = socket.socketpair()
            stream, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            b.close()
            stream.write(b"x")
            stream.writelines([b"x", b"y"])
            await asyncio.sleep(0.01)
            assert pipe.is_closing() and stream.is_closing()
            assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
            assert signal.SIGPIPE not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            assert not signal.sigpending()
        asyncio.Runner(loop_factory=new_event_loop).run(main())
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_sigpipe_at_its_default_does_not_end_a_server() -> None:
    done = python(
        """
        import asyncio, signal, socket, threading
        import capicorn
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
            gone.acquire()  # blocks the loop, which must not see it first
            for _ in range(3):
                await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
        def clients():
            for _ in range(5):
                with socket.socket(socket.AF_UNIX) as sock:  # there each write to nobody is EPIPE
                    sock.connect(listener.getsockname())
                    sock.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
                    sock.recv(10)
                gone.release()
            server.should_exit = True
        gone = threading.Semaphore(0)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("")
        listener.listen()
        server = capicorn.Server(capicorn.Config(app, log_level="critical", access_log=False, lifespan="off"))
        async def main():
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            thread = threading.Thread(target=clients)
            thread.start()
            await server.serve(sockets=[listener])
            thread.join()
        asyncio.Runner(loop_factory=capicorn.new_event_loop).run(main())
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_subprocess_uses_them_and_gives_all_of_much_output(loop: Loop) -> None:
    async def run() -> tuple[bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d * 3); sys.stderr.buffer.write(d[:10])",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        transport = process._transport  # type: ignore[attr-defined]
        assert isinstance(transport.get_pipe_transport(0), transports.WritePipeTransport)
        assert isinstance(transport.get_pipe_transport(1), transports.ReadPipeTransport)
        return await process.communicate(data)

    data = os.urandom(300_000)
    out, err = loop.run_until_complete(asyncio.wait_for(run(), 30))
    assert out == data * 3
    assert err == data[:10]
