"""Every limit on size and number, and what a client hears when it is met. RFC 9110 15.5.14, 15.5.15, 15.6.4,
RFC 6585 5; the flags are this server's."""

from __future__ import annotations

import pytest

from tests.conftest import Pool, check_log
from tests.harness.client import Closed, Response
from tests.harness.journal import active, notes, wake
from tests.harness.process import ServerProcess

pytestmark = pytest.mark.ours


def refused(server: ServerProcess, data: str | bytes, status: int, *, whole: bool = False) -> Response:
    """Sent, refused with that status, logged, and nobody's request afterwards."""
    notes(server)
    mark = server.log.mark()
    with server.connect() as c:
        c.send(data)
        r = c.response()
        assert r.status == status, r.text
        assert r.body
        assert r.closes
        c.expect_closed_clean()
        peer = f"{c.local[0]}:{c.local[1]}"
    assert not [e for e in notes(server) if e["complete"] or not whole]
    server.log.wait_for(peer, after=mark)
    check_log(server, mark, [])
    return r


def served(server: ServerProcess, data: str | bytes) -> None:
    with server.connect() as c:
        c.send(data)
        assert c.response().status == 200
    notes(server)


def get(target: str = "/", *fields: str) -> str:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *fields, "", ""])


# ------------------------------------------------------------------ request line


@pytest.mark.parametrize("pieces", [1, 2])
def test_request_line_at_its_limit(pool: Pool, pieces: int) -> None:
    server = pool("--limit-request-line", "100")
    room = 100 - len("GET / HTTP/1.1")
    served(server, get("/" + "a" * room))
    refused(server, get("/" + "a" * (room + 1)), 414)
    refused(server, get("/?" + "a" * room), 414)


def test_default_request_line(server: ServerProcess) -> None:
    served(server, get("/" + "a" * (16384 - len("GET / HTTP/1.1"))))
    refused(server, get("/" + "a" * 16384), 414)


def test_request_line_without_an_end(server: ServerProcess) -> None:
    """It is refused when the limit is met, not when it ends."""
    refused(server, "GET /" + "a" * 20000, 414)


# ------------------------------------------------------------------ fields


def test_number_of_fields(pool: Pool) -> None:
    server = pool("--limit-request-fields", "10")
    served(server, get("/", *(f"X-{i}: y" for i in range(9))))
    refused(server, get("/", *(f"X-{i}: y" for i in range(10))), 431)


def test_default_number_of_fields(server: ServerProcess) -> None:
    served(server, get("/", *(f"X-{i}: y" for i in range(127))))
    refused(server, get("/", *(f"X-{i}: y" for i in range(128))), 431)


def test_fields_without_an_end(server: ServerProcess) -> None:
    refused(server, "GET / HTTP/1.1\r\nHost: a\r\n" + "X: y\r\n" * 200, 431)


def test_size_of_all_fields(pool: Pool) -> None:
    server = pool("--limit-request-head", "1000")
    served(server, get("/", "X: " + "y" * 800))
    refused(server, get("/", "X: " + "y" * 1000), 431)
    refused(server, get("/", *("X: " + "y" * 90 for _ in range(12))), 431)


def test_default_size_of_all_fields(server: ServerProcess) -> None:
    served(server, get("/", "X: " + "y" * 65000))
    refused(server, get("/", "X: " + "y" * 66000), 431)


def test_one_field_without_an_end(server: ServerProcess) -> None:
    refused(server, "GET / HTTP/1.1\r\nHost: a\r\nX: " + "y" * 70000, 431)


def test_one_field_name_without_an_end(server: ServerProcess) -> None:
    refused(server, "GET / HTTP/1.1\r\nHost: a\r\n" + "y" * 70000, 431)


def test_size_of_one_field(pool: Pool) -> None:
    server = pool("--limit-request-field-size", "100")
    served(server, get("/", *("X: " + "y" * 80 for _ in range(10))))
    refused(server, get("/", "X: " + "y" * 120), 431)


def test_the_limit_counts_for_each_request_alone(pool: Pool) -> None:
    server = pool("--limit-request-head", "1000")
    with server.connect() as c:
        for _ in range(20):
            c.send(get("/", "X: " + "y" * 800))
            assert c.response().status == 200
    notes(server)


# ------------------------------------------------------------------ content


@pytest.fixture
def small(pool: Pool) -> ServerProcess:
    return pool("--limit-request-body", "1000")


def test_content_at_its_limit(small: ServerProcess) -> None:
    with small.connect() as c:
        c.post("/", b"x" * 1000)
        assert c.response().status == 200
        c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + "x" * 1000 + "\r\n0\r\n\r\n")
        assert c.response().status == 200
    notes(small)


def test_length_above_the_limit_is_refused_before_the_content(small: ServerProcess) -> None:
    refused(small, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413)


def test_length_above_the_limit_gets_no_100(small: ServerProcess) -> None:
    r = refused(small, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n", 413)
    assert r.informational == []


@pytest.mark.parametrize("size", [1001, 5000, 100000])
def test_chunks_above_the_limit(small: ServerProcess, size: int) -> None:
    data = (
        f"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n" + "x" * size + "\r\n0\r\n\r\n"
    )
    refused(small, data, 413, whole=True)


def test_small_chunks_above_the_limit_in_sum(small: ServerProcess) -> None:
    data = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + "1\r\nx\r\n" * 1500
    refused(small, data, 413, whole=True)


def test_a_client_that_goes_on_sending_still_reads_the_413(small: ServerProcess) -> None:
    """The close must not reset the answer away (RFC 9112 9.6: close in stages)."""
    notes(small)
    body = b"x" * 3_000_000
    with small.connect() as c:
        c.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        for i in range(0, len(body), 100_000):
            c.send(body[i : i + 100_000])
        r = c.response()
        assert (r.status, r.closes) == (413, True)
    notes(small)


def test_a_response_that_has_begun_is_not_followed_by_a_413(small: ServerProcess) -> None:
    """The application answers early; a body that turns out to be too long ends the connection, no more."""
    notes(small)
    with small.connect() as c:
        c.send("POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        assert c.response().body == b"early"
        c.send("ffff\r\n" + "x" * 65535)
        rest = c.expect_close()
        assert b"200" not in rest
    notes(small)


# ------------------------------------------------------------------ concurrency


def test_concurrency_is_counted_in_requests(pool: Pool) -> None:
    """503 for the one too many; idle connections and kept ones are no requests."""
    server = pool("--limit-concurrency", "3")
    notes(server)
    idle = [server.connect() for _ in range(10)]
    for c in idle:
        assert c.get("/").response().status == 200
    busy = [server.connect().get("/nap") for _ in range(3)]
    mark = server.log.mark()
    for _ in range(200):
        with server.connect() as c:
            answer = c.get("/").response()
        if answer.status == 503:
            break
    assert answer.status == 503
    assert answer.body
    server.log.wait_for("concurrency", after=mark)
    assert idle[0].is_open()
    for c in busy:
        assert c.response().body == b"rested"
        c.close()
    for c in idle:
        assert c.get("/").response().status == 200
        c.close()
    notes(server)


def test_maximum_of_requests_says_close_and_ends(launch: object) -> None:
    server: ServerProcess = launch("tests.apps.journal:app", "--limit-max-requests", "5")  # type: ignore[operator]
    with server.connect() as c:
        closed = False
        for _ in range(5):
            try:
                r = c.get("/").response()
            except Closed:
                break
            assert r.status == 200
            closed = r.closes
        assert closed, "the last response has to announce the end"
        c.expect_closed_clean()
    assert server.wait() == 0
    assert "Maximum request limit of 5 exceeded. Terminating process." in server.log.text()


def test_no_request_is_lost_when_the_maximum_is_reached(launch: object) -> None:
    """A pipelined request behind the last one is not answered, but the one that was begun is."""
    server: ServerProcess = launch("tests.apps.journal:app", "--limit-max-requests", "3")  # type: ignore[operator]
    with server.connect() as slow:
        slow.get("/sleep")
        while not active(server)["running"]:
            pass
        with server.connect() as c:
            assert c.get("/-/wake").response().status == 200
        assert slow.response().body == b"awake"
    assert server.wait() == 0


def test_wake_is_possible(server: ServerProcess) -> None:
    """The harness's own means, once by itself."""
    notes(server)
    with server.connect() as c:
        c.get("/sleep")
        while not active(server)["running"]:
            pass
        wake(server)
        assert c.response().body == b"awake"
    notes(server)
