"""Asks the exchange for the rows of a span, series by series, and compares.

The request weight comes from the one purse that engines and commands of this machine share. The audit
may use more of it than backfill, or it would wait behind it, and less than repairs. The archive is
read after the exchange's answer, so a bar that is confirmed meanwhile counts as what it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from klshm import intervals
from klshm.audit.compare import Report, compare_series
from klshm.config import Config, ExchangeConfig
from klshm.exchange.budget import shared_purse
from klshm.exchange.governor import Governor, Priority
from klshm.exchange.models import RestKline
from klshm.exchange.offset import exchange_offset_ns
from klshm.exchange.rest import RestClient
from klshm.store.archive_reader import ArchiveReader


__all__ = ["YOUNG_MS", "Series", "audit", "own_governor"]

YOUNG_MS: Final = 75_000
"""A bar has a minute to be confirmed, and some seconds more to be stored."""

_PAGE_ROWS: Final = 499
_CONCURRENCY: Final = 8


@dataclass(frozen=True)
class Series:
    """What is compared of one symbol.

    Attributes:
        symbol: As the exchange spells it.
        ends_ms: Bars that end later are not compared (its delisting), UTC ms; None: all are.
    """

    symbol: str
    ends_ms: int | None = None


async def audit(
    config: Config,
    archive: Path,
    series: Sequence[Series],
    names: Sequence[str],
    since_ms: int | None,
    progress: Callable[[int, int], None],
) -> Report:
    """Compare the archive with the exchange.

    Args:
        config: Where the exchange is, and how much weight may be used.
        archive: The SQLite file.
        series: Symbols to compare.
        names: Intervals to compare.
        since_ms: Bars that ended after this exchange time, UTC ms; None: the last 24 hours.
        progress: Called with the series done and the series to do.

    Raises:
        ExchangeError: If the exchange gives no usable answer.
        ArchiveError: If the archive cannot be read.
    """
    governor = own_governor(config.exchange)
    purse = shared_purse(config.exchange)
    offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms() -> int:
        return (time.monotonic_ns() + offset_ns) // 1_000_000

    async with RestClient(config.exchange, governor, now_ms, connections=_CONCURRENCY, purse=purse) as client:
        offset_ns = await exchange_offset_ns(client)
        now = now_ms()
        report = Report(now - intervals.length_ms("1d") if since_ms is None else since_ms, now - YOUNG_MS)
        with closing(ArchiveReader(archive)) as reader:
            await _Run(client, reader, report, progress).all(series, names, now)
    return report


def own_governor(exchange: ExchangeConfig) -> Governor:
    """Return the audit's governor: it ends half-way between the shares of backfill and of repairs."""
    return Governor((exchange.weight_share + exchange.backfill_weight_share) / 2)


class _Run:
    """One walk over all series."""

    def __init__(
        self, client: RestClient, archive: ArchiveReader, report: Report, progress: Callable[[int, int], None]
    ) -> None:
        self._client = client
        self._archive = archive
        self._report = report
        self._progress = progress
        self._done = 0

    async def all(self, series: Sequence[Series], names: Sequence[str], now_ms: int) -> None:
        """Compare every interval of every symbol, a few at once."""
        work = iter([(one, name) for one in series for name in names])
        total = len(series) * len(names)
        for name in names:
            self._report.count(name, "compared", 0)

        async def walk(items: Iterator[tuple[Series, str]]) -> None:
            for one, name in items:
                await self._one(one, name, now_ms)
                self._done += 1
                self._progress(self._done, total)

        walkers = [asyncio.create_task(walk(work)) for _ in range(min(_CONCURRENCY, total))]
        try:
            await asyncio.gather(*walkers)
        finally:
            for walker in walkers:
                walker.cancel()

    async def _one(self, series: Series, name: str, now_ms: int) -> None:
        report, length = self._report, intervals.length_ms(name)
        # The bar that ended by a time is the one before the bar that holds it.
        first = intervals.open_time_of(name, report.since_ms)
        end = now_ms if series.ends_ms is None else min(now_ms, series.ends_ms)
        newest = intervals.open_time_of(name, end) - length
        last = min(newest, intervals.open_time_of(name, report.until_ms) - length)
        report.excluded_young += max(0, (newest - max(last, first - length)) // length)
        while first <= last:
            page_end = min(last, first + (_PAGE_ROWS - 1) * length)
            official = await self._ask(series.symbol, name, first, page_end)
            stored = self._archive.read_series(series.symbol, name, first, page_end, _PAGE_ROWS)
            compare_series(report, series.symbol, name, official, stored)
            first = page_end + length

    async def _ask(self, symbol: str, name: str, first_ms: int, last_ms: int) -> list[RestKline]:
        count = (last_ms - first_ms) // intervals.length_ms(name) + 1
        answer = await self._client.klines(
            symbol, name, start_ms=first_ms, end_ms=last_ms, limit=count, priority=Priority.LISTINGS
        )
        return [row for row in answer.rows if row.close_time < answer.sent_ms]
