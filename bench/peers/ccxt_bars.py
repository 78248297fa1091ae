"""ccxt: build_ohlcvc of each symbol's trades, list in, list out."""

from __future__ import annotations

from collections.abc import Callable

import ccxt
import numpy as np

from bench.peers.given import INTERVALS, Bars, Given, run


def prepare(given: Given) -> Callable[[], Callable[[], Bars]]:
    """Make ccxt's own form of the trades."""
    exchange = ccxt.Exchange()
    trades: list[list[dict[str, float]]] = [[] for _ in range(given.symbols)]
    columns = (given.slot, given.time_ms, given.price, given.quantity)
    for slot, time_ms, price, quantity in zip(*(column.tolist() for column in columns), strict=True):
        trades[slot].append({"timestamp": time_ms, "price": price, "amount": quantity})

    def work() -> Callable[[], Bars]:
        bars = {name: [exchange.build_ohlcvc(mine, name) for mine in trades] for name in INTERVALS}
        return lambda: {name: np.array([rows[0][1:6] for rows in found]) for name, found in bars.items()}

    return work


if __name__ == "__main__":
    run("ccxt", prepare)
