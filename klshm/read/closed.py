"""Every bar as it closes, across all symbols, each once at the moment that was chosen.

A worker logs a bar up to three times: when it closes (tick), when it settles, when it is
confirmed; more often only for real corrections. The follower reads all logs and hands a bar
out at its moment. What a log lost to an overrun, or never held (bars that were repaired while
the engine was away), is taken from history, so nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np

from klshm.intervals import open_time_of
from klshm.read.bars import Bar, Row, bar_of, position
from klshm.read.progress import Progress
from klshm.read.source import Place, Source
from klshm.shm import layout as lay
from klshm.shm.view import exchange_now_ms, wait_for_tail


__all__ = ["MOMENTS", "Follower", "Moment"]

Moment = Literal["tick", "settle", "confirmed"]
MOMENTS: Final = get_args(Moment)

_OPEN_TIME: Final = position("open_time")
_REVISION: Final = position("revision")
_SLOT: Final = position("slot")
_INTERVAL: Final = position("interval")
_STATE: Final = position("state")
_FLAGS: Final = position("flags")

_LOOK_BACK_BARS: Final = 64
"""Bars before the beginning that may still settle or become confirmed."""
_SETTLING_S: Final = 0.05
"""Longest wait while bars wait for their settling, which moves no log."""

_Key = tuple[int, int]
_Version = tuple[int, int, int]


@dataclass
class _Series:
    place: Place
    progress: Progress
    handed: dict[int, _Version] = field(default_factory=dict)
    """Open time to the version last handed out; kept only where revisions are wanted."""


class Follower:
    """Follows the closed-bar logs of all workers.

    Args:
        source: What to read from.
        symbols: Names wanted; None: all, new listings too.
        intervals: Names of the intervals wanted.
        since_ms: Replay bars that ended after this first, UTC ms; None: only new ones.
        when: The moment at which a bar is handed out.
        revisions: Also hand out later changes of bars that were handed out.
    """

    def __init__(
        self,
        source: Source,
        symbols: Collection[str] | None,
        intervals: Collection[str],
        since_ms: int | None,
        when: Moment,
        revisions: bool,
    ) -> None:
        self._source = source
        self._symbols = None if symbols is None else frozenset(symbols)
        self._when = when
        self._revisions = revisions
        self._since_ms = since_ms
        self._is_wanted = np.zeros(256, dtype=bool)
        self._is_wanted[[source.codes[source.interval_index(name)] for name in intervals]] = True
        self._due: list[Bar] = []
        self._series: dict[_Key, _Series] = {}
        self._waiting: set[_Key] = set()
        self._settled = [view.settled_through_ms for view in source.views]
        # The cursors first, then what has closed already: nothing falls between the two.
        self._logs = [view.log() for view in source.views]
        self._lost = [0] * len(self._logs)
        self._tails = source.tail_words()
        self._begun_ms = exchange_now_ms(source.segment)
        self._discover(range(len(self._logs)), since_ms)

    # -- called by the reader -------------------------------------------------------------------

    def poll(self) -> list[Bar]:
        """Return the bars whose moment has come since the last call, oldest first."""
        for worker, log in enumerate(self._logs):
            # Before the log: what settled by then has its entries in the log.
            settled = self._source.views[worker].settled_through_ms
            while True:
                rows = log.take()
                if log.lost != self._lost[worker]:
                    self._lost[worker] = log.lost
                    self._recover(worker)
                if not len(rows):
                    break
                for row in rows[self._is_wanted[rows["interval"]]].tolist():
                    self._arrive(row)
            if settled > self._settled[worker]:
                self._settled[worker] = settled
                self._release(worker)
        due, self._due = self._due, []
        due.sort(key=lambda bar: bar.close_time)
        return due

    def wait(self, timeout_s: float) -> bool:
        """Wait until a log grows or a bar may have settled; return False if the time ran out."""
        if self._waiting and self._when == "settle":
            timeout_s = min(timeout_s, _SETTLING_S)
        return wait_for_tail(self._source.segment, self._tails, [log.cursor for log in self._logs], timeout_s)

    def close(self) -> None:
        """Let go of the segment; the follower cannot be used afterwards."""
        del self._source, self._logs

    # -- rows, from a log or from history ---------------------------------------------------------

    def _arrive(self, row: Row) -> None:
        key, open_time = (row[_SLOT], row[_INTERVAL]), row[_OPEN_TIME]
        series = self._series.get(key) or self._begin(key, open_time, self._since_ms)
        if series is None:
            return
        progress, step = series.progress, series.place.step
        if open_time > progress.newest and progress.has_missing(open_time):
            self._look_up(series, progress.through + step, open_time - step)
        self._see(series, row)

    def _see(self, series: _Series, row: Row) -> None:
        progress, open_time = series.progress, row[_OPEN_TIME]
        if progress.is_done(open_time):
            if series.handed.get(open_time, _version(row)) != _version(row):
                self._hand_out(series, row)
            return
        held = progress.waiting.get(open_time)
        if held is not None and held[_REVISION] > row[_REVISION]:
            row = held
        if self._is_due(series, row):
            self._hand_out(series, row)
            progress.finish(open_time)
        else:
            self._hold(series, row)

    def _hold(self, series: _Series, row: Row) -> None:
        series.progress.hold(row[_OPEN_TIME], row)
        self._waiting.add((series.place.slot, series.place.code))

    def _is_due(self, series: _Series, row: Row) -> bool:
        if self._when == "tick" or row[_STATE] == lay.STATE_CONFIRMED:
            return True
        if self._when == "confirmed":
            return False
        has_settled = row[_OPEN_TIME] + series.place.step <= self._settled[series.place.worker]
        return has_settled or not row[_FLAGS] & lay.FLAG_PROVISIONAL

    def _hand_out(self, series: _Series, row: Row) -> None:
        self._due.append(bar_of(row, series.place.symbol))
        if self._revisions:
            series.handed[row[_OPEN_TIME]] = _version(row)
            if len(series.handed) > series.place.capacity:
                del series.handed[next(iter(series.handed))]

    def _release(self, worker: int) -> None:
        """Hand out what waited for the worker's settling."""
        for key in list(self._waiting):
            series = self._series[key]
            if series.place.worker == worker:
                for row in list(series.progress.waiting.values()):
                    self._see(series, row)
            if not series.progress.waiting:
                self._waiting.discard(key)

    # -- beginnings and losses --------------------------------------------------------------------

    def _discover(self, workers: Collection[int], since_ms: int | None) -> None:
        """Begin every series of these workers that is wanted and not yet followed."""
        cuts = {worker: self._source.views[worker].cut() for worker in workers}
        for slot, listing in enumerate(self._source.table.rows()):
            worker, local_slot = int(listing["worker"]), int(listing["local_slot"])
            if listing["status"] == lay.SYMBOL_EMPTY or worker not in cuts:
                continue
            for index, code in enumerate(self._source.codes):
                live = cuts[worker].rows[local_slot, index]
                if live["state"] != lay.STATE_EMPTY and self._is_wanted[code] and (slot, code) not in self._series:
                    self._begin((slot, code), int(live["open_time"]), since_ms)

    def _begin(self, key: _Key, open_time: int, since_ms: int | None) -> _Series | None:
        """Begin a series whose bars before `open_time` have closed; None if it is not wanted."""
        slot, code = key
        if self._symbols is not None and self._source.table.name(slot) not in self._symbols:
            return None
        place = self._source.place_of(slot, self._source.codes.index(code))
        last = open_time - place.step
        first = min(self._first_open(place, last, since_ms), open_time)
        capacity = max(place.capacity, (last - first) // place.step + 1)
        series = self._series[key] = _Series(place, Progress(first - place.step, place.step, capacity))
        if since_ms is not None:
            self._look_up(series, first, last)
            return series
        if first <= last:
            for row in self._source.history(place, first, last).tolist():
                if not self._is_due(series, row):
                    self._hold(series, row)
        # The others had their moment before the beginning, or nobody has them.
        for earlier in range(first, open_time, place.step):
            if earlier not in series.progress.waiting:
                series.progress.finish(earlier)
        return series

    def _first_open(self, place: Place, last: int, since_ms: int | None) -> int:
        name = self._source.intervals[place.interval]
        if since_ms is not None:
            return open_time_of(name, since_ms)
        earliest = last - _LOOK_BACK_BARS * place.step
        if self._when == "tick":
            return last + place.step
        if self._when == "settle":
            return max(open_time_of(name, self._settled[place.worker]), earliest)
        return earliest

    def _look_up(self, series: _Series, first: int, last: int) -> None:
        if first <= last:
            for row in self._source.history(series.place, first, last).tolist():
                self._see(series, row)

    def _recover(self, worker: int) -> None:
        """Take from history what an overrun log may have held."""
        rows = self._source.views[worker].cut().rows
        for series in self._series.values():
            place = series.place
            if place.worker == worker:
                last = int(rows[place.local_slot, place.interval]["open_time"]) - place.step
                first = min([series.progress.through + place.step, *series.handed])
                self._look_up(series, first, last)
        self._discover([worker], self._begun_ms if self._since_ms is None else self._since_ms)


def _version(row: Row) -> _Version:
    return row[_REVISION], row[_STATE], row[_FLAGS]
