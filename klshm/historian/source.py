"""Official rows of one symbol: asked for, checked, and where the exchange's own series begins.

Backfill and repair both get their rows here, so that a row is judged by one rule only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np

from klshm import intervals
from klshm.errors import BadMessage, RowsRefused
from klshm.exchange.governor import Priority
from klshm.exchange.rest import RestClient
from klshm.historian.inbox import Outlet, command
from klshm.historian.rows import closed_only, gap_after, kline_rows
from klshm.historian.symbols import Entry
from klshm.shm import layout as lay


__all__ = ["PAGE_ROWS", "Outcomes", "RowSource"]

Rows = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)

PAGE_ROWS: Final = 499
"""Most rows per request weight."""

_ORIGIN_RETRY_MS: Final = 60_000


class Outcomes(Protocol):
    """Who is told what became of requests."""

    def answered(self) -> None:
        """Take note of an answer."""

    def refused(self, rows: int) -> None:
        """Take note of rows that could not be believed."""


class RowSource:
    """Fetches closed rows, and finds where a symbol's series begins.

    Args:
        client: Asks the exchange.
        inboxes: One outlet per worker; none where there are no workers.
        health: Told the outcome of requests.
        now_ms: Returns the exchange's time, UTC ms.
    """

    def __init__(self, client: RestClient, inboxes: list[Outlet], health: Outcomes, now_ms: Callable[[], int]) -> None:
        self._client = client
        self._inboxes = inboxes
        self._health = health
        self._now_ms = now_ms
        self._origins: dict[int, int] = {}
        self._answered_ms: dict[int, int] = {}

    def origin_ms(self, entry: Entry) -> int | None:
        """Return the open time of the first minute the exchange has a row for, if it is known."""
        return self._origins.get(entry.slot)

    async def fetch(self, entry: Entry, interval: str, first_ms: int, last_ms: int, priority: Priority) -> Rows:
        """Return the closed rows of a range that the exchange has, oldest first.

        Args:
            entry: The symbol.
            interval: Such as "1m".
            first_ms: Open time of the first row wanted, aligned.
            last_ms: Open time of the last row wanted, aligned; at most 499 rows after the first.
            priority: What they are for.

        Returns:
            Shape (n,), dtype KLINE; a bar that had not ended is left out.

        Raises:
            ExchangeError: If there was no usable answer.
        """
        rows, is_whole = await self._ask(entry, interval, first_ms, last_ms, priority)
        if not is_whole:
            # A gap may be a stutter of the answer: believed only when a second answer shows it too.
            again, is_whole = await self._ask(entry, interval, first_ms, last_ms, priority)
            rows = again if len(again) >= len(rows) else rows
        if not len(rows) or int(rows["open_time"][0]) > first_ms:
            await self._find_origin(entry, priority)
        if not is_whole and (len(rows) or self._has_begun(entry, last_ms)):
            _log.info(
                "exchange has a gap symbol=%s interval=%s from_ms=%d to_ms=%d rows=%d",
                *(entry.name, interval, first_ms, last_ms, len(rows)),
            )
        return rows

    async def fetch_some(self, entry: Entry, interval: str, first_ms: int, last_ms: int, priority: Priority) -> Rows:
        """Return the closed rows of a range as `fetch` does; none at all is an error where there must be some.

        That is where the series has begun, or where it has no beginning although the symbol has traded. For
        the rest of a range of which some rows are held, use `fetch`: it may be a gap of the exchange's own.

        Raises:
            ExchangeError: If there was no usable answer; an empty list is none.
        """
        rows = await self.fetch(entry, interval, first_ms, last_ms, priority)
        if not len(rows) and (self._has_begun(entry, first_ms) or (self.origin_ms(entry) is None and entry.trades_24h)):
            raise RowsRefused(f"{entry.name} klines: no {interval} rows from {first_ms} to {last_ms}, expected some")
        return rows

    def _has_begun(self, entry: Entry, time_ms: int) -> bool:
        """Return whether the symbol's series is known to have begun by a time."""
        origin_ms = self.origin_ms(entry)
        return origin_ms is not None and origin_ms <= time_ms

    async def _ask(
        self, entry: Entry, interval: str, first_ms: int, last_ms: int, priority: Priority
    ) -> tuple[Rows, bool]:
        """Return the rows of one answer, and whether they go on without a gap to the last that had ended."""
        length_ms = intervals.length_ms(interval)
        count = (last_ms - first_ms) // length_ms + 1
        answer = await self._client.klines(
            entry.name, interval, start_ms=first_ms, end_ms=last_ms, limit=count, priority=priority
        )
        self._health.answered()
        raw = closed_only(answer.rows, answer.sent_ms)
        try:
            rows = kline_rows(
                raw,
                interval,
                slot=entry.slot,
                price_decimals=entry.price_decimals,
                quantity_decimals=entry.quantity_decimals,
                sent_ms=answer.sent_ms,
            )
            if len(rows) and (rows["open_time"][0] < first_ms or rows["open_time"][-1] > last_ms):
                raise BadMessage(f"klines: rows outside of the range asked for, {raw[0]!r} .. {raw[-1]!r}")
        except BadMessage as error:
            self._health.refused(len(raw))
            raise RowsRefused(f"{entry.name} {error}") from error
        ended_ms = min(last_ms, intervals.open_time_of(interval, answer.sent_ms) - length_ms)
        if not len(rows):
            return rows, ended_ms < first_ms
        return rows, gap_after(rows, interval) is None and int(rows["open_time"][-1]) >= ended_ms

    async def _find_origin(self, entry: Entry, priority: Priority) -> None:
        """Ask for the very first minute, once known for good, and tell the worker."""
        now_ms = self._now_ms()
        if entry.slot in self._origins or now_ms - self._answered_ms.get(entry.slot, 0) < _ORIGIN_RETRY_MS:
            return
        answer = await self._client.klines(entry.name, "1m", start_ms=0, limit=1, priority=priority)
        self._answered_ms[entry.slot] = now_ms
        if not answer.rows:
            return  # listed, but nothing has traded yet
        origin_ms = answer.rows[0].open_time
        self._origins[entry.slot] = origin_ms
        if self._inboxes:
            self._inboxes[entry.worker].urgent(command(lay.COMMAND_ORIGIN, entry.slot, open_time=origin_ms))
