"""A segment and its writers: plays workers and historian for the store, with the engine's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from klshm.config import Config, DataConfig, StoreConfig
from klshm.intervals import anchor_ms, code_of, length_ms
from klshm.role import Role, Stop
from klshm.shm import layout as lay
from klshm.shm.counters import PERSISTER, Counters
from klshm.shm.halves import mark_row, swap, tracker_words
from klshm.shm.layout import KLINE, ROW_WORDS, Layout
from klshm.shm.ring import RingProducer
from klshm.shm.rows import write_row
from klshm.shm.segment import Segment, create_segment
from klshm.store.persister import serve
from tests.support.processes import fork


MINUTE = 60_000
START = 1_760_000_040_000 // MINUTE * MINUTE
INTERVALS = ("1m", "5m")


def bars(open_times: Any, *, slot: Any = 0, interval: str | int = "1m", **fields: Any) -> Any:
    """Return closed bars whose values follow from their open times, shape (n,), dtype KLINE."""
    rows = np.zeros(len(open_times), dtype=KLINE)
    rows["open_time"] = open_times
    price = 100.0 + rows["open_time"] // MINUTE % 1000
    rows["open"], rows["high"], rows["low"], rows["close"] = price, price + 1.5, price - 0.25, price + 0.125
    rows["volume"], rows["quote_volume"], rows["trade_count"] = price / 3, price * 7, rows["open_time"] // MINUTE % 97
    rows["taker_buy_volume"], rows["taker_buy_quote_volume"] = price / 5, price * 3
    rows["slot"], rows["state"], rows["revision"] = slot, lay.STATE_CLOSED, 1
    rows["interval"] = interval if isinstance(interval, int) else code_of(interval)
    rows["price_decimals"], rows["quantity_decimals"] = 2, 3
    for name, value in fields.items():
        rows[name] = value
    return rows


class Engine:
    """A segment with its symbols, rings, halves and history.

    Args:
        directory: Data directory of all instances.
        symbols: Names; the symbol at slot i belongs to worker i mod workers.
        workers: Partitions.
        log_rows: Capacity of each ring.
        store: Configuration of the store.
    """

    def __init__(
        self,
        directory: Path,
        symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "BTCUSDT_241227", "币安人生USDT"),
        workers: int = 2,
        log_rows: int = 256,
        store: StoreConfig | None = None,
        instance: str = "test",
    ) -> None:
        self.layout = Layout(
            max_symbols=16,
            workers=workers,
            slots=8,
            interval_codes=tuple(map(code_of, INTERVALS)),
            history_rows=(96, 32),
            log_rows=log_rows,
            inbox_rows=64,
            historian_log_rows=log_rows,
            swap_interval_ms=50,
        )
        self.config = Config(
            instance=instance,
            data=DataConfig(directory=str(directory)),
            store=store or StoreConfig(flush_interval_s=0.05),
        )
        self.directory = directory / instance
        self.segment: Segment = create_segment(instance, self.layout, b"{}")
        self.words = self.segment.words
        self.symbols = list(symbols)
        for slot, name in enumerate(symbols):
            self.write_symbol(slot, name)
        layout = self.layout
        self.logs = [
            RingProducer(self.words, layout.log_offset(w) // 8, log_rows, self.block(w) + lay.B_TAIL)
            for w in range(workers)
        ]
        self.backfill = RingProducer(
            self.words,
            layout.historian_log_offset // 8,
            log_rows,
            layout.historian_offset // 8 + lay.B_TAIL,
            layout.persister_offset // 8 + lay.B_CURSOR,
        )
        self.persister_block = self.segment.block(layout.persister_offset)
        self.counters = Counters(self.persister_block, PERSISTER)
        self.rows = layout.slots * layout.intervals
        # Each worker's private words: its tracker of changed rows, then the cut to publish.
        self.private = [np.zeros(tracker_words(self.rows) + lay.CUT_WORDS, dtype=np.int64) for _ in range(workers)]

    def block(self, worker: int) -> int:
        return self.layout.partition_offset(worker) // 8

    def role(self) -> Role:
        return Role("persister", 0, self.segment, self.config, Stop())

    def write_symbol(
        self, slot: int, name: str, status: int = lay.SYMBOL_TRADING, onboard_ms: int = 0, torn: bool = False
    ) -> None:
        row = np.zeros(1, dtype=lay.SYMBOL)
        row["sequence"], row["name"], row["status"], row["onboard_ms"] = 2 - torn, name.encode(), status, onboard_ms
        row["worker"], row["local_slot"] = slot % self.layout.workers, slot // self.layout.workers
        at = self.layout.symbols_offset // 8 + slot * lay.SYMBOL_WORDS
        self.words[at : at + lay.SYMBOL_WORDS] = row.view(np.int64)
        block = self.layout.historian_offset // 8
        self.words[block + lay.B_SYMBOL_COUNT] = max(int(self.words[block + lay.B_SYMBOL_COUNT]), slot + 1)
        self.words[block + lay.B_SYMBOLS_VERSION] += 1

    def log(self, rows: Any, worker: int = 0, *, keep: bool = True, publish: bool = True) -> None:
        """Log bars as a worker does: entries, history, tail."""
        self.logs[worker].append(rows)
        if keep:
            self.keep(rows, worker)
        if publish:
            self.logs[worker].publish()

    def keep(self, rows: Any, worker: int = 0) -> None:
        """Write bars into history."""
        for row in rows:
            interval = self.layout.interval_codes.index(int(row["interval"]))
            name = INTERVALS[interval]
            index = (int(row["open_time"]) - anchor_ms(name)) // length_ms(name) % self.layout.history_rows[interval]
            at = self.layout.history_row(int(row["slot"]) // self.layout.workers, interval) + index
            word = self.layout.history_offset(worker) // 8 + at * ROW_WORDS
            write_row(self.words, word, np.frombuffer(bytearray(row.tobytes()), dtype=np.int64), 0)

    def live_word(self, slot: int, interval: str) -> int:
        worker, local = slot % self.layout.workers, slot // self.layout.workers
        index = local * self.layout.intervals + INTERVALS.index(interval)
        return self.layout.live_offset(worker) // 8 + index * ROW_WORDS

    def trade(self, rows: Any) -> None:
        """Write open bars into the live tables."""
        for row in rows:
            slot, interval = int(row["slot"]), INTERVALS[self.layout.interval_codes.index(int(row["interval"]))]
            image = np.frombuffer(bytearray(row.tobytes()), dtype=np.int64)
            write_row(self.words, self.live_word(slot, interval), image, 0)
            worker = slot % self.layout.workers
            row_index = (self.live_word(slot, interval) * 8 - self.layout.live_offset(worker)) // lay.ROW_BYTES
            mark_row(self.private[worker], 0, self.rows, row_index)

    def publish_halves(self) -> None:
        for worker, private in enumerate(self.private):
            live, half_0, half_1 = (
                offset // 8
                for offset in (
                    self.layout.live_offset(worker),
                    self.layout.half_offset(worker, 0),
                    self.layout.half_offset(worker, 1),
                )
            )
            cut = tracker_words(self.rows)
            swap(self.words, self.block(worker), live, half_0, half_1, private, 0, self.rows, cut)

    # -- a persister process ------------------------------------------------------------------------

    def fork_persister(self) -> tuple[int, Role]:
        """Start a persister in a process of its own; return its pid and its role."""
        role = self.role()
        return fork(lambda: serve(role)), role
