"""A simulator that the tests of one file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.exchange import exchange


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with exchange("--symbols", "16", "--rate", "200", "--start-at", "2026-11-22T23:59:50Z") as market:
        yield market.port
