"""The audit against the simulator: spans, pages, age, weight."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from klshm import intervals
from klshm.audit.auditor import YOUNG_MS, Series, audit, own_governor
from klshm.audit.compare import Report
from klshm.config import Config, ExchangeConfig
from klshm.errors import ArchiveError, ExchangeError
from klshm.exchange.budget import default_state_path
from klshm.exchange.governor import Priority
from tests.audit.support import fill, rows_of
from tests.support.exchange import Exchange, exchange
from tests.support.processes import wait_for


M = 60_000
ENDED = ("BTCUSDT", "ETHUSDT")


@pytest.fixture(scope="module")
def market() -> Iterator[Exchange]:
    with exchange("--symbols", "4", "--rate", "20", "--start-at", "2026-11-20T12:04:05Z") as running:
        yield running


@pytest.fixture(autouse=True)
def no_minute_ends_soon(market: Exchange) -> None:
    """Let no bar close while a test looks at the clock twice."""
    wait_for(lambda: market.now_ms() % M < 40_000)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "klines.db"


def run(market: Exchange, archive: Path, *series: Series, **options: Any) -> Report:
    config = Config(exchange=ExchangeConfig(rest_url=market.rest_url))
    calls: list[tuple[int, int]] = []
    names = options.pop("names", ("1m", "5m"))
    since_ms = options.pop("since_ms", None)
    report = asyncio.run(
        audit(config, archive, list(series), names, since_ms, lambda done, total: calls.append((done, total)))
    )
    total = len(series) * len(names)
    assert calls == [(n, total) for n in range(1, total + 1)]
    return report


def now_ms(market: Exchange) -> int:
    return int(market.get("/fapi/v1/time")["serverTime"])


def test_a_true_archive_passes_over_several_pages(market: Exchange, archive: Path) -> None:
    fill(archive, "BTCUSDT", rows_of(market, "BTCUSDT", "1m", 1200), rows_of(market, "BTCUSDT", "5m", 240))
    since_ms = intervals.open_time_of("5m", now_ms(market)) - 1100 * M
    report = run(market, archive, Series("BTCUSDT"), since_ms=since_ms)
    assert report.passed, report.document()
    until = now_ms(market) - YOUNG_MS
    assert report.per_interval["1m"]["compared"] == until // M - since_ms // M
    assert report.per_interval["5m"]["compared"] == until // (5 * M) - since_ms // (5 * M)
    closed = now_ms(market) // M + now_ms(market) // (5 * M) - since_ms // M - since_ms // (5 * M)
    assert report.excluded_young == closed - report.total("compared") > 0


def test_a_span_that_begins_at_an_end_excludes_the_bar_that_ended_then(market: Exchange, archive: Path) -> None:
    fill(archive, "BTCUSDT", rows_of(market, "BTCUSDT", "1m", 60))
    end = now_ms(market) // M * M - 10 * M
    at, before = (run(market, archive, Series("BTCUSDT"), since_ms=s, names=("1m",)) for s in (end, end - 1))
    assert at.total("compared") == before.total("compared") - 1 > 0


def test_by_default_the_last_day_is_compared(market: Exchange, archive: Path) -> None:
    fill(archive, "BTCUSDT", rows_of(market, "BTCUSDT", "1d", 2))
    report = run(market, archive, Series("BTCUSDT"), names=("1d", "1w"))
    assert report.per_interval["1d"]["compared"] == 1 and report.per_interval["1w"]["compared"] == 0
    assert report.passed


def test_what_is_missing_or_wrong_is_found(market: Exchange, archive: Path) -> None:
    rows = rows_of(market, "BTCUSDT", "1m", 20)
    rows["volume"][5] += 0.001
    fill(archive, "BTCUSDT", rows[rows["open_time"] != rows["open_time"][8]])
    since_ms = int(rows["open_time"][0])
    report = run(market, archive, Series("BTCUSDT"), Series("ETHUSDT"), names=("1m",), since_ms=since_ms)
    assert not report.passed
    eth = report.total("missing") - 1
    assert eth == report.total("compared") + 1  # nothing of the other symbol is there
    assert report.per_field["volume"] == 1
    assert {(b["symbol"], b["problem"]) for b in report.differing} == {
        ("BTCUSDT", "missing"),
        ("BTCUSDT", "different"),
        ("ETHUSDT", "missing"),
    }


def test_a_delisted_symbol_is_compared_to_its_end(market: Exchange, archive: Path) -> None:
    rows = rows_of(market, "BTCUSDT", "1m", 20)
    fill(archive, "BTCUSDT", rows[:10])
    since_ms, end_ms = int(rows["open_time"][0]), int(rows["open_time"][10])
    report = run(market, archive, Series("BTCUSDT", end_ms), names=("1m",), since_ms=since_ms)
    assert report.passed and report.total("compared") == 10 and report.excluded_young == 0


def test_its_weight_is_known_to_the_engine(market: Exchange, archive: Path) -> None:
    fill(archive, "BTCUSDT", rows_of(market, "BTCUSDT", "1m", 20))
    run(market, archive, Series("BTCUSDT"), names=("1m",), since_ms=now_ms(market) - 5 * M)
    assert json.loads(default_state_path().read_text())[market.rest_url]["used"]


def test_it_waits_neither_behind_backfill_nor_before_repairs() -> None:
    now_ms = 29_000_000 * M + 20_000

    def waits(used: int) -> bool:
        governor = own_governor(ExchangeConfig())
        governor.sent(now_ms, used)
        return governor.wait_ms(now_ms, 2, Priority.LISTINGS) > 0

    assert not waits(1440)  # of 2400: backfill ends here
    assert not waits(1798) and waits(1799)  # repairs may go on to 2160


def test_errors_come_out_as_they_are(market: Exchange, archive: Path) -> None:
    with pytest.raises(ArchiveError, match="no archive"):
        run(market, archive, Series("BTCUSDT"))
    fill(archive, "BTCUSDT", rows_of(market, "BTCUSDT", "1m", 20))
    since_ms = now_ms(market) - 10 * M
    with pytest.raises(ExchangeError, match="Invalid symbol"):
        run(market, archive, *[Series(f"NO{n}USDT") for n in range(20)], since_ms=since_ms)
