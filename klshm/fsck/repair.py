"""Mending: what can be read is kept, what is wrong or missing is fetched from the exchange again.

In this order, so that it may be killed anywhere and repeated: a broken archive is written anew from
its pages; entries of its tables are put right; what the journal holds is archived; the exchange is
asked for everything that is still wrong or missing; only then a damaged journal, snapshot or dead
segment is set aside. Nothing is thrown away: what goes is kept under a name with `.damaged-`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm.config import Config
from klshm.config.depths import depths_of
from klshm.errors import ArchiveError, ExchangeError, ExchangeRefused, ExchangeUnreachable, IpBanned
from klshm.exchange.backoff import Backoff
from klshm.exchange.budget import shared_purse
from klshm.exchange.governor import Governor, Priority
from klshm.exchange.models import Listing, select
from klshm.exchange.offset import exchange_offset_ns
from klshm.exchange.rest import RestClient
from klshm.fsck.archive import ArchiveState, Series, check_archive
from klshm.fsck.check import Found, check
from klshm.fsck.journal_rescue import archive_journal, renew_journal
from klshm.fsck.replace import Replacer
from klshm.fsck.report import Report
from klshm.fsck.salvage import Known, known_series, salvage
from klshm.fsck.tables import mend_tables
from klshm.fsck.wanted import wanted_of
from klshm.historian.alone import Wish, fetch_history
from klshm.historian.source import PAGE_ROWS, RowSource
from klshm.historian.symbols import Entry
from klshm.intervals import INTERVALS
from klshm.shm import layout as lay
from klshm.shm.segment import segment_path
from klshm.store import schema
from klshm.store.archive import Archive
from klshm.store.batch import Batch
from klshm.store.names import archive_path, is_legal_symbol, journal_path
from klshm.store.snapshot import snapshot_path


__all__ = ["repair"]

Rows = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)

_TRIES: Final = 4
_PAUSE_S: Final = (1.0, 15.0)
_PATIENCE_S: Final = 120.0
_STATEMENTS: Final = 64


async def repair(config: Config, directory: Path, found: Found, progress: Callable[[int, int], None]) -> Found:
    """Mend what a check found, and check again.

    Args:
        config: Of the instance; nobody else may use its files meanwhile.
        directory: Its directory.
        found: What a check of everything found.
        progress: Called with requests done and to do.

    Returns:
        What a check finds now; its report says what was done and what could not be.

    Raises:
        ExchangeError: If the exchange could not be reached at all; nothing was changed.
        ArchiveError: If the archive cannot be written.
    """
    governor = Governor(config.exchange.weight_share, config.exchange.backfill_weight_share)
    offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms() -> int:
        return (time.monotonic_ns() + offset_ns) // 1_000_000

    purse = shared_purse(config.exchange)
    async with RestClient(config.exchange, governor, now_ms, connections=1, purse=purse) as client:
        offset_ns = await exchange_offset_ns(client)
        listings = {listing.symbol: listing for listing in (await client.exchange_info()).listings}
        mender = _Mender(config, directory, found, RowSource(client, [], _Silent(), now_ms), listings)
        await mender.all(now_ms(), progress)
        mender.numbers["requests"] = client.requests
        mender.numbers["weight"] = sum(client.weights.values())
    after = check(config.instance, directory)
    after.report.repaired = mender.numbers
    after.report.failed = mender.failed
    return after


class _Silent:
    """Nobody reads counters here: what was refused shows in what could not be mended."""

    def answered(self) -> None:
        """Take note of an answer."""

    def refused(self, rows: int) -> None:
        """Take note of rows that could not be believed."""
        _log.info("rows refused count=%d", rows)


class _Mender:
    """One repair."""

    def __init__(
        self, config: Config, directory: Path, found: Found, source: RowSource, listings: dict[str, Listing]
    ) -> None:
        self.numbers: dict[str, Any] = {}
        self.failed: dict[str, str] = {}
        self._config = config
        self._path = archive_path(directory)
        self._journal = journal_path(directory)
        self._snapshot = snapshot_path(directory)
        self._found = found
        self._source = source
        self._listings = listings
        self._stamp = f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        self._kept = config.klines.intervals
        self._entries: dict[str, Entry] = {}

    async def all(self, now_ms: int, progress: Callable[[int, int], None]) -> None:
        """Mend everything that was found."""
        found, journal = self._found, self._found.journal
        state = found.archive
        if state is not None and state.broken:
            aside = self._aside(self._path)
            known = known_series(self._path)
            expected = [one for one in known if one.interval in INTERVALS and is_legal_symbol(one.symbol)]
            taken = self._series_of(select(self._listings.values(), self._config.exchange), self._kept)
            every = self._series_of(self._listings.values(), INTERVALS)
            self.numbers["salvaged_rows"] = salvage(
                self._path, self._config.store, [*known, *every], expected or taken, aside
            )
            self.numbers["broken_archive"] = str(aside)
        if state is not None:
            mend_tables(self._path, self._config.store, state, self._listings)
        edges = state is not None and state.broken
        # What a broken archive said of its progress may be gone as well.
        lost = journal is not None and (found.commits_lost or journal.damaged or edges)
        if journal is not None and not journal.broken:
            self.numbers["journal_rows"] = archive_journal(self._journal, self._path, self._config.store)
        if self._path.exists():
            again = self._looked_again()
            await self._fetch(again, now_ms, progress, edges=edges, until_now=lost)
        if lost and (state is None or not (state.broken or state.series)):
            await self._fetch_anew()
        if lost and journal is not None and not journal.damaged and not self.failed:
            _note_archived(self._path, self._config, (journal.uuid, journal.first - 1))
        self._set_aside()

    def _series_of(self, listings: Iterable[Listing], kept: Iterable[str]) -> list[Known]:
        """Return the series that the exchange's contracts have."""
        return [
            Known(one.symbol, name, one.onboard_date, one.price_precision, one.quantity_precision)
            for one in listings
            for name in kept
        ]

    def _looked_again(self) -> ArchiveState:
        """Return what is wrong with the archive now that all that was at hand is in it."""
        return check_archive(self._path, Report(), None, progress=lambda symbol: None)

    async def _fetch(
        self, state: ArchiveState, now_ms: int, progress: Callable[[int, int], None], *, edges: bool, until_now: bool
    ) -> None:
        depths = depths_of(self._config.historian.bars_per_interval, self._config.store.retention_days)
        new = [series.table for series in self._found.archive.missing] if self._found.archive else ()
        wanted = wanted_of(state, depths, now_ms, edges=edges, until_now=until_now, new_tables=new)
        work = [(one, *page) for one in wanted for page in one.pages(PAGE_ROWS)]
        with closing(schema.connect(self._path, self._config.store, _STATEMENTS)) as connection:
            evidence = self._path.with_name(f"{self._path.name}.{self._stamp}.jsonl")
            replacer = Replacer(connection, evidence)
            began_s = time.monotonic()
            try:
                for one in wanted:
                    replacer.misfits(one)
                for done, (one, first_ms, last_ms) in enumerate(work, 1):
                    rows = await self._ask(one.series, first_ms, last_ms, began_s)
                    if rows is not None:
                        replacer.page(one, first_ms, last_ms, rows)
                    progress(done, len(work))
            except sqlite3.Error as error:
                raise ArchiveError(schema.describe(self._path, error)) from error
            self.numbers.update(replacer.counts)
            if evidence.exists():
                self.numbers["removed_rows"] = str(evidence)

    async def _fetch_anew(self) -> None:
        """Fetch what a new archive would get: nothing tells what this one held."""
        outcome = await fetch_history(
            self._config, self._path, Wish(None, self._kept), lambda *progress: None
        )
        self.numbers["filled_in"] = outcome.rows
        self.failed.update(outcome.failed)

    async def _ask(self, series: Series, first_ms: int, last_ms: int, began_s: float) -> Rows | None:
        """Return what the exchange has of a span; None if it does not say."""
        if series.retired:
            return np.empty(0, dtype=lay.KLINE)  # by this name it has those of the later listing only
        backoff = Backoff(*_PAUSE_S)
        for attempt in range(1, _TRIES + 1):
            try:
                if time.monotonic() - began_s > _PATIENCE_S and self.failed and attempt > 1:
                    raise ExchangeUnreachable("the exchange has fallen silent; run it again later")
                entry = self._entry(series)
                return await self._source.fetch(entry, series.interval, first_ms, last_ms, Priority.BACKFILL)
            except ExchangeError as error:
                is_about_it = isinstance(error, ExchangeRefused) and error.is_about_request
                if is_about_it and series.symbol not in self._listings:
                    return np.empty(0, dtype=lay.KLINE)  # the symbol is gone, and its bars with it
                if is_about_it or isinstance(error, IpBanned) or attempt == _TRIES:
                    self.failed[f"{series.symbol} {series.interval}"] = str(error)
                    return None
                await asyncio.sleep(backoff.next_s())
        raise AssertionError("the loop above returns")

    def _entry(self, series: Series) -> Entry:
        if series.symbol not in self._entries:
            listing, slot = self._listings.get(series.symbol), len(self._entries)
            self._entries[series.symbol] = Entry(
                slot=slot,
                name=series.symbol,
                status=lay.SYMBOL_TRADING,
                worker=0,
                local_slot=slot,
                price_decimals=listing.price_precision if listing else series.price_decimals,
                quantity_decimals=listing.quantity_precision if listing else series.quantity_decimals,
                onboard_ms=series.onboard_ms,
                delivery_ms=0,
                trades_24h=0,
            )
        return self._entries[series.symbol]

    def _set_aside(self) -> None:
        found = self._found
        aside = []
        if found.journal is not None and found.journal.damaged:
            if self.failed:
                self.failed["journal"] = "kept until the archive is complete; run it again"
            else:
                aside.append(renew_journal(self._journal, self._aside(self._journal), is_broken=found.journal.broken))
        if found.snapshot_damaged:
            aside.append(_renamed(self._snapshot, self._aside(self._snapshot)))
        segment = segment_path(self._config.instance)
        if found.segment.damaged and segment.exists():
            aside.append(_renamed(segment, self._aside(segment)))
        if aside:
            self.numbers["set_aside"] = [str(path) for path in aside]

    def _aside(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.{self._stamp}")


def _note_archived(path: Path, config: Config, mark: tuple[str, int]) -> None:
    with closing(Archive(path, config.store)) as archive:
        archive.write(Batch((), np.empty(0, dtype=lay.KLINE)), watermark=mark)


def _renamed(path: Path, aside: Path) -> Path:
    os.replace(path, aside)
    return aside
