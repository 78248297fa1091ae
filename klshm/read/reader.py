"""The reader: everything an engine knows, from any process, without asking the engine.

Readers never write and never block a writer. Everything returned is a copy.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Collection, Iterator
from types import TracebackType
from typing import Any, Final, Literal
from weakref import WeakSet

import numpy as np

from klshm.config import Config
from klshm.errors import ReadError, SegmentError, StaleData, WaitTimeout
from klshm.intervals import open_time_of
from klshm.read.bars import ROW, Bar, bar_of, position
from klshm.read.closed import MOMENTS, Follower, Moment
from klshm.read.iteration import LONGEST_WAIT_S, aiterate, iterate
from klshm.read.liveness import Liveness
from klshm.read.snapshot import Snapshot, assemble
from klshm.read.source import Place, Source
from klshm.read.status import StatusReport
from klshm.shm import layout as lay
from klshm.shm.segment import Segment
from klshm.shm.view import exchange_now_ms, take_cuts, wait_for_tail


__all__ = ["Reader", "Wait"]

Rows = np.ndarray[Any, Any]
Wait = Literal["futex", "spin"]

_STATE: Final = position("state")


class Reader:
    """Reads one engine; made by `attach`.

    Args:
        segment: The mapped segment; `close` unmaps it.
        stale_after_s: Silence from which reads raise `StaleData`, seconds.
        gone_after_s: Silence from which reads raise `EngineGone`, seconds.
        wait: "futex" or "spin".
    """

    def __init__(
        self, segment: Segment, *, stale_after_s: float = 3.0, gone_after_s: float = 10.0, wait: Wait = "futex"
    ) -> None:
        self._source: Source | None = Source(segment)
        self._segment = segment
        self._liveness = Liveness(segment, stale_after_s, gone_after_s)
        self._status: StatusReport | None = None
        self._followers: WeakSet[Follower] = WeakSet()
        self._wait = wait

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<klshm.Reader {self.instance} symbols={len(self.symbols())} intervals={','.join(self.intervals)}>"

    def _repr_html_(self) -> str:
        from klshm.read.frames import to_html

        return to_html(self.status())

    @property
    def source(self) -> Source:
        """The views behind the reader; they show the segment itself, so keep none beyond `close`.

        Raises:
            ReadError: If the reader was closed.
        """
        if self._source is None:
            raise ReadError("this reader is closed; attach again")
        return self._source

    @property
    def instance(self) -> str:
        """Name of the engine."""
        return self._segment.path.name.removeprefix("klshm.")

    @property
    def intervals(self) -> tuple[str, ...]:
        """Names of the kept intervals, shortest first."""
        return self.source.intervals

    @property
    def config(self) -> Config:
        """The configuration the engine was started with."""
        return self.source.config

    # -- bars -------------------------------------------------------------------------------------

    def symbols(self) -> list[str]:
        """Return the names of all symbols that are carried and not delisted."""
        return self.source.names()

    def live(self, symbol: str, interval: str) -> Bar:
        """Return the newest state of an open bar.

        Raises:
            UnknownSymbol, UnknownInterval: If the engine does not have it.
            StaleData: If the symbol has no bar yet, or its worker is silent.
            EngineGone: If the engine stopped, died or was replaced.
        """
        source = self.source
        place = source.place(symbol, interval)
        self._liveness.check(place.worker)
        row = ROW.unpack(source.views[place.worker].live_bytes(place.local_slot, place.interval))
        if row[_STATE] == lay.STATE_EMPTY:
            raise StaleData(f"{symbol} {interval} has no bar yet; try again once its worker has seen it")
        return bar_of(row, symbol)

    def history(self, symbol: str, interval: str, limit: int, include_live: bool = False) -> Rows:
        """Return the newest closed bars of a series.

        Args:
            symbol: Name of the symbol; delisted ones keep their history.
            interval: Name of the interval.
            limit: At most so many closed bars; more than memory holds come from the archive.
            include_live: Put the open bar at the end, beyond `limit`.

        Returns:
            Shape (n,), dtype KLINE, oldest first. Bars that nobody has are left out.
        """
        if limit < 0:
            raise ValueError(f"limit = {limit}, expected 0 or more")
        place = self.source.place(symbol, interval)
        self._liveness.check(place.worker)
        live = self.source.views[place.worker].live_row(place.local_slot, place.interval)
        last = self._last_closed(place, live)
        rows = self.source.history(place, last - (limit - 1) * place.step, last) if limit else np.empty(0, lay.KLINE)
        if include_live and live["state"] != lay.STATE_EMPTY:
            rows = np.concatenate((rows, live.reshape(1)))
        return rows

    def snapshot(self, closed_through: int | None = None, timeout_s: float = 5.0) -> Snapshot:
        """Return the open bars of the whole market: an exact cut per worker.

        Cuts of different workers lie up to one swap interval apart. With `closed_through` the
        snapshot is one consistent view of the market: in all of it, every minute that ended by
        then is closed.

        Args:
            closed_through: End of a minute, UTC ms, to wait for.
            timeout_s: Seconds to wait at most.

        Raises:
            WaitTimeout: If the minute did not close in time.
        """
        source = self.source
        deadline_s = time.monotonic() + timeout_s
        while True:
            for worker in range(len(source.views)):
                self._liveness.check(worker)
            cuts = take_cuts(source.views)
            taken = assemble(cuts, source.market(), source.intervals)
            if closed_through is None or (len(taken) and taken.closed_through_ms >= closed_through):
                return taken
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                raise WaitTimeout(
                    f"closed through {taken.closed_through_ms}, waited {timeout_s:g} s for {closed_through}; "
                    "wait longer or see `status`"
                )
            if self._wait == "futex":
                seen = [cut.generation for cut in cuts]
                wait_for_tail(self._segment, source.generation_words(), seen, min(remaining_s, LONGEST_WAIT_S))

    def closed(
        self,
        symbols: Collection[str] | None = None,
        intervals: Collection[str] | None = None,
        since: int | None = None,
        when: Moment = "settle",
        revisions: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[Bar]:
        """Return an endless iterator over bars as they close, each once, from this call on.

        Args:
            symbols: Names wanted; None: all, new listings too.
            intervals: Intervals wanted; None: all that are kept.
            since: Replay bars that ended after this first, UTC ms, then follow without gap or
                repeat. To resume, give the `close_time` of the last bar (its fellows of the
                same minute come again) or that plus 1 (only what ended later).
            when: "tick" (the clock closed it), "settle" (nothing of it can be under way any
                more) or "confirmed" (equal to the exchange's own bar).
            revisions: Also yield later changes of bars that were yielded.
            timeout_s: Seconds without a bar after which `WaitTimeout` is raised; None: never.

        Raises:
            UnknownSymbol, UnknownInterval: If the engine does not have it.
            WaitTimeout, StaleData, EngineGone: While iterating.
        """
        follower = self._follower(symbols, intervals, since, when, revisions)
        return iterate(follower, self.check, is_spinning=self._wait == "spin", timeout_s=timeout_s)

    async def aclosed(
        self,
        symbols: Collection[str] | None = None,
        intervals: Collection[str] | None = None,
        since: int | None = None,
        when: Moment = "settle",
        revisions: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Bar]:
        """Yield bars as `closed` does; the waiting is done in a thread."""
        follower = await asyncio.to_thread(self._follower, symbols, intervals, since, when, revisions)
        async for bar in aiterate(follower, self.check, timeout_s=timeout_s):
            yield bar

    def status(self) -> dict[str, Any]:
        """Return how the engine is: the document that `python -m klshm status --json` prints."""
        self._status = self._status or StatusReport(self.source)
        return self._status.collect()

    # -- life -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Return if the engine and all its workers live.

        Raises:
            EngineGone: If the engine stopped, died or was replaced.
            StaleData: If it is silent.
        """
        for worker in range(len(self.source.views)):
            self._liveness.check(worker)

    def close(self) -> None:
        """Let go of the segment; the reader cannot be used afterwards."""
        if self._source is not None:
            for follower in self._followers:
                follower.close()
            self._source.close()
            self._source = self._status = None
            try:
                self._segment.close()
            except SegmentError:
                # An error under way (Ctrl-C in a wait) still looks into the map; it is unmapped with that.
                os.close(self._segment.descriptor)

    # -- inside -----------------------------------------------------------------------------------

    def _last_closed(self, place: Place, live: Any) -> int:
        if live["state"] != lay.STATE_EMPTY:
            return int(live["open_time"]) - place.step
        now_ms = exchange_now_ms(self._segment)
        listing = self.source.table.row(place.slot)
        if listing["status"] == lay.SYMBOL_DELISTED and 0 < listing["delivery_ms"] < now_ms:
            now_ms = int(listing["delivery_ms"])  # its history ends there
        return open_time_of(self.source.intervals[place.interval], now_ms) - place.step

    def _follower(
        self,
        symbols: Collection[str] | None,
        intervals: Collection[str] | None,
        since: int | None,
        when: Moment,
        revisions: bool,
    ) -> Follower:
        if when not in MOMENTS:
            raise ValueError(f"when = {when!r}, expected one of {', '.join(MOMENTS)}")
        if isinstance(symbols, str) or isinstance(intervals, str):
            raise ValueError("symbols and intervals are lists of names, such as ['BTCUSDT']")
        for symbol in symbols or ():
            self.source.slot(symbol)
        self.check()
        follower = Follower(self.source, symbols, intervals or self.intervals, since, when, revisions)
        self._followers.add(follower)
        return follower
