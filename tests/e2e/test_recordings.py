"""Recorded trades through simulator, WebSocket, worker, segment, journal and SQLite: the official rows."""

from __future__ import annotations

import csv
import gzip
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest

from tests.support.engine import engine
from tests.support.exchange import exchange
from tests.support.processes import PROJECT, wait_for


pytestmark = [pytest.mark.e2e, pytest.mark.recorded, pytest.mark.timeout(1200)]

DATA = PROJECT / ".." / "shared" / "data"
MINUTE_MS = 60_000


def _stored(archive: Path, open_time: int) -> tuple[float, ...] | None:
    with sqlite3.connect(f"file:{archive}?mode=ro", uri=True) as database:
        found: tuple[float, ...] | None = database.execute(
            'SELECT open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume, '
            'taker_buy_quote_volume FROM "k_btc_1m" WHERE open_time = ?',
            (open_time,),
        ).fetchone()
        return found


def _official(row: list[str]) -> tuple[float, ...]:
    return (*map(float, row[1:6]), float(row[7]), int(row[8]), float(row[9]), float(row[10]))


def _play(tmp_path: Path, recording: Path, rows: list[list[str]], first_ms: int, last_ms: int, name: str) -> int:
    """Play a recording through a whole engine and return how many full minutes equal the official rows."""
    full = [row for row in rows if int(row[0]) >= first_ms and int(row[0]) + MINUTE_MS <= last_ms]
    with (
        exchange("--replay", f"BTCUSDT={recording}") as market,
        engine(tmp_path, market, name, "--workers", "1") as running,
    ):
        running.wait_live()
        wait_for(lambda: market.now_ms() > last_ms, 900, running.text)
        wait_for(lambda: all(_stored(running.archive, int(row[0])) == _official(row) for row in full))
        assert running.stop() == 0, running.text()
    for row in full:
        assert _stored(running.archive, int(row[0])) == _official(row), f"minute {row[0]}"
    return len(full)


def test_recorded_trades_give_the_official_rows(tmp_path: Path) -> None:
    folder = DATA / "btcusdt-trades-2026-02-16"
    if not folder.exists():
        pytest.skip(f"the recording is not in {DATA}")
    trades = folder / "trades_btc_fut_2026-02-16_04.csv.gz"
    with gzip.open(trades, "rt") as file:
        times = [int(row["exch_ts_ms"]) for row in csv.DictReader(file)]
    with next(folder.glob("BTCUSDT-1m*.csv")).open() as file:
        rows = list(csv.reader(file))[1:]
    first_ms = times[0] // MINUTE_MS * MINUTE_MS
    assert _play(tmp_path, trades, rows, first_ms, times[-1] // MINUTE_MS * MINUTE_MS, "trades") == 5


def test_recorded_aggregate_trades_give_the_official_rows(tmp_path: Path) -> None:
    folder = DATA / "spot-btcusdt-2020-01-02"
    if not folder.exists():
        pytest.skip(f"the recording is not in {DATA}")
    recording = folder / "spot_aggTrades_BTCUSDT_20200102.json"
    times = [row["T"] for row in json.loads(recording.read_text())]
    with zipfile.ZipFile(folder / "BTCUSDT-1m-2020-01-02.zip") as archive:
        lines = archive.read(archive.namelist()[0]).decode().splitlines()
    rows = [line.split(",") for line in lines if line[0].isdigit()]
    first_ms = -(-times[0] // MINUTE_MS) * MINUTE_MS
    assert _play(tmp_path, recording, rows, first_ms, times[-1] // MINUTE_MS * MINUTE_MS, "aggtrades") == 7
