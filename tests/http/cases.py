"""The form of the tables: bytes in, what has to come of them.

R refuses: an error status, a body that says why, `connection: close`, the
connection ended, a line in the log with peer and reason, and the application
never called (`app="incomplete"`: it may have been called, as the head was fine,
but must not take the content for whole). A accepts: the given requests, in
order, and nothing else, reach the application. E: the RFC leaves the choice;
either R or A. In none of them may a request hidden in the bytes get through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.harness.client import Closed
from tests.harness.journal import notes
from tests.harness.process import ServerProcess

Seen = tuple[str, str] | tuple[str, str, str]
"""What the application sees: method, raw path, and the content if it matters (latin-1)."""
SMUGGLED = "/smuggled"


@dataclass
class Case:
    """One exchange."""

    id: str
    data: bytes
    kind: str
    statuses: tuple[int, ...] = ()
    app: str = "never"
    seen: list[Seen] = field(default_factory=list)
    closes: bool | None = None
    fields: dict[str, str | None] = field(default_factory=dict)
    method: str = "GET"


def octets(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


def R(id: str, data: str | bytes, *statuses: int, app: str = "never", method: str = "GET") -> Case:
    """To be refused, with one of these statuses (400 when none is given)."""
    return Case(id, octets(data), "R", statuses or (400,), app=app, method=method)


def A(
    id: str, data: str | bytes, *seen: Seen, closes: bool | None = None, fields: dict[str, str | None] | None = None
) -> Case:
    """To be served. `fields`: what the application must see of the first request's fields (None: not there)."""
    return Case(id, octets(data), "A", seen=list(seen), closes=closes, fields=fields or {})


def E(id: str, data: str | bytes, *seen: Seen, statuses: tuple[int, ...] = (400, 501, 505)) -> Case:
    """Either."""
    return Case(id, octets(data), "E", statuses=statuses, app="incomplete", seen=list(seen))


def table(*cases: Case) -> Any:
    """parametrize() with the cases; ids are their names."""
    ids = [c.id for c in cases]
    double = {i for i in ids if ids.count(i) > 1}
    assert not double, double
    return pytest.mark.parametrize("case", cases, ids=ids)


def run(server: ServerProcess, case: Case) -> None:
    """Do the exchange and judge it."""
    notes(server)
    mark = server.log.mark()
    with server.connect() as c:
        c.send(case.data)
        if case.kind == "A":
            return check_served(server, case, c)
        first = c.response(case.method)
        if case.kind == "E" and first.status < 400:
            return check_served(server, case, c, first)
        assert first.status in case.statuses, f"{first.status} {first.reason}: {first.text}"
        assert first.body or case.method == "HEAD", "a refusal without a word"
        assert first.closes, f"a refusal that does not announce the close: {first.headers}"
        c.expect_closed_clean()
        peer = f"{c.local[0]}:{c.local[1]}"
    entries = notes(server)
    reached = [(e["method"], e["raw_path"]) for e in entries]
    assert all(SMUGGLED not in path for _, path in reached), f"smuggled: {reached}"
    if case.app == "never":
        assert not entries, f"the application was called: {reached}"
    else:
        whole = [e for e in entries if e["complete"]]
        assert not whole, f"the application took it for a whole request: {whole}"
    if server.ours:
        check_logged(server, mark, peer, first.text)


def check_logged(server: ServerProcess, mark: int, peer: str, text: str) -> None:
    """A line in the log names the peer and the reason that the response gives."""
    line = server.log.wait_for(f"{peer}", after=mark, timeout=5).string
    reason = text.strip().splitlines()[-1].rstrip(".")
    words = {w.lower() for w in reason.replace(":", " ").split() if len(w) > 3}
    logged = {w.lower().rstrip(".") for w in line.replace(":", " ").split()}
    assert len(words & logged) >= min(2, len(words)), f"the log line does not give the reason {reason!r}: {line!r}"


def check_served(server: ServerProcess, case: Case, c: Any, first: Any = None) -> None:
    """The requests of the case, each answered, in order, and no other."""
    responses = [first] if first is not None else []
    for seen in case.seen[len(responses) :]:
        responses.append(c.response(seen[0]))
    for r, seen in zip(responses, case.seen, strict=True):
        assert 200 <= r.status < 300, f"{seen}: {r.status} {r.text}"
    if case.closes is True:
        c.expect_closed_clean()
        assert responses[-1].closes, "the connection ended without an announcement"
    elif case.closes is False:
        assert not responses[-1].closes
        c.get("/still-open")
        assert c.response().status == 200
    else:
        try:
            c.half_close()
        except OSError:
            pass
        c.expect_closed_clean()
    entries = [e for e in notes(server) if e["path"] != "/still-open"]
    assert [(e["method"], e["raw_path"]) for e in entries] == [(s[0], s[1]) for s in case.seen]
    for e, s in zip(entries, case.seen, strict=True):
        if len(s) > 2:
            assert e["complete"], e
            assert e["body"] == s[2], e
    for name, value in case.fields.items():
        found = [v for n, v in entries[0]["headers"] if n == name]
        assert found == ([] if value is None else [value]), f"{name}: {found}"


def refused_without_answer(server: ServerProcess, data: bytes) -> bool:
    """Does it close without a word? (Only where that is right: nothing was asked.)"""
    with server.connect() as c:
        c.send(data)
        c.half_close()
        try:
            c.response()
        except Closed as e:
            return not e.data
        return False
