"""Real segments for readers, written with the engine's own row, half and ring code."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm.config import Config, DataConfig
from klshm.config.settings import to_json
from klshm.intervals import code_of, length_ms
from klshm.shm import futex
from klshm.shm import layout as lay
from klshm.shm.halves import mark_row, swap, tracker_words
from klshm.shm.layout import KLINE, Layout
from klshm.shm.ring import RingProducer
from klshm.shm.rows import write_row
from klshm.shm.segment import Segment, create_segment


MINUTE = 60_000
START = 1_760_000_040_000 // MINUTE * MINUTE
ALIVE_S = -600.0
"""Ahead of time: however long a busy machine takes over a test, its engine does not grow silent meanwhile."""


class Desk:
    """A segment and everything that may be written into it.

    Args:
        instance: Its name.
        workers: Partitions.
        intervals: Kept intervals.
        log_rows: Capacity of each log.
        config: What the segment carries.
    """

    def __init__(
        self,
        instance: str = "test",
        workers: int = 1,
        intervals: tuple[str, ...] = ("1m", "5m"),
        log_rows: int = 256,
        config: Config | None = None,
    ) -> None:
        self.layout = Layout(
            max_symbols=8,
            workers=workers,
            slots=8,
            interval_codes=tuple(code_of(name) for name in intervals),
            history_rows=(96,) * len(intervals),
            log_rows=log_rows,
            inbox_rows=64,
            historian_log_rows=64,
            swap_interval_ms=50,
        )
        self.intervals = intervals
        config = config or Config(instance=instance, data=DataConfig(directory="/nonexistent"))
        self.segment: Segment = create_segment(instance, self.layout, to_json(dataclasses.replace(config)))
        self.words = self.segment.words
        self.words[lay.H_STATE] = lay.STATE_SERVING
        self.symbols: dict[str, tuple[int, int, int]] = {}
        self.logs = [
            RingProducer(self.words, self.layout.log_offset(w) // 8, log_rows, self.block(w) + lay.B_TAIL)
            for w in range(workers)
        ]
        self.rows = self.layout.slots * self.layout.intervals
        self.cut = tracker_words(self.rows)
        self.private = [np.zeros(self.cut + lay.CUT_WORDS, dtype=np.int64) for _ in range(workers)]
        self.beat()

    # -- roles ------------------------------------------------------------------------------------

    def block(self, worker: int) -> int:
        return self.layout.partition_offset(worker) // 8

    def beat(self, age_s: float = ALIVE_S) -> None:
        """Let launcher and workers show life so long ago."""
        """Let the launcher and all workers show life, `age_s` seconds ago."""
        for worker in range(self.layout.workers):
            self.beat_worker(worker, age_s)
        self._beat(self.layout.launcher_offset // 8, age_s)

    def beat_worker(self, worker: int, age_s: float = ALIVE_S) -> None:
        """Let a worker show life so long ago."""
        self._beat(self.block(worker), age_s)

    def _beat(self, block: int, age_s: float) -> None:
        self.words[block + lay.B_HEARTBEAT_NS] = time.monotonic_ns() - int(age_s * 1e9)
        self.words[block + lay.B_PID] = 1

    def set_clock(self, now_ms: int, error_ns: int = 1000) -> None:
        """Let the exchange's clock show this time now."""
        block = self.layout.historian_offset // 8
        now_ns = time.monotonic_ns()
        self.words[block + lay.B_CLOCK_OFFSET_NS] = now_ms * 1_000_000 - now_ns
        self.words[block + lay.B_CLOCK_ERROR_NS] = error_ns
        self.words[block + lay.B_CLOCK_SYNCED_NS] = now_ns

    def list_symbol(self, name: str, worker: int = 0, status: int = lay.SYMBOL_TRADING) -> int:
        """Put a symbol into the table, as the historian does."""
        slot = len(self.symbols)
        local = sum(1 for _, w, _ in self.symbols.values() if w == worker)
        row = np.zeros(1, dtype=lay.SYMBOL)
        row["name"], row["pair"] = name.encode(), name.encode()
        row["status"], row["worker"], row["local_slot"] = status, worker, local
        row["price_decimals"], row["quantity_decimals"] = 2, 3
        row["sequence"] = 2
        at = self.layout.symbols_offset // 8 + slot * lay.SYMBOL_WORDS
        self.words[at : at + lay.SYMBOL_WORDS] = row.view(np.int64)
        self.symbols[name] = (slot, worker, local)
        self._table_changed()
        return slot

    def set_status(self, name: str, status: int) -> None:
        at = self.layout.symbols_offset // 8 + self.symbols[name][0] * lay.SYMBOL_WORDS
        self.words[at + 2] = status
        self.words[at] += 2
        self._table_changed()

    def _table_changed(self) -> None:
        block = self.layout.historian_offset // 8
        self.words[block + lay.B_SYMBOL_COUNT] = len(self.symbols)
        self.words[block + lay.B_SYMBOLS_VERSION] += 1

    # -- bars -------------------------------------------------------------------------------------

    def row(self, symbol: str, interval: str, open_time: int, **values: Any) -> Any:
        """Return one KLINE row, shape (1,)."""
        row = np.zeros(1, dtype=KLINE)
        row["open_time"], row["slot"] = open_time, self.symbols[symbol][0]
        row["interval"], row["state"], row["revision"] = code_of(interval), lay.STATE_CLOSED, 1
        price = 100.0 + open_time % 7
        for name, value in {"open": price, "high": price + 1, "low": price - 1, "close": price, **values}.items():
            row[name] = value
        return row

    def live(self, symbol: str, interval: str, open_time: int, **values: Any) -> None:
        """Write the open bar of a series."""
        _, worker, local = self.symbols[symbol]
        index = local * self.layout.intervals + self.intervals.index(interval)
        row = self.row(symbol, interval, open_time, **{"state": lay.STATE_LIVE, **values})
        self._write(self.layout.live_offset(worker) // 8 + index * lay.ROW_WORDS, row)
        mark_row(self.private[worker], 0, self.rows, index)

    def keep(self, symbol: str, interval: str, open_time: int, **values: Any) -> None:
        """Write a closed bar into history only."""
        _, worker, local = self.symbols[symbol]
        index = self.intervals.index(interval)
        number = open_time // length_ms(interval) % self.layout.history_rows[index]
        at = self.layout.history_offset(worker) // 8
        at += (self.layout.history_row(local, index) + number) * lay.ROW_WORDS
        self._write(at, self.row(symbol, interval, open_time, **values))

    def log(self, symbol: str, interval: str, open_time: int, **values: Any) -> None:
        """Log a closed bar and keep it; `publish` makes it visible."""
        self.logs[self.symbols[symbol][1]].append(self.row(symbol, interval, open_time, **values))
        self.keep(symbol, interval, open_time, **values)

    def tick(self, symbol: str, interval: str, open_time: int, **values: Any) -> None:
        """Close a bar and open the next."""
        self.log(symbol, interval, open_time, **values)
        self.live(symbol, interval, open_time + length_ms(interval))

    def publish(self, closed_through_ms: int = 0, exchange_ms: int = 0) -> None:
        """Swap the halves of all workers and move their tails."""
        for worker, log in enumerate(self.logs):
            private = self.private[worker]
            private[self.cut :] = (time.monotonic_ns(), exchange_ms, closed_through_ms, 1)
            live, half_0, half_1 = (
                offset // 8
                for offset in (
                    self.layout.live_offset(worker),
                    self.layout.half_offset(worker, 0),
                    self.layout.half_offset(worker, 1),
                )
            )
            swap(self.words, self.block(worker), live, half_0, half_1, private, 0, self.rows, self.cut)
            log.publish()
            futex.wake(self.words, self.block(worker) + lay.B_GENERATION)

    def settle(self, through_ms: int, worker: int = 0) -> None:
        """Say that every bar which ended by then has settled."""
        self.words[self.block(worker) + lay.B_SETTLED_THROUGH_MS] = through_ms

    def _write(self, at: int, row: Any) -> None:
        write_row(self.words, at, row.view(np.int64).reshape(-1), 0)

    def close(self) -> None:
        del self.logs, self.words
        self.segment.unlink()
        self.segment.close()


@pytest.fixture
def make_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Desk]]:
    """Make segments in a directory of this test's own."""
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("KLSHM_INSTANCE", raising=False)
    desks: list[Desk] = []

    def make(*args: Any, **options: Any) -> Desk:
        desks.append(Desk(*args, **options))
        return desks[-1]

    before = len(os.listdir("/proc/self/fd"))
    yield make
    for desk in desks:
        desk.close()
    assert len(os.listdir("/proc/self/fd")) <= before, "a test left descriptors open"
