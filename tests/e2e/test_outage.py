"""Minutes without a network: no bar is missing afterwards, each equals the exchange's own, and little weight was spent.

With `KLSHM_LONG=1` an outage lasts six minutes and hits a market of 100 symbols, and what was spent is
written to `bench/results/outage.json`; by default it lasts until two minutes have ended, with 24 symbols.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.official import waiting
from tests.e2e.support import compare, trading_symbols
from tests.support.engine import Engine, engine
from tests.support.exchange import Exchange, exchange
from tests.support.processes import PROJECT, wait_for


IS_LONG = bool(os.environ.get("KLSHM_LONG"))
RESULTS = PROJECT / "bench" / "results" / "outage.json"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200 if IS_LONG else 900),
]

M = 60_000
SYMBOLS, MINUTES = (100, 6) if IS_LONG else (24, 2)
REST_READS = 2
"""How often a minute may be read that only REST can prove: young, to be known soon, and again when it is final."""


class Outage:
    """An engine that loses its streams.

    Args:
        market: The exchange.
        running: The engine.
    """

    def __init__(self, market: Exchange, running: Engine) -> None:
        self.market, self.running = market, running
        self.symbols = trading_symbols(market)
        self.hit: list[str] = []
        self.begun_ms = market.now_ms()
        self.ended_ms = 0
        self._before = self._spent()

    def mute(self, symbols: list[str], seconds: float) -> None:
        """Let both streams of these symbols be silent."""
        self.hit = symbols
        for symbol in symbols:
            for stream in ("aggTrade", "kline"):
                self.market.fault(name="mute", stream=stream, seconds=seconds, symbol=symbol)

    def cut(self, seconds: float) -> None:
        """Close all connections and refuse new ones."""
        self.hit = self.symbols
        self.market.fault(name="refuse", seconds=seconds)
        self.market.fault(name="close")

    def until(self, condition: Callable[[], object], timeout_s: float = 240.0) -> None:
        """Wait for what must come."""
        wait_for(condition, timeout_s, self.running.text)

    def wait(self) -> None:
        """Wait until so many minutes have ended without a network, and a little more."""
        last_ms = (self.begun_ms // M + MINUTES) * M
        self.until(lambda: self.market.now_ms() > last_ms + 10_000, 60.0 * MINUTES + 240.0)
        self.market.fault(name="clear")
        self.ended_ms = self.market.now_ms()

    def finish(self) -> None:
        """Wait until every bar that has closed is official, compare all of them, and judge what that has cost."""
        end_ms = self.ended_ms // M * M + M  # with the minute in which the streams came back
        self.until(lambda: self.market.now_ms() > end_ms and not waiting(*self._span(end_ms)))
        spent = {purpose: weight - self._before[purpose] for purpose, weight in self._spent().items()}
        found = compare(self.market, self.running.archive, self.symbols, self.market.start_ms, end_ms)
        assert found.missing == [] and found.different == []
        assert found.compared == found.equal == found.confirmed
        assert found.per_interval["1m"] >= (MINUTES + 1) * len(self.symbols)
        least = self._least(end_ms)
        minutes = (end_ms - self.begun_ms) // M + 1
        figures = {"minutes": minutes, "symbols": len(self.symbols), "symbols_hit": len(self.hit)}
        figures |= {"bars_compared": found.compared, "bars_equal": found.equal, "minutes_only_rest_proves": least}
        figures |= {f"weight_{purpose}": weight for purpose, weight in spent.items()}
        print(figures)
        if IS_LONG:
            kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            RESULTS.write_text(json.dumps({**kept, self.running.instance: figures}, indent=2) + "\n")
        assert 0 < spent["repair"] + spent["confirm"] <= REST_READS * least
        assert spent["backfill"] == 0
        audit = self.running.klshm("audit", "--json")
        assert audit.returncode == 0, audit.stdout + audit.stderr
        assert json.loads(audit.stdout)["equal"] >= MINUTES * len(self.symbols)
        assert self.running.stop() == 0, self.running.text()
        assert "Traceback" not in self.running.text()

    def _span(self, end_ms: int) -> tuple[Path, int, int]:
        return self.running.archive, self.market.start_ms, end_ms

    def _spent(self) -> dict[str, int]:
        """Return the weight spent so far, by purpose; what the clock cost, which is counted as repair, left out."""
        told = self.running.status()
        weights: dict[str, int] = told["exchange"]["weights"]
        return {**weights, "repair": weights["repair"] - told["counters"]["historian"]["clock_samples_total"]}

    def _least(self, end_ms: int) -> int:
        """Return how many minutes nothing but REST can prove: without streams, or without trades."""
        least = 0
        for symbol in self.symbols:
            since_ms = self.begun_ms // M * M - M  # the one before may have waited for its confirmation
            rows = self.market.get("/fapi/v1/klines", symbol=symbol, interval="1m", startTime=since_ms, limit=99)
            lost_until_ms = self.ended_ms if symbol in self.hit else since_ms
            least += sum(row[0] < lost_until_ms or row[8] == 0 for row in rows if row[0] < end_ms)
        return least


@contextmanager
def outage(tmp_path: Path, name: str, *options: str) -> Iterator[Outage]:
    """An engine that is live and has its history."""
    market_of = ("--symbols", str(SYMBOLS), "--rate", str(8 * SYMBOLS))
    room: tuple[Any, ...] = ("--set", f"segment.max_symbols={SYMBOLS + 8}", "--workers", "2")
    with exchange(*market_of) as market, engine(tmp_path, market, name, *room, *options) as running:
        running.wait_live()
        running.wait_said("backfill finished")
        yield Outage(market, running)


def test_half_of_the_symbols_without_streams_for_minutes(tmp_path: Path) -> None:
    with outage(tmp_path, "mute") as at:
        at.mute(at.symbols[::2], 3600)
        at.wait()
        assert "streams mute symbols=" in at.running.text()
        at.finish()


def test_all_connections_closed_and_refused_for_minutes(tmp_path: Path) -> None:
    # Back-off with jitter brings them back by itself; its longest pause is cut short to keep the test short.
    with outage(tmp_path, "cut", "--set", "exchange.reconnect_max_s=8") as at:
        at.cut(3600)
        at.until(lambda: at.running.status().get("connections") == 0)
        at.wait()
        assert at.running.text().count("stream lost stream=0") == 2
        assert "the handshake was answered with HTTP 503" in at.running.text()
        at.until(lambda: at.running.status().get("connections") == 2)
        at.ended_ms = at.market.now_ms()
        at.finish()
