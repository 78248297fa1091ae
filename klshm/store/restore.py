"""Seeding a fresh segment with what is known, so that every role finds what it would find after its own restart.

Everything goes by symbol name and open time: other workers, slots, intervals or depths than last
time change only where a row lies. Of several sources the newest open bar and the best closed one
are taken. The symbols table comes last: until then nobody finds what was seeded.

Numbers are restored exactly because rows are copied whole, residuals and decimals included.

An open minute that is too old is left out: closing all minutes since by the clock would fill the
log with bars that say nothing. So is one that has later closed minutes behind a hole, as after a
stop and a `backfill`: the clock would close flat bars over them. The symbol then joins anew, on
the history that it finds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, ROW_BYTES, ROW_WORDS, SYMBOL_WORDS
from klshm.shm.segment import Segment
from klshm.shm.view import Clock
from klshm.store.state import State, needed_times, symbol_names, worth


__all__ = ["Seeded", "Seeding", "most_minutes"]

Rows = np.ndarray[Any, Any]

MOST_MINUTES: Final = 499
"""Longest gap that is closed by the clock; as many minutes as one request repairs."""
_LEAST_MINUTES: Final = 5
_LOG_SHARE: Final = 4
_WHOLE: Final = 2
"""Sequence of a row that was written once."""
_DRIFT: Final = 20_000
"""CLOCK_MONOTONIC drifts by less than one part of this."""


@dataclass
class Seeded:
    """What was put into a segment.

    Attributes:
        symbols: Symbols in the table.
        live_rows: Open bars.
        closed_rows: Closed bars, whether they were better than those before or not.
        not_resumed: Symbols whose open minute is missing, too old or behind later ones: they join anew.
        gaps_minutes: Minutes from each resumed symbol's open bar to now.
    """

    symbols: int = 0
    live_rows: int = 0
    closed_rows: int = 0
    not_resumed: int = 0
    gaps_minutes: list[int] = field(default_factory=list)


def most_minutes(layout: lay.Layout, symbols: int) -> int:
    """Return how old an open minute may be to be gone on from.

    Closing the minutes since must leave the closed-bar log room for what follows.

    Args:
        layout: Layout of the segment.
        symbols: Symbols of the worker that carries most.
    """
    lengths = [intervals.length_ms(intervals.name_of(code)) for code in layout.interval_codes]
    entries = max(1, symbols) * sum(intervals.MINUTE_MS / length for length in lengths)
    return int(min(MOST_MINUTES, max(_LEAST_MINUTES, layout.log_rows / _LOG_SHARE / entries)))


class Seeding:
    """Writes into a segment that no role uses yet.

    Args:
        segment: The fresh segment.
        table: Rows of its symbols table, dtype SYMBOL, in the order of their slots, worker and local slot dealt.
    """

    def __init__(self, segment: Segment, table: Rows) -> None:
        layout = segment.layout
        self._segment = segment
        self._layout = layout
        self._table = table
        self._slots = {name: slot for slot, name in enumerate(symbol_names(table))}
        self._names = tuple(intervals.name_of(code) for code in layout.interval_codes)
        self._lengths = np.array([intervals.length_ms(name) for name in self._names])
        self._anchors = np.array([intervals.anchor_ms(name) for name in self._names])
        self._number = np.full(256, -1, dtype=np.int64)
        self._number[list(layout.interval_codes)] = np.arange(layout.intervals)
        self._minutes = np.zeros(len(table), dtype=np.int64)
        size = layout.slots * layout.history_rows_per_symbol * ROW_BYTES
        self._history = [
            segment.region(layout.history_offset(worker), size).reshape(-1, ROW_WORDS)
            for worker in range(layout.workers)
        ]
        self.report = Seeded(symbols=len(table))

    def put_state(self, state: State) -> int:
        """Put the closed bars of a state where they belong, unless a better one stands there; return how many."""
        slots = self._slots_of(state)
        return sum(self._put_closed(piece, slots) for piece in state.closed)

    def put_rows(self, slot: int, rows: Rows) -> int:
        """Put closed bars of one symbol; return how many."""
        named = rows.copy()
        named["slot"] = 0
        return self._put_closed(named, np.array([slot], dtype=np.int64))

    def put_live(self, states: list[State], now_ms: int) -> None:
        """Put the newest open bars, those that time has not passed by.

        Args:
            states: Sources; of equally new bars those of the first are taken.
            now_ms: Exchange time, UTC ms.
        """
        rows = self._newest_live(states)
        minutes = np.full(len(self._table), -1, dtype=np.int64)
        first = rows["interval"] == self._layout.interval_codes[0]
        minutes[rows["slot"][first]] = rows["open_time"][first]
        carried = np.bincount(self._table["worker"], minlength=1)
        gaps = (now_ms - minutes) // intervals.MINUTE_MS
        # A minute ahead of us is our clock's error, more is no minute to go on from.
        resumed = (minutes >= 0) & (gaps >= -1) & (gaps <= most_minutes(self._layout, int(carried.max())))
        resumed &= ~self._would_overwrite(minutes)
        numbers = self._number[rows["interval"]]
        opened = (minutes[rows["slot"]] - self._anchors[numbers]) // self._lengths[numbers] * self._lengths[numbers]
        rows = rows[resumed[rows["slot"]] & (rows["open_time"] == opened + self._anchors[numbers])]
        self._write_live(rows)
        self._minutes[:] = np.where(resumed, minutes, now_ms // intervals.MINUTE_MS * intervals.MINUTE_MS)
        self.report.live_rows = len(rows)
        self.report.not_resumed = int(np.count_nonzero(~resumed))
        self.report.gaps_minutes = np.maximum(gaps[resumed], 0).tolist()

    def lacking(self) -> list[tuple[int, int, int, int]]:
        """Return which closed bars the open ones stand on and are not there, once open bars were put.

        Returns:
            Slot, index of the interval, first and last open time of each stretch.
        """
        found = []
        for minute_ms in np.unique(self._minutes).tolist():
            slots = np.flatnonzero(self._minutes == minute_ms)
            for number, times in enumerate(needed_times(self._names, minute_ms, 1)):
                for slot, missing in self._missing(slots, number, times[-self._layout.history_rows[number] :]):
                    found.append((slot, number, int(missing[0]), int(missing[-1])))
        return found

    def put_clock(self, clock: Clock | None) -> None:
        """Go on with the exchange's clock as it was measured since this machine was started."""
        elapsed_ns = time.monotonic_ns() - clock.synced_ns if clock else -1
        if clock is None or elapsed_ns < 0:
            return
        block = self._segment.block(self._layout.historian_offset)
        error_ns = clock.error_ns + elapsed_ns // _DRIFT
        first = lay.B_CLOCK_OFFSET_NS
        block[first : first + 4] = clock.offset_ns, error_ns, clock.synced_ns, clock.round_trip_ns
        block[lay.B_CLOCK_SEQUENCE] = _WHOLE

    def put_symbols(self) -> None:
        """Write the symbols table: from here on all that was seeded is found."""
        table = self._table.copy()
        table["sequence"] = _WHOLE
        table["generation"] = 1
        first = self._layout.symbols_offset // 8
        self._segment.words[first : first + len(table) * SYMBOL_WORDS] = table.view(np.int64)
        block = self._segment.block(self._layout.historian_offset)
        block[lay.B_SYMBOL_COUNT] = len(table)
        block[lay.B_SYMBOLS_VERSION] = 1

    # Inside

    def _slots_of(self, state: State) -> Rows:
        """Return the slot here of every symbol of a state, -1 for those that are not taken."""
        return np.array([self._slots.get(name, -1) for name in symbol_names(state.symbols)], dtype=np.int64)

    def _flat(self, slots: Rows, number: int, times: Rows) -> Rows:
        """Return where bars lie in their worker's history, counted in rows."""
        depth = self._layout.history_rows[number]
        index = (times - self._anchors[number]) // self._lengths[number] % depth
        places: Rows = self._layout.history_row(0, number) + self._table["local_slot"][slots] * depth + index
        return places

    def _missing(self, slots: Rows, number: int, times: Rows) -> Iterator[tuple[int, Rows]]:
        """Yield the slots that lack bars of these open times, and which."""
        places = self._flat(np.repeat(slots, len(times)), number, np.tile(times, len(slots))).reshape(len(slots), -1)
        workers = self._table["worker"][slots]
        lacks = times + self._lengths[number] > self._table["onboard_ms"][slots, None]
        for worker in np.unique(workers).tolist():
            mine = workers == worker
            lacks[mine] &= self._history[worker][places[mine], lay.W_OPEN_TIME] != times
        for index in np.flatnonzero(lacks.any(axis=1)).tolist():
            yield int(slots[index]), times[lacks[index]]

    def _put_closed(self, rows: Rows, slots: Rows) -> int:
        if not len(self._table) or not len(rows):
            return 0
        numbers, owners = self._number[rows["interval"]], slots[rows["slot"]]
        ends = rows["open_time"] + self._lengths[numbers]
        # A bar of an earlier listing of the same name is not this symbol's.
        kept = (numbers >= 0) & (owners >= 0) & (ends > self._table["onboard_ms"][owners])
        words = rows.view(np.int64).reshape(-1, ROW_WORDS)
        if not kept.all():
            words, numbers, owners = words[kept], numbers[kept], owners[kept]
        put = 0
        # Not np.unique: it sorts, and there are millions of rows.
        series = numbers * self._layout.workers + self._table["worker"][owners]
        for key in np.flatnonzero(np.bincount(series)).tolist():
            number = key // self._layout.workers
            mine = series == key
            whole = mine.all()
            put += self._put_series(words if whole else words[mine], owners if whole else owners[mine], number)
        self.report.closed_rows += put
        return put

    def _put_series(self, words: Rows, owners: Rows, number: int) -> int:
        """Put bars of one interval and one worker."""
        times = words[:, lay.W_OPEN_TIME]
        places = self._flat(owners, number, times)
        # A series is a ring by time: of several bars for one place the newest stands, of one time the best.
        if int(np.bincount(places).max()) > 1:
            order = np.lexsort((worth(words), times, places))
            last = np.flatnonzero(np.diff(places[order], append=-1))
            words, owners, places = words[order[last]], owners[order[last]], places[order[last]]
            times = words[:, lay.W_OPEN_TIME]
        history = self._history[int(self._table["worker"][owners[0]])]
        held = history[places, lay.W_OPEN_TIME]
        better = times > held
        same = np.flatnonzero(times == held)
        better[same] = worth(words[same]) > worth(history[places[same]])
        if not better.all():
            words, owners, places = words[better], owners[better], places[better]
        history[places] = _placed(words, owners)
        return len(words)

    def _newest_live(self, states: list[State]) -> Rows:
        """Return the newest open bar of every series, `slot` as here."""
        parts, ranks = [np.empty(0, dtype=KLINE)], [np.empty(0, dtype=np.int64)]
        for rank, state in enumerate(states):
            slots = self._slots_of(state)
            rows = state.live.copy()
            owners = slots[rows["slot"]]
            kept = (owners >= 0) & (self._number[rows["interval"]] >= 0)
            rows, owners = rows[kept], owners[kept]
            rows["slot"] = owners
            ends = rows["open_time"] + self._lengths[self._number[rows["interval"]]]
            rows = rows[ends > self._table["onboard_ms"][owners]]
            parts.append(rows)
            ranks.append(np.full(len(rows), -rank))
        rows = np.concatenate(parts)
        series = rows["slot"].astype(np.int64) << 8 | rows["interval"]
        order = np.lexsort((np.concatenate(ranks), rows["event_time"], rows["open_time"], series))
        newest: Rows = rows[order[np.flatnonzero(np.diff(series[order], append=-1))]]
        return newest

    def _would_overwrite(self, minutes: Rows) -> Rows:
        """Return which symbols know a minute after their open one with a hole between: closing would go across it."""
        layout, depth = self._layout, self._layout.history_rows[0]
        found = np.zeros(len(self._table), dtype=bool)
        first = layout.history_row(0, 0)
        for worker, history in enumerate(self._history):
            mine = np.flatnonzero(self._table["worker"] == worker)
            series = history[first : first + layout.slots * depth, lay.W_OPEN_TIME].reshape(layout.slots, depth)
            times = series[self._table["local_slot"][mine]]
            known = np.count_nonzero(times >= minutes[mine, None], axis=1)
            # No time stands twice in a series: without a hole there are as many as lie between.
            wanted = (times.max(axis=1) - minutes[mine]) // intervals.MINUTE_MS + 1
            found[mine] = (known > 0) & (known < wanted)
        return found

    def _write_live(self, rows: Rows) -> None:
        """Write open bars to the live tables, and to the halves that readers find first."""
        layout = self._layout
        workers = self._table["worker"][rows["slot"]]
        places = self._table["local_slot"][rows["slot"]] * layout.intervals + self._number[rows["interval"]]
        words = _placed(rows.view(np.int64).reshape(-1, ROW_WORDS), rows["slot"].astype(np.int64))
        size = layout.slots * layout.intervals * ROW_BYTES
        for worker in range(layout.workers):
            mine = workers == worker
            for offset in (layout.live_offset(worker), layout.half_offset(worker, 0)):
                self._segment.region(offset, size).reshape(-1, ROW_WORDS)[places[mine]] = words[mine]


def _placed(words: Rows, slots: Rows) -> Rows:
    """Return rows as they stand in a segment: whole, under their slot there."""
    placed = words.copy()
    placed[:, lay.W_SEQUENCE] = _WHOLE
    rows = placed.view(KLINE).reshape(-1)
    rows["slot"] = slots
    return placed
