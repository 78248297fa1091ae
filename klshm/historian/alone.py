"""The data service without an engine: what the archive lacks is fetched and stored, then it ends.

At its end it leaves the snapshot that the next start of an engine goes on from.

Every page of every series is looked up in the archive first, so a run that was cut off, or
repeated, goes on where the last one ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.config import Config
from klshm.config.depths import depths_of
from klshm.errors import ExchangeError, ExchangeRefused, ExchangeUnreachable, IpBanned, RowsRefused, UnknownSymbol
from klshm.exchange.backoff import Backoff
from klshm.exchange.budget import shared_purse
from klshm.exchange.governor import Governor, Priority
from klshm.exchange.models import ExchangeInfo, Listing, select
from klshm.exchange.offset import exchange_offset_ns
from klshm.exchange.rest import RestClient
from klshm.historian.archived import Archived
from klshm.historian.source import PAGE_ROWS, RowSource
from klshm.historian.start_file import write_start_file
from klshm.historian.symbols import Entry
from klshm.historian.tasks import missing_range
from klshm.shm import layout as lay
from klshm.store.archive import Archive
from klshm.store.batch import Batch
from klshm.store.batch import Listing as StoredListing


__all__ = ["Outcome", "Wish", "fetch_history"]

Rows = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)

_MEND_MS: Final = 30 * 86_400_000
"""How far back a break in a stored series is looked for, unless it ended before."""
_TRIES: Final = 5
_PAUSE_S: Final = (1.0, 30.0)
_PATIENCE_S: Final = 300.0
"""After so long without an answer the series that are left are not asked for."""
_TRADING: Final = "TRADING"


@dataclass(frozen=True)
class Wish:
    """What is to be fetched.

    Attributes:
        symbols: Only these; None: all that the configuration takes.
        names: Intervals.
        since_ms: From this open time on, UTC ms; None: the configured depth, or all since the last stored bar.
    """

    symbols: Sequence[str] | None
    names: Sequence[str]
    since_ms: int | None = None


@dataclass
class Outcome:
    """What became of it.

    Attributes:
        tasks: Series that were looked at.
        rows: Rows fetched and stored.
        requests: Requests sent.
        weight: Request weight they cost.
        duration_s: Seconds it took.
        failed: Series that are not complete, and why.
    """

    tasks: int = 0
    rows: int = 0
    requests: int = 0
    weight: int = 0
    duration_s: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)


class _Answers:
    """When the last answer came. Nobody reads counters here: what was refused shows in the failed series."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._last_s

    def answered(self) -> None:
        """Take note of an answer."""
        self._last_s = time.monotonic()

    def refused(self, rows: int) -> None:
        """Take note of rows that could not be believed."""
        _log.info("rows refused count=%d", rows)


async def fetch_history(config: Config, path: Path, wish: Wish, progress: Callable[[int, int, int], None]) -> Outcome:
    """Fetch and store what the archive lacks.

    Args:
        config: Where the exchange is, how much weight may be used, which contracts are taken.
        path: The SQLite file; made if there is none. Nobody else may write it meanwhile.
        wish: What is to be fetched.
        progress: Called with series done, series to do and rows fetched.

    Raises:
        ExchangeError: If not even the list of contracts could be had.
        ArchiveError: If the archive cannot be written.
        UnknownSymbol: If a symbol that was asked for is not listed.
    """
    began_s = time.monotonic()
    governor = Governor(config.exchange.weight_share, config.exchange.backfill_weight_share)
    offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms() -> int:
        return (time.monotonic_ns() + offset_ns) // 1_000_000

    purse = shared_purse(config.exchange)
    connections = max(1, config.historian.concurrency)
    async with RestClient(config.exchange, governor, now_ms, connections=connections, purse=purse) as client:
        offset_ns = await exchange_offset_ns(client)
        listings = _wanted(await client.exchange_info(), config, wish.symbols)
        run = _Run(config, path, client, now_ms, progress)
        try:
            await run.all(_entries(listings), wish, connections)
        finally:
            run.close()
        names = tuple(config.klines.intervals)
        skew_ms = now_ms() - time.time_ns() // 1_000_000
        write_start_file(path, config.instance, names, listings, now_ms(), skew_ms)
        run.outcome.requests = client.requests
        run.outcome.weight = sum(client.weights.values())
    run.outcome.duration_s = time.monotonic() - began_s
    return run.outcome


def _wanted(info: ExchangeInfo, config: Config, symbols: Sequence[str] | None) -> list[Listing]:
    trading = [listing for listing in select(info.listings, config.exchange) if listing.status == _TRADING]
    if symbols is None:
        return trading
    by_name = {listing.symbol: listing for listing in info.listings}
    for symbol in symbols:
        if symbol not in by_name:
            raise UnknownSymbol(f"symbol {symbol!r} is not listed; listed are {len(by_name)}, such as BTCUSDT")
    return [by_name[symbol] for symbol in symbols]


def _entries(listings: Iterable[Listing]) -> list[Entry]:
    return [
        Entry(
            slot=slot,
            name=listing.symbol,
            status=lay.SYMBOL_TRADING,
            worker=0,
            local_slot=slot,
            price_decimals=listing.price_precision,
            quantity_decimals=listing.quantity_precision,
            onboard_ms=listing.onboard_date,
            delivery_ms=listing.delivery_date,
            trades_24h=0,
        )
        for slot, listing in enumerate(listings)
    ]


class _Run:
    """One walk over all series, several at a time."""

    def __init__(
        self,
        config: Config,
        path: Path,
        client: RestClient,
        now_ms: Callable[[], int],
        progress: Callable[[int, int, int], None],
    ) -> None:
        self.outcome = Outcome()
        self._depths = depths_of(config.historian.bars_per_interval, config.store.retention_days)
        self._now_ms = now_ms
        self._progress = progress
        self._answers = _Answers()
        self._source = RowSource(client, [], self._answers, now_ms)
        self._writer = ThreadPoolExecutor(1, "archive writer")
        # SQLite's connections belong to the thread that opened them.
        self._archive: Archive = self._writer.submit(Archive, path, config.store).result()
        self._archived = Archived(path)
        self._done = 0

    def close(self) -> None:
        """End the threads."""
        self._archived.close()
        self._writer.submit(self._archive.close)
        self._writer.shutdown()

    async def all(self, entries: list[Entry], wish: Wish, at_once: int) -> None:
        """Fetch what is missing of all series."""
        series = [(entry, name) for entry in entries for name in wish.names]
        self.outcome.tasks = len(series)
        waiting = iter(series)
        workers = [asyncio.create_task(self._work(waiting, wish.since_ms)) for _ in range(at_once)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, waiting: Iterator[tuple[Entry, str]], since_ms: int | None) -> None:
        for entry, name in waiting:
            try:
                await self._series(entry, name, since_ms)
            except ExchangeError as error:
                self.outcome.failed[f"{entry.name} {name}"] = str(error)
            self._done += 1
            self._progress(self._done, self.outcome.tasks, self.outcome.rows)

    async def _series(self, entry: Entry, name: str, since_ms: int | None) -> None:
        length_ms = intervals.length_ms(name)
        last_ms = intervals.open_time_of(name, self._now_ms()) - length_ms
        first_ms = await self._first_ms(entry, name, last_ms, since_ms)
        for page_ms in range(first_ms, last_ms + 1, PAGE_ROWS * length_ms):
            await self._page(entry, name, page_ms, min(page_ms + (PAGE_ROWS - 1) * length_ms, last_ms))

    async def _first_ms(self, entry: Entry, name: str, last_ms: int, since_ms: int | None) -> int:
        length_ms = intervals.length_ms(name)
        if since_ms is None:
            first_ms = last_ms - (self._depths[name] - 1) * length_ms
            whole_until_ms = await self._archived.whole_until_ms(entry, name, last_ms - _MEND_MS)
            if whole_until_ms is None:
                whole_until_ms = await self._archived.whole_until_ms(entry, name, 0)
            if whole_until_ms is not None:
                first_ms = min(first_ms, whole_until_ms + length_ms)
        else:
            first_ms = intervals.open_time_of(name, since_ms + length_ms - 1)
        return max(first_ms, intervals.open_time_of(name, entry.onboard_ms))

    async def _page(self, entry: Entry, name: str, first_ms: int, last_ms: int) -> None:
        held = await self._archived.confirmed(entry, name, first_ms, last_ms, self._now_ms())
        origin_ms = self._source.origin_ms(entry)
        if origin_ms is not None:
            first_ms = max(first_ms, intervals.open_time_of(name, origin_ms))
        missing = missing_range(held["open_time"].tolist(), first_ms, last_ms, intervals.length_ms(name))
        if missing is None:
            return
        rows = await self._fetch(entry, name, *missing, is_fresh=missing == (first_ms, last_ms))
        if not len(rows) and self._source.origin_ms(entry) is None:
            raise RowsRefused(f"{entry.name} klines: no rows at all; it has not traded yet, or the exchange lost them")
        stored = rows.copy()
        stored["slot"] = 0
        batch = Batch((StoredListing(entry.name, entry.onboard_ms),), stored)
        await asyncio.get_running_loop().run_in_executor(self._writer, self._write, batch)
        self.outcome.rows += len(rows)

    def _write(self, batch: Batch) -> None:
        self._archive.write(batch, official=True)

    async def _fetch(self, entry: Entry, name: str, first_ms: int, last_ms: int, *, is_fresh: bool) -> Rows:
        if self._answers.silent_s > _PATIENCE_S:
            raise ExchangeUnreachable("not asked for, the exchange has fallen silent; run it again later")
        backoff = Backoff(*_PAUSE_S)
        for attempt in range(1, _TRIES + 1):
            try:
                fetch = self._source.fetch_some if is_fresh else self._source.fetch
                return await fetch(entry, name, first_ms, last_ms, Priority.BACKFILL)
            except IpBanned:
                raise
            except ExchangeError as error:
                # A refusal in the exchange's own words is about this series; all else may pass.
                is_final = isinstance(error, ExchangeRefused) and error.is_about_request
                if is_final or attempt == _TRIES:
                    raise
                _log.info("try again symbol=%s interval=%s attempt=%d: %s", entry.name, name, attempt, error)
                await asyncio.sleep(backoff.next_s())
        raise AssertionError("the loop above returns or raises")
