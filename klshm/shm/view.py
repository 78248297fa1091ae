"""Reading a segment with NumPy alone: rows, cuts, history, symbols, clock.

Right on machines that keep the order of loads (x86-64); `klshm.read.attach` refuses others.
Everything returned is a copy: a view would show torn rows and keep the map from closing.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.errors import RowBusy, SnapshotBusy
from klshm.shm import futex
from klshm.shm import layout as lay
from klshm.shm.consumer import RingConsumer
from klshm.shm.layout import KLINE, ROW_BYTES, ROW_WORDS, SYMBOL
from klshm.shm.room import Room
from klshm.shm.segment import Segment


__all__ = [
    "Clock",
    "Cut",
    "PartitionView",
    "SymbolTable",
    "exchange_now_ms",
    "read_clock",
    "take_cuts",
    "wait_for_tail",
]

Words = np.ndarray[Any, np.dtype[np.int64]]
Rows = np.ndarray[Any, Any]

_ROW_TRIES: Final = 64
_CUT_TRIES: Final = 8
_HISTORY_TRIES: Final = 64


@dataclass(frozen=True)
class Cut:
    """One exact state of one worker's open bars.

    Attributes:
        rows: Shape (slots, intervals), dtype KLINE.
        generation: Number of the publication.
        mono_ns: CLOCK_MONOTONIC when it was made.
        exchange_ms: Exchange time when it was made.
        closed_through_ms: Every minute that ended by then is closed in it.
        batch: Number of the last batch of events in it.
    """

    rows: Rows
    generation: int
    mono_ns: int
    exchange_ms: int
    closed_through_ms: int
    batch: int


class PartitionView:
    """Reads the partition of one worker.

    Args:
        segment: The mapped segment.
        worker: Number of the worker.
    """

    def __init__(self, segment: Segment, worker: int) -> None:
        layout = segment.layout
        self.layout = layout
        self.worker = worker
        self.block = segment.block(layout.partition_offset(worker))
        self._segment = segment
        self._shape = (layout.slots, layout.intervals)
        rows = layout.slots * layout.intervals
        self._live = segment.region(layout.live_offset(worker), rows * ROW_BYTES)
        self._live_words = memoryview(self._live.data)
        self._live_bytes = self._live_words.cast("B")
        self._room = Room()
        self._halves = [segment.region(layout.half_offset(worker, half), rows * ROW_BYTES) for half in (0, 1)]
        self._history = segment.region(
            layout.history_offset(worker), layout.slots * layout.history_rows_per_symbol * ROW_BYTES
        ).reshape(-1, ROW_WORDS)
        names = [intervals.name_of(code) for code in layout.interval_codes]
        self._lengths = [intervals.length_ms(name) for name in names]
        self._anchors = [intervals.anchor_ms(name) for name in names]

    def needs(self) -> Any:
        """Return the needs table as it stands, shape (slots,), dtype NEED; a row may be half written."""
        words = self._segment.region(self.layout.needs_offset(self.worker), self.layout.slots * ROW_BYTES)
        return words.view(lay.NEED)

    @property
    def generation(self) -> int:
        """Number of the newest publication; half `generation & 1` is the readable one."""
        return int(self.block[lay.B_GENERATION])

    @property
    def settled_through_ms(self) -> int:
        """Every bar that ended by then has settled and its log entries are visible."""
        return int(self.block[lay.B_SETTLED_THROUGH_MS])

    @property
    def heartbeat_ns(self) -> int:
        """CLOCK_MONOTONIC of the worker's last sign of life."""
        return int(self.block[lay.B_HEARTBEAT_NS])

    def live_bytes(self, local_slot: int, interval: int) -> bytes:
        """Return the newest state of one open bar, 128 bytes.

        Raises:
            RowBusy: If it was being written at every one of 64 looks.
        """
        # SYNC POINT row: reader
        index = local_slot * self._shape[1] + interval
        word = index * ROW_WORDS
        byte = index * ROW_BYTES
        words = self._live_words
        for attempt in range(_ROW_TRIES):
            sequence = words[word]
            if not sequence & 1:
                data = self._live_bytes[byte : byte + ROW_BYTES].tobytes()
                if words[word] == sequence:
                    return data
            if attempt % 8 == 7:
                os.sched_yield()
        age_s = (time.monotonic_ns() - self.heartbeat_ns) / 1e9
        raise RowBusy(
            f"row of slot {local_slot} stayed half written over {_ROW_TRIES} looks; worker {self.worker} "
            f"(pid {int(self.block[lay.B_PID])}) last showed life {age_s:.1f} s ago; try again"
        )

    def live_row(self, local_slot: int, interval: int) -> Any:
        """Return the newest state of one open bar, a KLINE scalar.

        Raises:
            RowBusy: If it was being written at every look.
        """
        return np.frombuffer(self.live_bytes(local_slot, interval), dtype=KLINE)[0]

    def cut(self) -> Cut:
        """Return the newest publication of this worker.

        Raises:
            SnapshotBusy: If the worker published faster than it could be copied, eight times.
        """
        return take_cuts([self])[0]

    def history(self, local_slot: int, interval: int, first_open_ms: int, last_open_ms: int) -> Rows:
        """Return the closed bars of a series that are there, oldest first.

        Args:
            local_slot: Slot within this partition.
            interval: Index of the interval among the kept ones.
            first_open_ms: Open time of the first bar wanted, aligned.
            last_open_ms: Open time of the last bar wanted, aligned.

        Returns:
            Shape (n,), dtype KLINE. Bars that are missing or fell out of memory are left out.

        Raises:
            RowBusy: If rows were being written at every look.
        """
        # SYNC POINT row: reader
        rows, length = self.layout.history_rows[interval], self._lengths[interval]
        last = (last_open_ms - self._anchors[interval]) // length
        first = max((first_open_ms - self._anchors[interval]) // length, last - (rows - 2) + 1)
        if last < first:
            return np.empty(0, dtype=KLINE)
        steps = np.arange(first, last + 1, dtype=np.int64)
        indices = self.layout.history_row(local_slot, interval) + steps % rows
        wanted = steps * length + self._anchors[interval]
        for attempt in range(_HISTORY_TRIES):
            before = self._history[indices, 0]
            copied = self._history[indices]
            if np.array_equal(before, self._history[indices, 0]) and not np.any(before & 1):
                present = (copied[:, lay.W_OPEN_TIME] == wanted) & (before > 0)
                rows_there: Rows = copied[present].view(KLINE).reshape(-1)
                return rows_there
            if attempt % 8 == 7:
                os.sched_yield()
        raise RowBusy(f"history of slot {local_slot} was rewritten over {_HISTORY_TRIES} looks; try again")

    def log(self, cursor: int | None = None) -> RingConsumer:
        """Return a consumer of the closed-bar log.

        Args:
            cursor: Position to start at; None: after the newest entry.
        """
        ring = self._segment.region(self.layout.log_offset(self.worker), self.layout.log_rows * ROW_BYTES)
        tail = self.block[lay.B_TAIL : lay.B_TAIL + 1]
        return RingConsumer(ring, tail, int(tail[0]) if cursor is None else cursor)

    def _copy_half(self, generation: int) -> Cut:
        parity = generation & 1
        rows = self._room.copy(self._halves[parity]).view(KLINE).reshape(self._shape)
        at = lay.B_CUT + parity * lay.CUT_WORDS
        entry = self.block[at : at + lay.CUT_WORDS].tolist()
        return Cut(rows, generation, *entry)


def take_cuts(views: list[PartitionView]) -> list[Cut]:
    """Return the newest publication of several workers, each an exact cut.

    Raises:
        SnapshotBusy: If a worker published faster than it could be copied, eight times.
    """
    # SYNC POINT cut: reader
    cuts: dict[int, Cut] = {}
    pending = list(range(len(views)))
    for _ in range(_CUT_TRIES):
        generations = {i: views[i].generation for i in pending}
        for i in pending:
            cuts[i] = views[i]._copy_half(generations[i])
        # The half is rewritten only while generation + 2 is being built.
        pending = [i for i in pending if int(views[i].block[lay.B_INTENT]) > generations[i] + 1]
        if not pending:
            return [cuts[i] for i in range(len(views))]
    raise SnapshotBusy(
        f"worker {views[pending[0]].worker} published faster than this process could copy, {_CUT_TRIES} times; "
        "try again"
    )


class SymbolTable:
    """Reads the symbols table; its slots never move.

    Args:
        segment: The mapped segment.
    """

    def __init__(self, segment: Segment) -> None:
        layout = segment.layout
        self._block = segment.block(layout.historian_offset)
        self._words = segment.region(layout.symbols_offset, layout.max_symbols * lay.SYMBOL_BYTES).reshape(
            -1, lay.SYMBOL_WORDS
        )
        self._seen = -1
        self._slots: dict[str, int] = {}
        self._cached: Rows = np.empty(0, dtype=SYMBOL)

    @property
    def version(self) -> int:
        """Grows with every change of the table."""
        return int(self._block[lay.B_SYMBOLS_VERSION])

    @property
    def count(self) -> int:
        """Slots in use, tombstones included."""
        return int(self._block[lay.B_SYMBOL_COUNT])

    def rows(self) -> Rows:
        """Return all rows in use, shape (count,), dtype SYMBOL; the index is the slot.

        Raises:
            RowBusy: If the table was being written at every look.
        """
        # SYNC POINT symbol: reader
        for attempt in range(_ROW_TRIES):
            count = self.count
            before = self._words[:count, 0].copy()
            copied = self._words[:count].copy()
            if np.array_equal(before, self._words[:count, 0]) and not np.any(before & 1):
                return copied.view(SYMBOL).reshape(len(copied))  # a damaged count may be any number
            if attempt % 8 == 7:
                os.sched_yield()
        raise RowBusy("the symbols table was being written at every look; try again")

    def find(self, name: str) -> int:
        """Return the slot of a symbol, or -1; a tombstone counts only if nothing else has the name."""
        self._refresh()
        return self._slots.get(name, -1)

    def row(self, slot: int) -> Any:
        """Return the row of a slot as of the last change, a SYMBOL scalar."""
        self._refresh()
        return self._cached[slot]

    def name(self, slot: int) -> str:
        """Return the name of a slot's symbol as the exchange spells it."""
        return str(bytes(self.row(slot)["name"]).decode(errors="replace"))

    def _refresh(self) -> None:
        version = self.version
        if version == self._seen:
            return
        self._cached = self.rows()
        order = sorted(range(len(self._cached)), key=lambda s: self._cached[s]["status"] != lay.SYMBOL_DELISTED)
        self._slots = {bytes(self._cached[slot]["name"]).decode(errors="replace"): slot for slot in order}
        self._seen = version


@dataclass(frozen=True)
class Clock:
    """The exchange's clock as the historian last measured it.

    Attributes:
        offset_ns: Exchange time minus CLOCK_MONOTONIC.
        error_ns: Bound of the error.
        synced_ns: CLOCK_MONOTONIC of the measurement.
        round_trip_ns: Round trip of the best sample.
    """

    offset_ns: int
    error_ns: int
    synced_ns: int
    round_trip_ns: int

    def now_ms(self) -> int:
        """Return the exchange's time, UTC ms."""
        return (time.monotonic_ns() + self.offset_ns) // 1_000_000


def read_clock(segment: Segment) -> Clock | None:
    """Return the exchange's clock, or None if it was never measured in this segment."""
    # SYNC POINT clock: reader
    block = segment.block(segment.layout.historian_offset)
    for _ in range(_ROW_TRIES):
        before = int(block[lay.B_CLOCK_SEQUENCE])
        values = block[lay.B_CLOCK_OFFSET_NS : lay.B_CLOCK_OFFSET_NS + 4].tolist()
        if not before & 1 and int(block[lay.B_CLOCK_SEQUENCE]) == before:
            offset_ns, error_ns, synced_ns, round_trip_ns = values
            return Clock(offset_ns, error_ns, synced_ns, round_trip_ns) if synced_ns else None
        os.sched_yield()
    return None


def exchange_now_ms(segment: Segment) -> int:
    """Return the exchange's time, UTC ms; this machine's own while it was never measured."""
    clock = read_clock(segment)
    return clock.now_ms() if clock else time.time_ns() // 1_000_000


def wait_for_tail(segment: Segment, tails: list[int], seen: list[int], timeout_s: float) -> bool:
    """Wait until one of several logs grows.

    Args:
        segment: The mapped segment.
        tails: Words of the tails.
        seen: Their values as last seen.
        timeout_s: Seconds to wait at most.

    Returns:
        False if the time ran out.
    """
    return futex.wait_any(segment.words, tails, seen, timeout_s)
