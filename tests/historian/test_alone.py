"""The data service alone: complete, repeatable, stoppable, and honest about what failed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from klshm import intervals
from klshm.audit.auditor import Series, audit
from klshm.config import Config, ExchangeConfig, HistorianConfig
from klshm.errors import UnknownSymbol
from klshm.historian import alone as alone_module
from klshm.historian.alone import Outcome, Wish, fetch_history
from klshm.run.lock import InstanceLock
from klshm.store.archive_reader import ArchiveReader
from tests.support.exchange import Exchange, exchange
from tests.support.processes import PROJECT


M = 60_000
NAMES = ("1m", "5m", "30m", "4h", "1d", "1w")
DEPTHS = {"default": 30, "1m": 520, "1w": 5}


@pytest.fixture(scope="module")
def market() -> Iterator[Exchange]:
    # Twenty seconds into a minute: no bar closes while a test looks at the clock twice.
    with exchange("--symbols", "3", "--rate", "20", "--start-at", "2026-11-20T12:04:20Z") as running:
        yield running


@pytest.fixture(autouse=True)
def own_purse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def configured(market: Exchange, concurrency: int = 15) -> Config:
    historian = HistorianConfig(concurrency=concurrency, bars_per_interval=DEPTHS)
    return Config(exchange=ExchangeConfig(rest_url=market.rest_url), historian=historian)


def run(market: Exchange, path: Path, *, names: Sequence[str] = NAMES, **wish: Any) -> Outcome:
    said: list[tuple[int, int, int]] = []
    wanted = Wish(wish.get("symbols"), names, wish.get("since_ms"))
    config = configured(market, wish.get("concurrency", 15))
    outcome = asyncio.run(fetch_history(config, path, wanted, lambda *progress: said.append(progress)))
    assert [done for done, _, _ in said] == list(range(1, outcome.tasks + 1))
    return outcome


def stored(path: Path, symbol: str, interval: str) -> list[int]:
    reader = ArchiveReader(path)
    try:
        return reader.read_series(symbol, interval, limit=100_000)["open_time"].tolist()
    finally:
        reader.close()


def assert_official(market: Exchange, path: Path, since_ms: int, names: Sequence[str]) -> None:
    symbols = [Series(name) for name in ("BTCUSDT", "ETHUSDT")]
    report = asyncio.run(audit(configured(market), path, symbols, names, since_ms, lambda done, total: None))
    assert report.total("compared") > 0 and report.total("equal") == report.total("compared")
    assert report.total("missing") == 0


def test_new_series_get_the_configured_depth_and_a_repetition_costs_next_to_nothing(
    market: Exchange, tmp_path: Path
) -> None:
    path = tmp_path / "klines.db"
    outcome = run(market, path)
    assert outcome.failed == {} and outcome.tasks == 3 * 6
    assert outcome.rows == 3 * (520 + 4 * 30 + 5)
    for name in NAMES:
        times, length_ms = stored(path, "ETHUSDT", name), intervals.length_ms(name)
        assert len(times) == DEPTHS.get(name, 30)
        assert times[-1] == intervals.open_time_of(name, market.now_ms()) - length_ms
    assert_official(market, path, market.now_ms() - 140 * M, ("1m", "5m", "30m"))
    again = run(market, path)
    # Only the newest bars, read so young that they might still have moved, are asked for again.
    assert again.failed == {} and again.rows <= 3 * 6 and again.weight < outcome.weight


def test_since_reaches_back_as_far_as_the_series(market: Exchange, tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    since_ms = market.now_ms() - 1200 * M
    outcome = run(market, path, symbols=["BTCUSDT"], names=("1m",), since_ms=since_ms)
    times = stored(path, "BTCUSDT", "1m")
    assert outcome.tasks == 1 and outcome.failed == {}
    assert times[0] == -(-since_ms // M) * M and times == list(range(times[0], times[-1] + M, M))
    first = market.get("/fapi/v1/klines", symbol="BTCUSDT", interval="1w", startTime=0, limit=1)[0][0]
    whole = run(market, path, symbols=["BTCUSDT"], names=("1w",), since_ms=1)
    assert whole.failed == {} and stored(path, "BTCUSDT", "1w")[0] == first


def test_what_was_cut_off_goes_on_where_it_ended(market: Exchange, tmp_path: Path) -> None:
    path = tmp_path / "klines.db"

    async def cut() -> None:
        ended = asyncio.Event()
        wish = Wish(None, NAMES)

        def look(done: int, tasks: int, rows: int) -> None:
            if done == 5:
                ended.set()

        task = asyncio.create_task(fetch_history(configured(market), path, wish, look))
        await ended.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut())
    before = sum(len(stored(path, name, "1m")) for name in ("BTCUSDT", "ETHUSDT"))
    outcome = run(market, path)
    assert outcome.failed == {} and before > 0
    assert outcome.rows < 3 * (520 + 4 * 30 + 5)
    assert len(stored(path, "BTCUSDT", "1m")) == len(stored(path, "ETHUSDT", "1m")) == 520


def test_a_series_that_fails_is_named_and_the_others_are_complete(
    market: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone_module, "_PAUSE_S", (0.01, 0.02))
    path = tmp_path / "klines.db"
    market.fault(name="http_status", status=503, count=alone_module._TRIES, path="klines")
    outcome = run(market, path, symbols=["BTCUSDT"], names=("1m", "5m"), concurrency=1)
    assert list(outcome.failed) == ["BTCUSDT 1m"] and "503" in outcome.failed["BTCUSDT 1m"]
    assert len(stored(path, "BTCUSDT", "5m")) == 30
    assert run(market, path, symbols=["BTCUSDT"], names=("1m", "5m")).failed == {}
    assert len(stored(path, "BTCUSDT", "1m")) == 520


def test_an_unlisted_symbol_is_an_error(market: Exchange, tmp_path: Path) -> None:
    with pytest.raises(UnknownSymbol, match="'NOPEUSDT' is not listed"):
        run(market, tmp_path / "klines.db", symbols=["NOPEUSDT"])


def command(market: Exchange, tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    settings = {"exchange.rest_url": market.rest_url, "data.directory": tmp_path, "historian.concurrency": 3}
    arguments = [f"--set={key}={value}" for key, value in settings.items()]
    depths = "--set=historian.bars_per_interval={default=20}"
    return subprocess.run(
        [sys.executable, "-m", "klshm", "backfill", *arguments, depths, *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )


def test_the_command(market: Exchange, tmp_path: Path) -> None:
    done = command(market, tmp_path, "--symbols", "BTCUSDT", "--intervals", "1m,5m")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 series, 40 rows fetched, 0 series failed, ")
    done = command(market, tmp_path, "--symbols", "BTCUSDT", "--json", "--since", "2026-11-20T11:00:00Z")
    assert done.returncode == 0 and json.loads(done.stdout)["failed"] == {}
    assert stored(tmp_path / "main" / "klines.db", "BTCUSDT", "1m")[0] <= 1_795_172_400_000
    done = command(market, tmp_path, "--intervals", "3m")
    assert done.returncode == 2 and done.stderr.startswith("klshm: interval '3m' is not kept; kept are 1m, 5m")
    with InstanceLock(tmp_path / "main", "main"):
        done = command(market, tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("klshm: instance 'main' is running")
    market.fault(name="http_status", status=418, count=1, path="klines")
    done = command(market, tmp_path, "--symbols", "ETHUSDT", "--intervals", "1m")
    assert done.returncode == 1 and "failed: ETHUSDT 1m: 127.0.0.1" in done.stdout and "418" in done.stdout
