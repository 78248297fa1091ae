"""polars: group_by over symbol and bucket; in batches folded into running bars, and all trades at once.

On one core, as all others.
"""

from __future__ import annotations

import os
from collections.abc import Callable


os.environ["POLARS_MAX_THREADS"] = "1"  # read at import

import polars as pl

from bench.peers.given import BATCH, CELLS, INTERVALS, Bars, Given, run


_MAKE = (
    pl.col("price").first().alias("open"),
    pl.col("price").max().alias("high"),
    pl.col("price").min().alias("low"),
    pl.col("price").last().alias("close"),
    pl.col("quantity").sum().alias("volume"),
)
_FOLD = (
    pl.col("open").first(),
    pl.col("high").max(),
    pl.col("low").min(),
    pl.col("close").last(),
    pl.col("volume").sum(),
)


def prepare(given: Given, batch: int = BATCH) -> Callable[[], Callable[[], Bars]]:
    """Make the frames of the batches."""
    frame = pl.DataFrame({name: getattr(given, name) for name in ("slot", "time_ms", "price", "quantity")})
    parts = [frame.slice(at, batch) for at in range(0, len(frame), batch)]

    def work() -> Callable[[], Bars]:
        bars: dict[str, pl.DataFrame] = {}
        for part in parts:
            for interval, length in INTERVALS.items():
                new = part.group_by("slot", (pl.col("time_ms") // length).alias("bucket")).agg(_MAKE)
                if interval in bars:
                    new = pl.concat((bars[interval], new)).group_by("slot", "bucket").agg(_FOLD)
                bars[interval] = new
        return lambda: {name: found.sort("slot").select(CELLS).to_numpy() for name, found in bars.items()}

    return work


if __name__ == "__main__":
    run("polars", prepare, lambda given: prepare(given, len(given.slot)))
