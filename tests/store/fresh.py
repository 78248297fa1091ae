"""A segment that is left and a fresh one beside it, for what is carried from one to the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from klshm import intervals
from klshm.shm import layout as lay
from klshm.shm.layout import SYMBOL, Layout
from klshm.shm.segment import create_segment
from klshm.shm.view import PartitionView, SymbolTable
from klshm.store.restore import Seeding
from klshm.store.state import State
from tests.store.engine import MINUTE, START, Engine, bars


FIVE = 5 * MINUTE
OPEN = START // FIVE * FIVE + 3 * MINUTE
"""The open minute: three of its five minutes have closed."""
NAMES = ("BTCUSDT", "ETHUSDT", "BTCUSDT_241227", "币安人生USDT")


def layout(**changes: Any) -> Layout:
    sizes: dict[str, Any] = {
        "max_symbols": 16,
        "workers": 3,
        "slots": 8,
        "interval_codes": tuple(map(intervals.code_of, ("1m", "5m"))),
        "history_rows": (96, 32),
        "log_rows": 4096,
        "inbox_rows": 64,
        "historian_log_rows": 64,
        "swap_interval_ms": 50,
    }
    return Layout(**{**sizes, **changes})


def table(*names: str, workers: int = 3, **fields: Any) -> Any:
    """Return a symbols table dealt round robin, in another order than the old one's."""
    rows = np.zeros(len(names), dtype=SYMBOL)
    rows["name"], rows["status"] = [name.encode() for name in names], lay.SYMBOL_TRADING
    rows["worker"], rows["local_slot"] = np.arange(len(names)) % workers, np.arange(len(names)) // workers
    for name, value in fields.items():
        rows[name] = value
    return rows


class Fresh:
    """A fresh segment, and what readers see in it."""

    def __init__(self, symbols: Any, **changes: Any) -> None:
        self.segment = create_segment("fresh", layout(**changes), b"{}")
        self.seeding = Seeding(self.segment, symbols)
        self.views = [PartitionView(self.segment, worker) for worker in range(self.segment.layout.workers)]
        self.table = SymbolTable(self.segment)

    def seed(self, *states: State, now_ms: int = OPEN + 1000) -> None:
        for state in states:
            self.seeding.put_state(state)
        self.seeding.put_live(list(states), now_ms)
        self.seeding.put_symbols()

    def place(self, name: str) -> tuple[PartitionView, int, int]:
        slot = self.table.find(name)
        row = self.table.row(slot)
        return self.views[int(row["worker"])], int(row["local_slot"]), slot

    def history(self, name: str, interval: int = 0) -> Any:
        view, local, _ = self.place(name)
        length = (MINUTE, FIVE)[interval]
        return view.history(local, interval, OPEN // length * length - 200 * length, OPEN // length * length)

    def live(self, name: str, interval: int = 0) -> Any:
        view, local, _ = self.place(name)
        return view.live_row(local, interval)


def fill(engine: Engine, minutes: int = 90) -> None:
    """Give every symbol of the old engine open bars and a history of its own."""
    times = OPEN - np.arange(minutes, 0, -1) * MINUTE
    for slot in range(len(engine.symbols)):
        engine.keep(bars(times, slot=slot, volume=slot + 0.5), slot % engine.layout.workers)
        ends = OPEN // FIVE * FIVE - np.arange(20, 0, -1) * FIVE
        engine.keep(bars(ends, slot=slot, interval="5m", quote_residual=-7), slot % engine.layout.workers)
        engine.trade(bars([OPEN], slot=slot, state=lay.STATE_LIVE, volume=slot + 0.25, last_agg_id=100 + slot))
        five = bars([OPEN // FIVE * FIVE], slot=slot, interval="5m", state=lay.STATE_LIVE, taker_quote_residual=9)
        engine.trade(five)
    engine.publish_halves()


def anonymous(rows: Any) -> bytes:
    """Return rows without what belongs to one segment."""
    copied = np.atleast_1d(rows).copy()
    copied["sequence"] = copied["slot"] = 0
    return bytes(copied.tobytes())


def old(engine: Engine, name: str, interval: int = 0) -> Any:
    slot = engine.symbols.index(name)
    view = PartitionView(engine.segment, slot % engine.layout.workers)
    length = (MINUTE, FIVE)[interval]
    local = slot // engine.layout.workers
    return view.history(local, interval, OPEN - 200 * length, OPEN // length * length), view.live_row(local, interval)
