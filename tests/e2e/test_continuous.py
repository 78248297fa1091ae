"""The engine on continuous klines, whose ids are no trade ids: every bar still ends as the exchange's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from klshm.read import attach
from klshm.read.reader import Reader
from klshm.shm import layout as lay
from klshm.shm.counters import WORKER, Counters
from tests.e2e.support import compare, trading_symbols
from tests.support.engine import engine
from tests.support.exchange import Exchange, exchange
from tests.support.processes import wait_for


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

START = "2026-11-20T10:28:10Z"
HALF_HOUR_MS = 1_795_170_600_000
"""10:30: a minute, five minutes and half an hour end."""
MINUTE_MS = 60_000
END_MS = HALF_HOUR_MS + MINUTE_MS


def test_every_traded_bar_is_confirmed_by_continuous_klines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--workers", "2", "--set", "exchange.official_stream=continuousKline")
    with exchange("--start-at", START, "--symbols", "12", "--rate", "240") as market:
        symbols = trading_symbols(market)
        with engine(tmp_path, market, "continuous", *options) as running:
            running.wait_live()
            wait_for(lambda: market.now_ms() > END_MS + 20_000, 240, running.text)
            monkeypatch.setenv("KLSHM_SHM_DIRECTORY", running.environment["KLSHM_SHM_DIRECTORY"])
            with attach("continuous") as reader:
                traded = check_bars(reader, market, symbols)
                check_counters(reader, traded)
            assert running.stop() == 0, running.text()
        result = compare(market, running.archive, symbols, market.start_ms, END_MS)
    assert result.missing == [] and result.different == []
    assert result.equal == result.compared
    assert result.per_interval == {"1m": 3 * len(symbols), "5m": len(symbols), "30m": len(symbols)}


def check_bars(reader: Reader, market: Exchange, symbols: list[str]) -> int:
    """Check that every bar with trades is confirmed and that no bar names an id that no trade has.

    Returns:
        How many minutes with trades have closed over the half hour.
    """
    minutes = 0
    for symbol in symbols:
        for interval in ("1m", "5m", "30m"):
            rows = reader.history(symbol, interval, 3, include_live=True)
            newest = market.get("/fapi/v1/aggTrades", symbol=symbol, limit=1)[0]["l"]
            assert np.all(rows["last_trade_id"] <= newest), (symbol, interval, newest, rows)
            closed = rows[(rows["state"] != lay.STATE_LIVE) & (rows["trade_count"] > 0)]
            assert np.all(closed["state"] == lay.STATE_CONFIRMED), (symbol, interval, closed)
            if interval == "1m":
                minutes += np.count_nonzero(closed["open_time"] >= HALF_HOUR_MS - MINUTE_MS)
    return minutes


def check_counters(reader: Reader, traded: int) -> None:
    """Check that final frames confirmed the bars, and that no id of a frame was held against those of trades."""
    found = dict.fromkeys(WORKER, 0)
    for view in reader.source.views:
        for name, value in Counters(view.block, WORKER).as_dict().items():
            found[name] += value
    assert found["confirmed_by_final_frame_total"] >= traded > 0
    by_id = ("confirmed_by_next_frame_total", "frames_clean_total", "frames_cut_total", "frames_skipped_total")
    wrong = ("holes_total", "doubts_total", "contradictions_total", "refused_total", "id_resets_total")
    by_id += ("symbols_silent",)
    assert {name: found[name] for name in by_id + wrong} == dict.fromkeys(by_id + wrong, 0)
