"""polars: group_by over symbol and bucket, all trades at once, on all cores."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from bench.peers.given import CELLS, INTERVALS, Bars, Given, run


def prepare(given: Given) -> Callable[[], Callable[[], Bars]]:
    """Make the frame of trades."""
    columns = {name: getattr(given, name) for name in ("slot", "time_ms", "price", "quantity")}
    frame = pl.DataFrame(columns)
    price = pl.col("price")
    cells = (
        price.first().alias("open"),
        price.max().alias("high"),
        price.min().alias("low"),
        price.last().alias("close"),
        pl.col("quantity").sum().alias("volume"),
    )

    def work() -> Callable[[], Bars]:
        bars = {
            name: frame.group_by("slot", (pl.col("time_ms") // length).alias("bucket")).agg(*cells)
            for name, length in INTERVALS.items()
        }
        return lambda: {name: found.sort("slot").select(CELLS).to_numpy() for name, found in bars.items()}

    return work


if __name__ == "__main__":
    run("polars", prepare)
