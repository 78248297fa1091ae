"""Small real segments, and where their parts lie in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from klshm.intervals import code_of
from klshm.shm import layout as lay
from klshm.shm.halves import swap, tracker_words
from klshm.shm.layout import KLINE, Layout
from klshm.shm.ring import RingProducer
from klshm.shm.segment import Segment, create_segment


MINUTE = 60_000
START = 1_760_000_040_000 // MINUTE * MINUTE


def make_layout(**changes: Any) -> Layout:
    sizes: dict[str, Any] = dict(
        max_symbols=8,
        workers=2,
        slots=8,
        interval_codes=(code_of("1m"), code_of("5m")),
        history_rows=(96, 32),
        log_rows=64,
        inbox_rows=32,
        historian_log_rows=32,
        swap_interval_ms=50,
    )
    return Layout(**{**sizes, **changes})


def make_segment(instance: str = "test", **changes: Any) -> Segment:
    return create_segment(instance, make_layout(**changes), b"{}")


def bars(values: Any, **fields: Any) -> Any:
    """Return rows whose cells all say `values`, shape (n,), dtype KLINE."""
    rows = np.zeros(len(values), dtype=KLINE)
    for name in ("open_time", "open", "high", "low", "close", "volume", "last_agg_id", "last_trade_id", "event_time"):
        rows[name] = values
    for name, value in fields.items():
        rows[name] = value
    return rows


class Partition:
    """One worker's partition, its tracker and its cut, as its writer knows them."""

    def __init__(self, segment: Segment, worker: int = 0) -> None:
        layout = segment.layout
        self.words = segment.words
        self.rows = layout.slots * layout.intervals
        self.block = layout.partition_offset(worker) // 8
        self.live = layout.live_offset(worker) // 8
        self.halves = [layout.half_offset(worker, half) // 8 for half in (0, 1)]
        self.history = layout.history_offset(worker) // 8
        self.tail = self.block + lay.B_TAIL
        self.ring = layout.log_offset(worker) // 8
        self.cut = tracker_words(self.rows)
        self.private = np.zeros(self.cut + lay.CUT_WORDS, dtype=np.int64)
        self.layout = layout

    def live_row(self, row: int) -> int:
        """Return the first word of a live row."""
        return self.live + row * lay.ROW_WORDS

    def history_row(self, local_slot: int, interval: int, index: int) -> int:
        """Return the first word of a history row."""
        return self.history + (self.layout.history_row(local_slot, interval) + index) * lay.ROW_WORDS

    def swap(self, batch: int) -> int:
        self.private[self.cut :] = (batch + 3, batch + 2, batch + 1, batch)
        halves = self.halves
        words, private = self.words, self.private
        return int(swap(words, self.block, self.live, halves[0], halves[1], private, 0, self.rows, self.cut))

    def producer(self) -> RingProducer:
        return RingProducer(self.words, self.ring, self.layout.log_rows, self.tail)
