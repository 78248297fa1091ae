"""The files of an instance, made by the parts that make them in an engine, and what the exchange says they hold."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from klshm import intervals
from klshm.config import Config, DataConfig, ExchangeConfig, HistorianConfig
from klshm.fsck.check import Found, check
from klshm.fsck.repair import repair
from klshm.historian.alone import Wish, fetch_history
from klshm.shm import layout as lay
from klshm.store.archive import Archive
from klshm.store.archive_reader import ArchiveReader
from klshm.store.batch import Batch, Listing, unite
from klshm.store.journal import Journal
from klshm.store.names import archive_path, data_directory, journal_path
from klshm.store.snapshot import snapshot_path, write_snapshot
from klshm.store.state import State
from tests.support.exchange import Exchange


NAMES = ("1m", "5m", "30m", "4h", "1d", "1w")
DEPTHS = {"default": 40, "1m": 260, "1w": 5}
WAITING = 4
"""Minutes that only the journal holds."""

Bars = dict[tuple[str, str], dict[int, tuple[float, ...]]]


@dataclass
class World:
    """A data directory and the market that it was fetched from."""

    market: Exchange
    config: Config

    @property
    def directory(self) -> Path:
        return data_directory(self.config)

    @property
    def archive(self) -> Path:
        return archive_path(self.directory)

    @property
    def journal(self) -> Path:
        return journal_path(self.directory)

    @property
    def snapshot(self) -> Path:
        return snapshot_path(self.directory)

    def copy(self, to: Path) -> World:
        """Return the same files elsewhere."""
        shutil.copytree(self.directory, to / self.config.instance)
        return World(self.market, replace(self.config, data=DataConfig(directory=str(to))))

    def check(self) -> Found:
        return check(self.config.instance, self.directory)

    def repair(self, found: Found | None = None) -> Found:
        wrong = found or self.check()
        return asyncio.run(repair(self.config, self.directory, wrong, lambda done, total: None))

    def execute(self, sql: str, *values: Any) -> list[Any]:
        """Run SQL on the archive, around all of klshm."""
        with closing(sqlite3.connect(self.archive, isolation_level=None)) as connection:
            return connection.execute(sql, values).fetchall()

    def raw(self, symbol: str, interval: str) -> dict[int, tuple[Any, ...]]:
        """Return a series' stored rows, every column, by open time."""
        with closing(ArchiveReader(self.archive)) as reader:
            table = next(s.table for s in reader.series() if (s.symbol, s.interval) == (symbol, interval))
        return {row[0]: row for row in self.execute(f'SELECT * FROM "{table}"')}


def make_world(market: Exchange, directory: Path) -> World:
    """Fetch an archive, and let a journal and a snapshot hold what comes after."""
    config = Config(
        exchange=ExchangeConfig(rest_url=market.rest_url),
        historian=HistorianConfig(bars_per_interval=DEPTHS),
        data=DataConfig(directory=str(directory)),
    )
    world = World(market, config)
    world.directory.mkdir(parents=True)
    outcome = asyncio.run(fetch_history(config, world.archive, Wish(None, NAMES), lambda *progress: None))
    assert outcome.failed == {}
    (world.directory / "initial_state.bin").unlink(missing_ok=True)
    symbols = sorted({symbol for symbol, _ in stored(world)})
    listings = tuple(Listing(name) for name in symbols)
    with closing(ArchiveReader(world.archive)) as reader:
        tails = [reader.read_series(name, "1m", limit=WAITING + 2) for name in symbols]
    for slot, rows in enumerate(tails):
        rows["slot"] = slot
    journal = Journal(world.journal)
    minutes = [Batch(listings, np.concatenate([rows[i : i + 1] for rows in tails])) for i in range(WAITING + 2)]
    for minute in minutes:
        journal.append([minute], "ab" * 16, {"log/0": 100, "historian": 7})
    live = np.concatenate([rows[-1:] for rows in tails])
    live["open_time"] += intervals.MINUTE_MS
    live["state"], live["revision"] = lay.STATE_LIVE, 0
    journal.put_latest(Batch(listings, live), dict(enumerate(intervals.INTERVALS)))
    archived = unite(minutes[:2])
    with closing(Archive(world.archive, config.store)) as archive:
        archive.write(archived, watermark=(journal.uuid, 2))
    journal.trim(2)
    journal.close()
    since = int(minutes[2].rows["open_time"][0])
    for table in [s for (s,) in world.execute("SELECT table_name FROM series WHERE interval = '1m'")]:
        world.execute(f'DELETE FROM "{table}" WHERE open_time >= ?', since)
    table = np.zeros(len(symbols), dtype=lay.SYMBOL)
    table["name"], table["pair"] = [[name.encode() for name in symbols]] * 2
    table["status"], table["price_decimals"], table["quantity_decimals"] = lay.SYMBOL_TRADING, 2, 3
    write_snapshot(world.snapshot, "main", NAMES, State("engine", table, live, (), market.now_ms(), 0))
    return world


def stored(world: World) -> Bars:
    """Return the nine fields of every bar that archive and journal hold, better ones first."""
    found: Bars = {}
    with closing(ArchiveReader(world.archive)) as reader:
        for series in reader.series():
            rows = reader.read_series(series.symbol, series.interval, limit=100_000)
            found.setdefault((series.symbol, series.interval), {}).update(fields(rows))
    if (world.journal / "data.mdb").exists():
        journal = Journal(world.journal)
        for _, block in journal.read(0, 1 << 30):
            for row in block.rows if block is not None else ():
                key = block.listings[row["slot"]].name, intervals.name_of(int(row["interval"]))
                found.setdefault(key, {}).update(fields(np.array([row])))
        journal.close()
    return found


def fields(rows: Any) -> dict[int, tuple[float, ...]]:
    """Return the nine fields of bars by open time."""
    names = ("open", "high", "low", "close", "volume", "quote_volume", "trade_count")
    cells = (*names, "taker_buy_volume", "taker_buy_quote_volume")
    return {int(row["open_time"]): tuple(float(row[name]) for name in cells) for row in rows}


def official(market: Exchange, wanted: Bars) -> Bars:
    """Return what the exchange itself says of the same bars."""
    found: Bars = {}
    for (symbol, interval), bars in wanted.items():
        first, last = min(bars), max(bars)
        rows = market.get(
            "/fapi/v1/klines", symbol=symbol, interval=interval, startTime=first, endTime=last, limit=1500
        )
        found[symbol, interval] = {
            row[0]: tuple(float(row[i]) for i in (1, 2, 3, 4, 5, 7, 8, 9, 10)) for row in rows
        }
    return found
