"""Which bars of which series a repair asks the exchange for; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from klshm import intervals
from klshm.fsck.archive import ArchiveState, Series
from klshm.fsck.bars import SeriesState


__all__ = ["Wanted", "wanted_of"]


@dataclass
class Wanted:
    """What of one series is to be fetched.

    Attributes:
        series: Which.
        replace: Times of rows that must go, whether the exchange has another or not.
        holes: Times at which there is no row and there should be one.
        better: Times of rows that stay unless the exchange's own comes.
        edge: Times before the first and after the last row at which there may have been one.
    """

    series: Series
    replace: set[int] = field(default_factory=set)
    holes: set[int] = field(default_factory=set)
    better: set[int] = field(default_factory=set)
    edge: set[int] = field(default_factory=set)

    @property
    def times(self) -> set[int]:
        """All times that are to be asked for."""
        return {time for time in self.replace if self._is_aligned(time)} | self.holes | self.better | self.edge

    def pages(self, rows: int) -> Iterator[tuple[int, int]]:
        """Yield first and last open time of the requests that cover it, each of at most so many rows."""
        times = sorted(self.times)
        length_ms = intervals.length_ms(self.series.interval)
        begin = 0
        for index, time in enumerate(times):
            if time - times[begin] >= rows * length_ms:
                yield times[begin], times[index - 1]
                begin = index
        if times:
            yield times[begin], times[-1]

    def _is_aligned(self, time: int) -> bool:
        interval = self.series.interval
        return time > 0 and (time - intervals.anchor_ms(interval)) % intervals.length_ms(interval) == 0


def wanted_of(
    state: ArchiveState,
    depths: dict[str, int],
    now_ms: int,
    *,
    edges: bool,
    until_now: bool,
    new_tables: Collection[str] = (),
) -> list[Wanted]:
    """Return what to ask for.

    Args:
        state: What was found in the archive.
        depths: Configured depth of history per interval.
        now_ms: Exchange time, UTC ms.
        edges: Rows may have been lost at either end of any series: fetch back to the configured depth, and on
            to where the longest series of an interval ends.
        until_now: Bars that closed last are lost: fetch all that have closed since.
        new_tables: Tables that had been lost and begin anew: they get the configured depth.
    """
    result = []
    ends: dict[str, int] = {}
    for series in state.series:
        if series.table in state.spans:
            ends[series.interval] = max(ends.get(series.interval, 0), state.spans[series.table][1])
    for series in state.series:
        one = Wanted(series)
        found = state.states.get(series.table)
        if found is not None:
            _add_faults(one, found, ends.get(series.interval, 0))
        one.better.update(state.folds.get(series.table, ()))
        closed_ms = intervals.open_time_of(series.interval, now_ms) - intervals.length_ms(series.interval)
        is_empty = series.table not in state.spans or series.table in new_tables
        if not series.retired and (edges or until_now or is_empty):
            end = closed_ms if until_now or series.interval not in ends else ends[series.interval]
            _add_edges(one, state.spans.get(series.table), min(end, closed_ms), depths, back=edges or is_empty)
        one.edge -= one.holes | one.replace
        if one.times or one.replace:
            result.append(one)
    return result


def _add_faults(one: Wanted, found: SeriesState, end_ms: int) -> None:
    length_ms = intervals.length_ms(one.series.interval)
    one.replace.update(found.wrong)
    for hole in found.holes:
        one.holes.update(range(hole.first_ms, hole.last_ms + 1, length_ms))
    one.better.update(found.unconfirmed)
    if not len(found.good):
        return
    first, last = int(found.good["open_time"][0]), int(found.good["open_time"][-1])
    while first - length_ms in found.wrong:
        first -= length_ms
    while last + length_ms in found.wrong:
        last += length_ms
    # A row whose time itself is damaged may have stood at either end.
    outside = sum(not first <= time <= last for time in found.wrong)
    one.edge.update(range(first - outside * length_ms, first, length_ms))
    one.edge.update(range(last + length_ms, min(end_ms, last + outside * length_ms) + 1, length_ms))


def _add_edges(
    one: Wanted, span: tuple[int, int] | None, end_ms: int, depths: dict[str, int], *, back: bool
) -> None:
    name = one.series.interval
    length_ms = intervals.length_ms(name)
    deep_ms = max(end_ms - (depths[name] - 1) * length_ms, intervals.open_time_of(name, one.series.onboard_ms))
    if span is None:
        one.edge.update(range(deep_ms, end_ms + 1, length_ms))
        return
    if back:
        one.edge.update(range(deep_ms, span[0], length_ms))
    one.edge.update(range(span[1] + length_ms, end_ms + 1, length_ms))
