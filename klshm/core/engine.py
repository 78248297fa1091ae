"""The engine of one worker: the only thing that makes bars.

Pure: it reads no clock and no socket. Time comes with the events; what it makes goes into the
arrays it was given, in the order that readers rely on (SHM section 3).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.core import state as st
from klshm.core.events import EVENT
from klshm.core.kernel.apply import apply_events, publish_halves
from klshm.core.state import new_memory
from klshm.shm import layout as lay
from klshm.shm.halves import D_CRASH, D_CURRENT, D_PREVIOUS, mark_all
from klshm.shm.layout import Layout
from klshm.shm.ring import adopt_entries
from klshm.shm.rows import history_index, write_row


__all__ = ["Engine", "partition_layout"]

Words = np.ndarray[Any, np.dtype[np.int64]]

ROW: Final = lay.ROW_WORDS
MOST_AMEND_MINUTES: Final = st.RECORDS - 3
"""Minutes that records reach back; the other three are the open one and two that may come early."""


def partition_layout(
    slots: int, kept: tuple[str, ...] = ("1m", "5m", "30m", "4h", "1d", "1w"), history_rows: int = 128
) -> Layout:
    """Return a layout of one worker, for engines that live in private memory (tests, bench).

    Args:
        slots: Symbols it can hold.
        kept: Kept intervals.
        history_rows: Closed bars kept per series.
    """
    codes = tuple(intervals.code_of(name) for name in kept)
    return Layout(
        max_symbols=slots,
        workers=1,
        slots=slots,
        interval_codes=codes,
        history_rows=(history_rows,) * len(kept),
        log_rows=1 << 12,
        inbox_rows=32,
        historian_log_rows=32,
        swap_interval_ms=50,
    )


class Engine:
    """Turns events into bars for the symbols of one worker.

    Args:
        words: The segment (or private memory of the same layout), dtype int64.
        layout: Its layout.
        worker: Which partition is this engine's; it is the only writer of it.
        amend_minutes: How many minutes after its end trades may still change a bar, 0 to 5.
        skip_filled: Whether folds leave children without trades out of open, high and low.
    """

    def __init__(
        self,
        words: Words,
        layout: Layout,
        worker: int = 0,
        *,
        amend_minutes: int = 5,
        skip_filled: bool = True,
    ) -> None:
        if not 0 <= amend_minutes <= MOST_AMEND_MINUTES:
            raise ValueError(f"amend_minutes is {amend_minutes}; records reach back {MOST_AMEND_MINUTES} minutes")
        names = [intervals.name_of(code) for code in layout.interval_codes]
        self.layout = layout
        self.worker = worker
        self.memory = new_memory(words, layout.slots, layout.intervals)
        self._block = layout.partition_offset(worker) // 8
        self._words, self._state = self.memory
        state = self.memory.state
        self._tracker = int(state[st.C_TRACKER])
        self._rows = layout.slots * layout.intervals
        state[st.C_BLOCK] = self._block
        state[st.C_LIVE] = layout.live_offset(worker) // 8
        state[st.C_HALF_0] = layout.half_offset(worker, 0) // 8
        state[st.C_HALF_1] = layout.half_offset(worker, 1) // 8
        state[st.C_HISTORY] = layout.history_offset(worker) // 8
        state[st.C_NEEDS] = layout.needs_offset(worker) // 8
        state[st.C_LOG] = layout.log_offset(worker) // 8
        state[st.C_LOG_ROWS] = layout.log_rows
        state[st.C_COUNTERS] = self._block + lay.B_COUNTERS
        state[st.C_AMEND_MS] = amend_minutes * intervals.MINUTE_MS
        state[st.C_SKIP_FILLED] = int(skip_filled)
        state[st.C_SETTLED_THROUGH] = words[self._block + lay.B_SETTLED_THROUGH_MS]
        state[st.C_LOG_POSITION] = words[self._block + lay.B_TAIL]
        for index, (name, source) in enumerate(zip(names, intervals.parents_of(tuple(names)), strict=True)):
            state[st.C_LENGTH + index] = intervals.length_ms(name)
            state[st.C_ANCHOR + index] = intervals.anchor_ms(name)
            state[st.C_SOURCE + index] = source
            state[st.C_HISTORY_ROWS + index] = layout.history_rows[index]
            state[st.C_HISTORY_BASE + index] = layout.history_row(0, index)
            state[st.C_CODE + index] = layout.interval_codes[index]
        for slot in range(layout.slots):
            for index in range(st.RECORDS):
                state[state[st.C_RECORDS] + (slot * st.RECORDS + index) * st.M_WORDS] = st.NONE
        mark_all(self.memory.state, self._tracker, self._rows)

    # Called by the worker

    def apply(self, events: np.ndarray[Any, Any], now_ms: int, mono_ns: int = 0) -> int:
        """Apply events in order and publish what changed.

        Args:
            events: Shape (n,), dtype EVENT.
            now_ms: The exchange's time, UTC ms.
            mono_ns: CLOCK_MONOTONIC, kept in the cut if a closing wave publishes one.

        Returns:
            How many log entries became visible; the caller wakes those who wait for the tail.
        """
        return self.apply_words(np.ascontiguousarray(events).view(np.int64), len(events), now_ms, mono_ns)

    def apply_words(self, words: Words, number: int, now_ms: int, mono_ns: int) -> int:
        """Apply events as `apply` does, handed over as words: no array is made per call.

        Args:
            words: Contiguous, dtype int64, `E_WORDS` per event.
            number: How many events of it.
            now_ms: The exchange's time, UTC ms.
            mono_ns: CLOCK_MONOTONIC.

        Returns:
            How many log entries became visible.
        """
        return int(apply_events(self._words, self._state, words, number, now_ms, mono_ns))

    def publish(self, mono_ns: int) -> int:
        """Publish a new half if anything changed since the last two.

        Returns:
            Rows copied; 0 if nothing had changed and nothing was published.
        """
        state = self.memory.state
        if state[self._tracker + D_CURRENT] == 0 and state[self._tracker + D_PREVIOUS] == 0:
            return 0
        return int(publish_halves(*self.memory, mono_ns))

    def set_lag(self, lag_ms: int) -> None:
        """Tell how far the streams run behind the exchange's clock (99th percentile), ms."""
        self.memory.state[st.C_LAG_MS] = lag_ms

    def crash_at(self, word: int) -> None:
        """Let the process die at a point inside the kernels (`klshm.shm.crash.Crash.word`); 0: at none."""
        self.memory.state[self._tracker + D_CRASH] = word

    def recover(self) -> int:
        """Make a partition whole that a killed worker left, before the first event.

        A live row that was being written is taken from the readable half; log entries beyond the
        tail are adopted and replayed into history; every row counts as changed for two swaps.

        Returns:
            Log entries adopted.
        """
        self._mend_live_rows()
        adopted = self._adopt_log()
        mark_all(self.memory.state, self._tracker, self._rows)
        return adopted

    # Called by tests and by those who look

    def counter(self, name: str) -> int:
        """Return one of the worker's counters."""
        from klshm.shm.counters import WORKER

        return int(self.memory.words[self._block + lay.B_COUNTERS + WORKER.index(name)])

    def record(self, slot: int, minute_ms: int) -> dict[str, int]:
        """Return the words of a minute record that say where it stands, for debugging."""
        index = (minute_ms // intervals.MINUTE_MS) % st.RECORDS
        at = int(self.memory.state[st.C_RECORDS]) + (slot * st.RECORDS + index) * st.M_WORDS
        if self.memory.state[at + st.M_TIME] != minute_ms:
            return {}
        names = {name: value for name, value in vars(st).items() if name.startswith("M_") and name != "M_WORDS"}
        return {name: int(self.memory.state[at + value]) for name, value in names.items()}

    def _mend_live_rows(self) -> None:
        words, state = self.memory.words, self.memory.state
        half = st.C_HALF_1 if words[self._block + lay.B_GENERATION] & 1 else st.C_HALF_0
        for row in range(self._rows):
            live = int(state[st.C_LIVE]) + row * ROW
            if words[live] & 1:
                copied = int(state[half]) + row * ROW
                image = words[copied : copied + ROW].copy()
                image[lay.W_FLAGS] |= lay.FLAG_PARTIAL
                write_row(words, live, image, 0)

    def _adopt_log(self) -> int:
        words, state = self.memory.words, self.memory.state
        ring, rows = int(state[st.C_LOG]), int(state[st.C_LOG_ROWS])
        tail = int(words[self._block + lay.B_TAIL])
        end = int(adopt_entries(words, ring, rows, tail))
        slots = self._local_slots()
        for position in range(tail, end):
            entry = ring + (position & (rows - 1)) * ROW
            packed = int(words[entry + lay.W_REVISION_SLOT])
            local = slots.get((packed >> 32) & 0xFFFF)
            code = (packed >> 48) & 0xFF
            if local is None or code not in self.layout.interval_codes:
                continue
            interval = self.layout.interval_codes.index(code)
            name = intervals.name_of(code)
            index = history_index(
                int(words[entry + lay.W_OPEN_TIME]),
                intervals.anchor_ms(name),
                intervals.length_ms(name),
                self.layout.history_rows[interval],
            )
            row = self.layout.history_row(local, interval) + int(index)
            write_row(words, int(state[st.C_HISTORY]) + row * ROW, words, entry)
        state[st.C_LOG_POSITION] = end
        words[self._block + lay.B_TAIL] = end
        return end - tail

    def _local_slots(self) -> dict[int, int]:
        """Return which local slot each symbol had, from the live rows."""
        words, state = self.memory.words, self.memory.state
        found = {}
        for slot in range(self.layout.slots):
            live = int(state[st.C_LIVE]) + slot * self.layout.intervals * ROW
            if words[live + lay.W_OPEN_TIME] != 0:
                found[(int(words[live + lay.W_REVISION_SLOT]) >> 32) & 0xFFFF] = slot
        return found


assert EVENT.itemsize % 8 == 0
