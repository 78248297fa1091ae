"""What a segment holds that nobody writes any more, copied out under names.

Only rows that are whole and stand where their open time belongs are taken. A row of the live
table that was being written is taken from the readable half, and `partial`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, ROW_BYTES, ROW_WORDS, SYMBOL
from klshm.shm.segment import Segment
from klshm.shm.view import Clock, read_clock
from klshm.store.names import is_legal_symbol
from klshm.store.state import CARRIED, State, are_sound, needed_times, symbol_names


__all__ = ["LEAST_ROWS", "Remains", "SegmentCopy", "open_bars_at_rest", "remains"]

Rows = np.ndarray[Any, Any]

LEAST_ROWS: Final = 8
"""Closed bars of each series that a snapshot holds at least: as many minutes as may still be amended."""


_PIECE_ROWS: Final = 4096


@dataclass(frozen=True)
class Remains:
    """What was in a dead segment.

    Attributes:
        state: Its symbols and bars.
        clock: The exchange's clock as its historian measured it; None: never.
    """

    state: State
    clock: Clock | None


class SegmentCopy:
    """A copy of what is used of a segment, in memory of this process, so that the segment may be removed.

    It is read later: copying is all that has to be done before.

    Args:
        segment: The segment; no process may write it any more.

    Raises:
        OSError: If there is not enough memory.
        ValueError: If the segment is shorter than it says.
    """

    def __init__(self, segment: Segment) -> None:
        descriptor = os.memfd_create("klshm", os.MFD_CLOEXEC)
        try:
            os.truncate(descriptor, segment.layout.total_bytes)
            for first, end in _used(segment):
                os.lseek(descriptor, first, os.SEEK_SET)
                while first < end:
                    if not (moved := os.sendfile(descriptor, segment.descriptor, first, end - first)):
                        raise ValueError(f"{segment.path} ends at {first}, its layout says {end}")
                    first += moved
            self._segment = Segment(segment.path, descriptor, segment.layout, writable=False)
        except BaseException:
            os.close(descriptor)
            raise

    def read(self) -> Remains:
        """Return what it holds.

        Raises:
            ValueError, IndexError: If it contradicts itself.
        """
        return Remains(remains(self._segment, whole=True), read_clock(self._segment))

    def close(self) -> None:
        """Free the memory."""
        self._segment.close()


def open_bars_at_rest(segment: Segment) -> Rows:
    """Return the open bars of all workers, shape (n,), dtype KLINE.

    A row that was being written is taken from the readable half, and `partial`.
    """
    layout = segment.layout
    size = layout.slots * layout.intervals * ROW_BYTES
    parts = []
    for worker in range(layout.workers):
        half = int(segment.block(layout.partition_offset(worker))[lay.B_GENERATION]) & 1
        live = segment.region(layout.live_offset(worker), size).copy().view(KLINE)
        published = segment.region(layout.half_offset(worker, half), size).copy().view(KLINE)
        torn = (live["sequence"] & 1) != 0
        live[torn] = published[torn]
        live["flags"][torn] |= lay.FLAG_PARTIAL
        parts.append(live[(live["sequence"] > 0) & (live["sequence"] & 1 == 0)])
    return np.concatenate(parts)


def remains(segment: Segment, *, whole: bool) -> State:
    """Return what a segment holds; no process may write it any more.

    Args:
        segment: The segment.
        whole: All of history; otherwise only what the open bars stand on.
    """
    layout = segment.layout
    symbols, slots = _carried_symbols(segment)
    index = np.full(1 << 16, -1, dtype=np.int64)
    index[slots] = np.arange(len(slots))
    live = open_bars_at_rest(segment)
    kept = np.isin(live["interval"], layout.interval_codes) & (index[live["slot"]] >= 0)
    live = live[kept & are_sound(live, is_open=True)]
    live["slot"] = index[live["slot"]]
    minutes = live["open_time"][live["interval"] == layout.interval_codes[0]]
    minute_ms = int(minutes.max()) if len(minutes) else 0
    names = tuple(intervals.name_of(code) for code in layout.interval_codes)
    times = None if whole else needed_times(names, minute_ms, LEAST_ROWS)
    closed = _History(segment, symbols, slots, times)
    clock = read_clock(segment)
    skew_ms = (clock.offset_ns + time.monotonic_ns() - time.time_ns()) // 1_000_000 if clock else 0
    newest_ms = max(minute_ms, int(live["event_time"].max()) if len(live) else 0)
    return State("segment", symbols, live, closed if whole else tuple(closed), newest_ms, skew_ms)


def _used(segment: Segment) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a segment that hold what `remains` looks at, in bytes."""
    layout = segment.layout
    symbols, _ = _carried_symbols(segment)
    yield 0, layout.historian_log_offset
    for worker in range(layout.workers):
        yield layout.partition_offset(worker), layout.needs_offset(worker)
        local = symbols["local_slot"][symbols["worker"] == worker]
        slots = int(local.max()) + 1 if len(local) else 0
        for number, depth in enumerate(layout.history_rows):
            first = layout.history_offset(worker) + layout.history_row(0, number) * ROW_BYTES
            yield first, first + slots * depth * ROW_BYTES


def _carried_symbols(segment: Segment) -> tuple[Rows, Rows]:
    """Return the rows of the symbols that are carried, and their slots."""
    layout = segment.layout
    table = segment.region(layout.symbols_offset, layout.max_symbols * lay.SYMBOL_BYTES)
    count = int(segment.block(layout.historian_offset)[lay.B_SYMBOL_COUNT])
    rows = table[: min(max(count, 0), layout.max_symbols) * lay.SYMBOL_WORDS].copy().view(SYMBOL)
    # A row whose writer was killed is taken as it is: its name was written before it counted.
    good = np.isin(rows["status"], CARRIED) & (rows["worker"] >= 0) & (rows["worker"] < layout.workers)
    good &= (rows["local_slot"] >= 0) & (rows["local_slot"] < layout.slots)
    good &= np.array([is_legal_symbol(name) for name in symbol_names(rows)], dtype=bool)
    return rows[good], np.flatnonzero(good)


class _History:
    """The closed bars of a segment in pieces that a processor's cache holds, read anew at every walk.

    Millions of rows looked at column by column would otherwise come from memory a dozen times.

    Args:
        segment: The segment.
        symbols: Its carried symbols.
        slots: Their slots.
        times: Open times wanted of each interval; None: all.
    """

    def __init__(self, segment: Segment, symbols: Rows, slots: Rows, times: list[Rows] | None) -> None:
        self._segment = segment
        self._symbols = symbols
        self._slots = slots
        self._times = times

    def __iter__(self) -> Iterator[Rows]:
        layout = self._segment.layout
        size = layout.slots * layout.history_rows_per_symbol * ROW_BYTES
        for worker in range(layout.workers):
            mine = np.flatnonzero(self._symbols["worker"] == worker)
            history = self._segment.region(layout.history_offset(worker), size).reshape(-1, ROW_WORDS)
            for number, depth in enumerate(layout.history_rows):
                first = layout.history_row(0, number)
                table = history[first : first + layout.slots * depth].reshape(layout.slots, depth, ROW_WORDS)
                at_once = max(1, _PIECE_ROWS // depth)
                for start in range(0, len(mine), at_once):
                    yield self._piece(table, mine[start : start + at_once], number)

    def _piece(self, table: Rows, owners: Rows, number: int) -> Rows:
        """Return the closed bars of one interval of some symbols, shape (n,), dtype KLINE.

        Args:
            table: The interval's history at their worker, shape (slots, depth, 16), dtype int64.
            owners: Indices of the symbols.
            number: Index of the interval.
        """
        layout = self._segment.layout
        depth, code = layout.history_rows[number], layout.interval_codes[number]
        length, anchor = intervals.length_ms(intervals.name_of(code)), intervals.anchor_ms(intervals.name_of(code))
        times = None if self._times is None else self._times[number][-depth:]
        local = self._symbols["local_slot"][owners]
        places = np.arange(depth) if times is None else (times - anchor) // length % depth
        words = table[local] if times is None else table[np.ix_(local, places)]
        rows: Rows = words.view(KLINE)[:, :, 0]
        good = (rows["sequence"] > 0) & (rows["sequence"] & 1 == 0)
        good &= (rows["interval"] == code) & (rows["slot"] == self._slots[owners, None])
        good &= (rows["open_time"] - anchor) // length % depth == places
        if times is not None:
            good &= rows["open_time"] == times
        owner = np.broadcast_to(owners[:, None], good.shape)[good]
        taken: Rows = (words.reshape(-1, ROW_WORDS) if good.all() else words[good]).view(KLINE).reshape(-1)
        taken["slot"] = owner
        sound = are_sound(taken, is_open=False)
        return taken if sound.all() else taken[sound]
