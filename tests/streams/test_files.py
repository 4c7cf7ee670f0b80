"""http.response.pathsend and zerocopysend, by themselves and through Starlette's FileResponse."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.thread import Receive, Scope, Send, Served

SIZE = 3_000_001


@pytest.fixture(scope="module")
def content() -> bytes:
    return bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251)


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    made = tmp_path / "file.bin"
    made.write_bytes(content)
    return made


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def length(n: int) -> tuple[bytes, bytes]:
    return b"content-length", str(n).encode()


def sending(*messages: dict[str, Any], errors: queue.Queue[Any] | None = None) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            try:
                await send(message)
            except Exception as exc:
                if errors is None:
                    raise
                errors.put(exc)

    return app


# ------------------------------------------------------------------- pathsend


@pytest.mark.parametrize("with_length", [True, False])
def test_pathsend(serve: Served, path: Path, content: bytes, with_length: bool) -> None:
    headers = [length(SIZE)] if with_length else []
    c = serve(sending(start(*headers), {"type": "http.response.pathsend", "path": str(path)}))
    for _ in range(2):
        r = c.get("/").response()
        assert r.body == content and r.framing == ("length" if with_length else "chunked")
    assert c.get("/", version="1.0").response().body == content


def test_pathsend_for_head_sends_no_content(serve: Served, path: Path) -> None:
    c = serve(sending(start(length(SIZE)), {"type": "http.response.pathsend", "path": str(path)}))
    r = c.get("/", method="HEAD").response("HEAD")
    assert r.get("content-length") == str(SIZE)
    assert c.is_open(0.1)


def test_pathsend_of_an_empty_file(serve: Served, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    c = serve(sending(start(length(0)), {"type": "http.response.pathsend", "path": str(tmp_path / "empty")}))
    assert c.get("/").response().body == b""
    assert c.get("/").response().body == b""


@pytest.mark.parametrize("name", ["no such file", ".", "relative"])
def test_pathsend_of_what_is_no_file_is_an_error_before_anything_left(serve: Served, tmp_path: Path, name: str) -> None:
    errors: queue.Queue[Any] = queue.Queue()
    wrong = "relative.bin" if name == "relative" else str(tmp_path / name)
    c = serve(sending(start(length(3)), {"type": "http.response.pathsend", "path": wrong},
                      {"type": "http.response.body", "body": b"abc"}, errors=errors))  # fmt: skip
    r = c.get("/").response()
    assert isinstance(errors.get(timeout=5), (OSError, ValueError, RuntimeError))
    assert r.body == b"abc"


@pytest.mark.logs("ASGI callable returned without completing response")
def test_pathsend_of_a_file_that_is_shorter_ends_the_connection(serve: Served, path: Path) -> None:
    errors: queue.Queue[Any] = queue.Queue()
    c = serve(sending(start(length(SIZE + 10)), {"type": "http.response.pathsend", "path": str(path)}, errors=errors))
    c.get("/").expect_close()
    assert "shorter than Content-Length" in str(errors.get(timeout=5))


@pytest.mark.logs("The file of a response could not be read: it became shorter. (GET /)")
def test_a_file_that_is_truncated_meanwhile(serve: Served, tmp_path: Path) -> None:
    path = tmp_path / "big"
    with open(path, "wb") as file:
        file.truncate(200_000_000)
    errors: queue.Queue[Any] = queue.Queue()
    app = sending(start(length(200_000_000)), {"type": "http.response.pathsend", "path": str(path)}, errors=errors)
    c = serve(app, receive_buffer=16384)
    assert c.get("/").head().status == 200
    c.read_some()
    os.truncate(path, 1_000_000)
    left = 0
    while data := c.read_some():
        left += len(data)
    assert left < 100_000_000, "octets that the file does not have"
    serve.wait_idle()


def test_a_client_that_leaves_in_the_middle(serve: Served, tmp_path: Path) -> None:
    path = tmp_path / "big"
    with open(path, "wb") as file:
        file.truncate(200_000_000)
    app = sending(
        start(length(200_000_000)), {"type": "http.response.pathsend", "path": str(path)}, errors=queue.Queue()
    )
    for how in ("close", "reset"):
        c = serve(app, receive_buffer=16384)
        c.get("/").head()
        getattr(c, how)()
        serve.wait_idle()


# ------------------------------------------------------------------- zerocopysend


@pytest.fixture
def opened(path: Path) -> Iterator[Any]:
    with open(path, "rb", buffering=0) as file:
        yield file


def test_zerocopysend_in_parts(serve: Served, opened: Any, content: bytes) -> None:
    def part(offset: int, count: int, more: bool) -> dict[str, Any]:
        return {
            "type": "http.response.zerocopysend",
            "file": opened,
            "offset": offset,
            "count": count,
            "more_body": more,
        }

    c = serve(
        sending(
            start(length(2_000_300)),
            part(0, 1_000_000, True),
            {"type": "http.response.body", "body": b"x" * 300, "more_body": True},
            part(2_000_000, 1_000_000, False),
        )
    )
    for _ in range(2):
        body = c.get("/").response().body
        assert body == content[:1_000_000] + b"x" * 300 + content[2_000_000:3_000_000]


def test_zerocopysend_from_where_the_file_stands(serve: Served, opened: Any, content: bytes) -> None:
    opened.seek(1_000_000)
    c = serve(sending(start(), {"type": "http.response.zerocopysend", "file": opened.fileno()}))
    assert c.get("/").response().body == content[1_000_000:]


class Changing:
    """A file whose methods change the message that it is in."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.message: dict[str, Any] = {}

    def fileno(self) -> int:
        self.message.clear()
        return self.fd

    def __fspath__(self) -> str:
        self.message.clear()
        return self.path


def number(n: int) -> int:
    """An int that nobody else has."""
    return int(str(n))


def test_file_that_changes_its_message(serve: Served, opened: Any, path: Path, content: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        message: dict[str, Any] = {"type": "http.response.zerocopysend"}
        message["file"] = Changing(opened.fileno(), "")
        message["file"].message = message
        message.update(offset=number(1000), count=number(2000), more_body=number(3000))
        await send(message)
        message = {"type": "http.response.pathsend", "path": Changing(-1, f"{path}.nowhere")}
        message["path"].message = message
        with pytest.raises(FileNotFoundError):
            await send(message)
        message = {"type": "http.response.pathsend", "path": Changing(-1, str(path.parent))}
        message["path"].message = message
        with pytest.raises(RuntimeError, match="not a regular file"):
            await send(message)
        await send({"type": "http.response.body"})

    assert serve(app).get("/").response().body == content[1000:3000]


def test_zerocopysend_of_more_than_there_can_be(serve: Served, opened: Any) -> None:
    errors: queue.Queue[Any] = queue.Queue()
    wrong = [(2**62, 2**62), (2**63 - 1, 1), (1, 2**63 - 1), (SIZE + 1, 0), (SIZE - 1, 2)]
    parts = [
        {"type": "http.response.zerocopysend", "file": opened, "offset": at, "count": n, "more_body": True}
        for at, n in wrong
    ]
    c = serve(sending(start(length(0)), *parts, {"type": "http.response.body"}, errors=errors))
    assert c.get("/").response().body == b""
    assert ["shorter than" in str(errors.get(timeout=5)) for _ in wrong] == [True] * len(wrong)
    assert errors.empty()


# ------------------------------------------------------------------- Starlette


@pytest.mark.stays("threads", "anyio keeps its worker threads while the loop runs")
@pytest.mark.parametrize(
    ("field", "status", "parts"),
    [
        (None, 200, [(0, SIZE)]),
        ("bytes=0-0", 206, [(0, 1)]),
        ("bytes=100-1999999", 206, [(100, 2_000_000)]),
        ("bytes=-5", 206, [(SIZE - 5, SIZE)]),
        ("bytes=2999990-", 206, [(2_999_990, SIZE)]),
        ("bytes=9000000-", 416, []),
    ],
)
def test_ranges_of_a_file_response(
    serve: Served, path: Path, content: bytes, field: str | None, status: int, parts: list[tuple[int, int]]
) -> None:
    responses = pytest.importorskip("starlette.responses")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await responses.FileResponse(path)(scope, receive, send)

    c = serve(app)
    fields = [f"Range: {field}"] if field else []
    r = c.get("/", *fields).response()
    assert r.status == status
    if parts:
        ((begin, end),) = parts
        assert r.body == content[begin:end]
    head = c.get("/", *fields, method="HEAD").response("HEAD")
    assert head.status == status


@pytest.mark.stays("threads", "anyio keeps its worker threads while the loop runs")
def test_several_ranges(serve: Served, path: Path, content: bytes) -> None:
    responses = pytest.importorskip("starlette.responses")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await responses.FileResponse(path)(scope, receive, send)

    r = serve(app).get("/", "Range: bytes=0-9, 1000000-2999999").response()
    assert r.status == 206 and content[1_000_000:3_000_000] in r.body and content[:10] in r.body


@pytest.mark.stays("threads", "anyio keeps its worker threads while the loop runs")
def test_static_files_and_304(serve: Served, path: Path, content: bytes) -> None:
    static = pytest.importorskip("starlette.staticfiles")
    app = static.StaticFiles(directory=path.parent)
    c = serve(app)
    r = c.get("/file.bin").response()
    assert r.body == content
    again = c.get("/file.bin", f"If-None-Match: {r.get('etag')}").response()
    assert again.status == 304 and again.body == b""
    assert c.get("/file.bin").response().body == content
