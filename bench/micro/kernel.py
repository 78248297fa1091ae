"""One trade into six intervals with exact sums, everything published: nanoseconds per trade, by batch size.

The engine itself on private memory: 600 symbols, Zipf, one minute of trades that continue without a
hole. All pages were touched before, as those of an engine that has run for a while. The rows it made are
compared with sums made by NumPy.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from bench.support.figures import print_figures
from bench.support.market import BEGIN_MS, PRICE_DECIMALS, QUANTITY_DECIMALS, Trades, warm_up
from klshm.core.engine import Engine, partition_layout
from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["SYMBOLS", "TRADES", "filled_engine", "filled_market", "live_rows", "measure"]

SYMBOLS: Final = 600
TRADES: Final = 100_000
_PAGE_WORDS: Final = 512
_HEAD: Final = {1: 4_000, 16: 30_000}
"""How many trades are enough for small batches."""


def filled_engine(symbols: int) -> Engine:
    """Return an engine on private memory that knows its symbols and stands at the beginning of a week."""
    layout = partition_layout(symbols)
    engine = Engine(np.zeros(layout.total_bytes // 8, dtype=np.int64), layout)
    for words in engine.memory:
        words[::_PAGE_WORDS] += 0
    for events, now_ms in warm_up(symbols):
        engine.apply(events, now_ms)
    return engine


def filled_market(segment: Segment, trades: int = 10_000) -> Engine:
    """Let every symbol of a segment with one worker have bars, published; return the engine that made them."""
    layout = segment.layout
    engine = Engine(segment.words, layout)
    for events, now_ms in warm_up(layout.slots):
        engine.apply(events, now_ms)
    engine.apply(Trades.make(trades, layout.slots, 4_000).events(), BEGIN_MS + 5_000)
    engine.publish(time.monotonic_ns())
    engine.publish(time.monotonic_ns())
    return engine


def live_rows(engine: Engine) -> Any:
    """Return the open bars, shape (slots, intervals), dtype KLINE."""
    layout = engine.layout
    first, count = layout.live_offset(0) // 8, layout.slots * layout.intervals
    rows = engine.memory.words[first : first + count * lay.ROW_WORDS].view(lay.KLINE)
    return rows.reshape(layout.slots, layout.intervals)


def measure(quick: bool) -> dict[str, float]:
    """Return ns per trade for batches of 1, 16, 256 and 4096.

    Args:
        quick: Fewer repetitions.
    """
    trades = Trades.make(TRADES, SYMBOLS)
    figures = {}
    for batch in (1, 16, 256, 4096):
        part = trades.head(_HEAD.get(batch, len(trades)))
        times_ns = []
        for _ in range(3 if quick else 9):
            engine = filled_engine(SYMBOLS)
            times_ns.append(_applied_ns(engine, part, batch) / len(part))
        if len(part) == len(trades):
            check(engine, part)
        figures[f"batch_{batch}_ns"] = min(times_ns)
    return figures


def check(engine: Engine, trades: Trades) -> None:
    """Compare the open bars of all intervals with the trades' own sums, exactly.

    Raises:
        AssertionError: If they differ.
    """
    rows, answer = live_rows(engine), trades.answer()
    scales = dict.fromkeys(("open", "high", "low", "close"), 10**PRICE_DECIMALS)
    scales |= {"volume": 10**QUANTITY_DECIMALS, "taker_buy_volume": 10**QUANTITY_DECIMALS}
    scales |= {"quote_volume": 10 ** (PRICE_DECIMALS + QUANTITY_DECIMALS), "trade_count": 1}
    for name, scale in scales.items():
        expected = np.repeat(answer[name][:, None] / scale, rows.shape[1], axis=1)
        if not np.array_equal(rows[name].astype(np.float64), expected):
            raise AssertionError(f"{name} of the engine's bars is not the trades' own")


def _applied_ns(engine: Engine, trades: Trades, batch: int) -> int:
    events = trades.events()
    parts = [events[at : at + batch] for at in range(0, len(events), batch)]
    times_ms = [int(part["time"][-1]) + 5 for part in parts]
    began_ns = time.perf_counter_ns()
    for part, time_ms in zip(parts, times_ms, strict=True):
        engine.apply(part, time_ms)
    return time.perf_counter_ns() - began_ns


if __name__ == "__main__":
    print_figures(measure)
