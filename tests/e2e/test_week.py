"""The engine over a Monday 00:00 UTC: every bar of all six intervals, against the exchange's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.support import compare, trading_symbols
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
        options = ("--workers", str(workers), "--duration", "150")
        with engine(tmp_path, market, f"week-{workers}", *options) as running:
            running.wait_live()
            live_ms = market.now_ms()
            assert running.process.wait(300) == 0, running.text()
            end_ms = live_ms + 148_000
        result = compare(market, running.archive, symbols, market.start_ms, end_ms)
    assert result.missing == []
    assert result.different == []
    assert result.equal == result.compared
    # Two minutes and, at Monday 00:00, one bar of each interval for each of the 30 symbols.
    minutes = result.per_interval.pop("1m")
    assert minutes >= 2 * 30
    assert result.per_interval == dict.fromkeys(("5m", "30m", "4h", "1d", "1w"), 30)
    assert market.start_ms < MONDAY_MS < end_ms
