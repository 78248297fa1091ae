"""The engine over a Monday 00:00 UTC: every bar of all six intervals, against the exchange's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.support import compare, trading_symbols, wait_equal
from tests.support.engine import engine
from tests.support.exchange import exchange


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

START = "2026-11-22T23:58:20Z"
"""One hundred seconds before a Monday 00:00 UTC."""
MONDAY_MS = 1_795_392_000_000


@pytest.mark.parametrize("workers", [2, 0])
def test_every_bar_over_a_week_boundary_equals_the_exchange(tmp_path: Path, workers: int) -> None:
    simulated = ("--start-at", START, "--no-boundary-effect", "--no-id-gaps", "--symbols", "30", "--rate", "300")
    with exchange(*simulated) as market:
        symbols = trading_symbols(market)
        with engine(tmp_path, market, f"week-{workers}", "--workers", str(workers)) as running:
            running.wait_live()
            assert market.now_ms() < MONDAY_MS - 60_000, "live too late to see two minutes end"
            wait_equal(market, running, symbols, MONDAY_MS)
            assert running.stop() == 0, running.text()
        result = compare(market, running.archive, symbols, market.start_ms, MONDAY_MS)
    assert result.missing == []
    assert result.different == []
    assert result.equal == result.compared
    # Two minutes and, at Monday 00:00, one bar of each interval for each of the 30 symbols.
    assert result.per_interval == {"1m": 2 * 30, **dict.fromkeys(("5m", "30m", "4h", "1d", "1w"), 30)}
