"""gc.freeze() after the application's start: only where the process is ours."""

from __future__ import annotations

import pytest

from tests.harness.process import ServerProcess
from tests.harness.thread import ThreadServer

pytestmark = pytest.mark.ours
APP = "tests.apps.frozen:app"


@pytest.mark.parametrize(("options", "frozen"), [((), True), (("--no-gc-freeze",), False), (("--workers", "2"), True)])
def test_what_the_start_made_is_frozen(options: tuple[str, ...], frozen: bool) -> None:
    with ServerProcess(APP, *options) as server, server.connect() as client:
        assert (int(client.get("/").response().body) > 0) is frozen


def test_a_server_in_a_thread_freezes_nothing() -> None:
    from tests.apps.frozen import app

    with ThreadServer(app) as server, server.connect() as client:
        assert int(client.get("/").response().body) == 0
