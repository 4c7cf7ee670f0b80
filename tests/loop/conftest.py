"""A loop for each test of this folder, and what has to be true when it is closed."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from capicorn import _core
from capicorn.loop import Loop, new_event_loop


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


def end(loop: Loop) -> None:
    """As asyncio.Runner ends a loop."""
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A capicorn.Loop, closed at the end: then nothing of it is left, and nothing was swallowed."""
    new_event_loop().close()  # libuv opens two descriptors with the first loop of a process, for good
    gc.collect()
    unraisable: list[Any] = []
    previous = sys.unraisablehook
    sys.unraisablehook = lambda args: unraisable.append((repr(args.exc_value), repr(args.object)))
    before = _core._counts()
    descriptors = len(open_descriptors())
    threads = set(threading.enumerate())
    it = new_event_loop()
    try:
        yield it
    finally:
        if not it.is_closed():
            end(it)
        it.set_exception_handler(None)  # pytest keeps the loop a while longer
        del it
        gc.collect()
        sys.unraisablehook = previous
    assert not unraisable, f"errors that nobody could receive: {unraisable}"
    after = _core._counts()
    kinds = ("handles", "uv_handles")
    assert {k: after[k] for k in kinds} == {k: before[k] for k in kinds}
    assert len(open_descriptors()) == descriptors
    assert set(threading.enumerate()) <= threads


@pytest.fixture(scope="module")
def tls_contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server for localhost, and of a client that trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{folder}/key", "-out", f"{folder}/cert"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl command")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{folder}/cert", f"{folder}/key")
    return server, ssl.create_default_context(cafile=f"{folder}/cert")
