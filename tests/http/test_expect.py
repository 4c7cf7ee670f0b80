"""RFC 9110 10.1.1: Expect."""

from __future__ import annotations

import pytest

from tests.harness.client import Closed
from tests.harness.journal import active, notes, wake
from tests.harness.process import ServerProcess

EXPECT = "Expect: 100-continue"


def head(target: str, length: int = 5, *fields: str, version: str = "1.1") -> str:
    return "\r\n".join([f"POST {target} HTTP/{version}", "Host: a", f"Content-Length: {length}", *fields, "", ""])


@pytest.mark.parametrize("value", ["100-continue", "100-Continue", "100-CONTINUE"])
def test_100_is_sent_when_the_application_receives(server: ServerProcess, value: str) -> None:
    with server.connect() as c:
        c.send(head("/", 5, f"Expect: {value}"))
        first = c.head()
        assert (first.status, first.version) == (100, "1.1")
        c.send("hello")
        assert b'"body": "hello"' in c.response().body


def test_100_is_not_sent_before_the_application_receives(server: ServerProcess) -> None:
    notes(server)
    with server.connect() as c:
        c.send(head("/late", 5, EXPECT))
        while not active(server)["running"]:
            pass
        assert c.is_open(0.05), "it wrote before the application asked for content"
        wake(server)
        assert c.head().status == 100
        c.send("hello")
        assert b'"body": "hello"' in c.response().body
    notes(server)


def test_no_100_when_the_application_answers_without_reading(server: ServerProcess) -> None:
    """RFC 9110 10.1.1; and since the client may or may not send the content now, the connection ends or the
    content is still read as content."""
    notes(server)
    with server.connect() as c:
        c.send(head("/early", 40, EXPECT))
        r = c.response()
        assert r.informational == []
        assert r.body == b"early"
        c.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nxxxxx")
        try:
            c.get("/next")
            assert c.response().status == 200
        except Closed:
            assert r.closes, "it closed without announcing it"
    assert "/smuggled" not in [e["path"] for e in notes(server)]


def test_no_100_when_the_content_is_there_already(server: ServerProcess) -> None:
    """RFC 9110 10.1.1: it may be left out when content came. One is no error, two are."""
    with server.connect() as c:
        c.send(head("/", 5, EXPECT) + "hello")
        r = c.response()
        assert len(r.informational) <= 1
        assert b'"body": "hello"' in r.body


def test_100_is_sent_once_for_chunked_content(server: ServerProcess) -> None:
    with server.connect() as c:
        c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + EXPECT + "\r\n\r\n")
        assert c.head().status == 100
        c.send_read("2\r\nhe\r\n", "3\r\nllo\r\n", "0\r\n\r\n")
        r = c.response()
        assert r.informational == []
        assert b'"body": "hello"' in r.body


def test_no_100_without_content(server: ServerProcess) -> None:
    """RFC 9110 10.1.1: a server may ignore the expectation of a message without content."""
    with server.connect() as c:
        c.send(f"GET / HTTP/1.1\r\nHost: a\r\n{EXPECT}\r\n\r\n")
        r = c.response()
        assert r.status in (200, 417)
        assert len(r.informational) <= 1


def test_100_is_never_sent_to_10(server: ServerProcess) -> None:
    """RFC 9110 10.1.1 and 15.2: a 1.0 client does not know it."""
    with server.connect() as c:
        c.send(head("/", 5, EXPECT, version="1.0"))
        assert c.is_open(0.05)
        c.send("hello")
        r = c.response()
        assert r.informational == []
        assert r.status == 200


@pytest.mark.ours
@pytest.mark.parametrize("value", ["200-ok", "100-continue, foo", "foo=bar", "100-continue=1"])
def test_another_expectation_is_417(server: ServerProcess, value: str) -> None:
    """RFC 9110 10.1.1: it may be answered so; silence would leave the client waiting."""
    notes(server)
    with server.connect() as c:
        c.send(head("/", 5, f"Expect: {value}"))
        r = c.response()
        assert r.status == 417
        assert r.body
        assert r.closes
        c.expect_closed_clean()
    assert notes(server) == []


def test_the_connection_goes_on_after_100(server: ServerProcess) -> None:
    with server.connect() as c:
        for _ in range(3):
            c.send(head("/", 5, EXPECT))
            assert c.head().status == 100
            c.send("hello")
            assert c.response().status == 200


def test_a_pipelined_request_with_expect_waits_for_its_turn(server: ServerProcess) -> None:
    notes(server)
    with server.connect() as c:
        c.get("/sleep").send(head("/", 5, EXPECT))
        while not active(server)["running"]:
            pass
        assert c.is_open(0.05)
        wake(server)
        assert c.response().body == b"awake"
        assert c.head().status == 100
        c.send("hello")
        assert c.response().status == 200
    notes(server)
