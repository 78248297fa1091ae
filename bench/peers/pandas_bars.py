"""pandas: groupby over symbol and bucket; in batches folded into running bars, and all trades at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from bench.peers.given import BATCH, CELLS, INTERVALS, Bars, Given, run


_FOLD = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}


def prepare(given: Given, batch: int = BATCH) -> Callable[[], Callable[[], Bars]]:
    """Make the frames of the batches."""
    frame = pd.DataFrame({name: getattr(given, name) for name in ("slot", "time_ms", "price", "quantity")})
    parts = [frame.iloc[at : at + batch] for at in range(0, len(frame), batch)]

    def work() -> Callable[[], Bars]:
        bars: dict[str, Any] = {}
        for part in parts:
            for interval, length in INTERVALS.items():
                new = _bars(part, length)
                if interval in bars:
                    new = pd.concat((bars[interval], new)).groupby(level=[0, 1], sort=True).agg(_FOLD)
                bars[interval] = new
        return lambda: {name: found.to_numpy() for name, found in bars.items()}

    return work


def _bars(part: Any, length: int) -> Any:
    grouped = part.groupby([part["slot"], part["time_ms"] // length], sort=True)
    prices = grouped["price"].agg(["first", "max", "min", "last"])
    return prices.assign(volume=grouped["quantity"].sum()).set_axis(CELLS, axis=1)


if __name__ == "__main__":
    run("pandas", prepare, lambda given: prepare(given, len(given.slot)))
