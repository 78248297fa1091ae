"""pandas: groupby over symbol and bucket, all trades at once."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from bench.peers.given import CELLS, INTERVALS, Bars, Given, run


def prepare(given: Given) -> Callable[[], Callable[[], Bars]]:
    """Make the frame of trades."""
    frame = pd.DataFrame({"slot": given.slot, "price": given.price, "quantity": given.quantity})
    time_ms = given.time_ms

    def work() -> Callable[[], Bars]:
        bars = {}
        for interval, length in INTERVALS.items():
            grouped = frame.groupby([frame["slot"], time_ms // length], sort=True)
            prices = grouped["price"].agg(["first", "max", "min", "last"])
            bars[interval] = prices.assign(volume=grouped["quantity"].sum())
        return lambda: {name: found.set_axis(CELLS, axis=1).to_numpy() for name, found in bars.items()}

    return work


if __name__ == "__main__":
    run("pandas", prepare)
