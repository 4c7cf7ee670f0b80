"""Starlette's and FastAPI's suites over our server; minutes, so only with --slow."""

from __future__ import annotations

import pytest

from tests.compat import frameworks


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(frameworks.VERSIONS))
def test_suite_passes_over_sockets(name: str) -> None:
    assert frameworks.main([name]) == 0
