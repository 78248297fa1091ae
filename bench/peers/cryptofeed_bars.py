"""cryptofeed: backends.aggregate.OHLCV, one per interval, fed trade by trade; Decimal arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from cryptofeed.backends.aggregate import OHLCV

from bench.peers.given import CELLS, INTERVALS, Bars, Given, run


class _Trade(NamedTuple):
    symbol: int
    price: Decimal
    amount: Decimal


def prepare(given: Given) -> Callable[[], Callable[[], Bars]]:
    """Make the trades, and one aggregator per interval whose window does not end meanwhile."""
    columns = (given.slot, given.price, given.quantity)
    trades = [
        _Trade(slot, Decimal(f"{price:.2f}"), Decimal(f"{quantity:.3f}"))
        for slot, price, quantity in zip(*(column.tolist() for column in columns), strict=True)
    ]
    engines = {name: OHLCV(None, window=1 << 40) for name in INTERVALS}

    def work() -> Callable[[], Bars]:
        for trade in trades:
            for engine in engines.values():
                _step(engine(trade, 0.0))
        return lambda: {name: _bars(engine.data) for name, engine in engines.items()}

    return work


def _step(coroutine: Any) -> None:
    """Run a coroutine that never waits to its end, cheaper than any event loop would."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the aggregator waited")


def _bars(data: dict[int, dict[str, Decimal]]) -> Any:
    return np.array([[float(data[slot][cell]) for cell in CELLS] for slot in range(len(data))])


if __name__ == "__main__":
    run("cryptofeed", prepare)
