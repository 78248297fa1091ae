"""What every peer is given, and how its answer is checked and its time taken; needs NumPy only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np


__all__ = ["BATCH", "CELLS", "INTERVALS", "Bars", "Given", "run"]

INTERVALS: Final = {
    "1m": 60_000,
    "5m": 300_000,
    "30m": 1_800_000,
    "4h": 14_400_000,
    "1d": 86_400_000,
    "1w": 604_800_000,
}
"""Length in ms; 1w begins on Mondays, 345,600,000 ms after the epoch's own weeks."""
CELLS: Final = ("open", "high", "low", "close", "volume")
BATCH: Final = 4096
"""Trades after which bars have to be up to date, as the kernel's."""
_TRIES: Final = 3

Column = np.ndarray[Any, Any]
Bars = dict[str, Column]
"""Per interval the bars of all symbols, shape (symbols, 5): open, high, low, close, volume."""


Work = Callable[[], Callable[[], Bars]]


class Given(NamedTuple):
    """Trades in the order they were sent; prices and quantities as float64."""

    symbols: int
    begin_ms: int
    slot: Column
    time_ms: Column
    price: Column
    quantity: Column
    bars: Column
    """What the bars of each interval must hold, shape (symbols, 5)."""


Prepare = Callable[[Given], Work]


def load(path: Path) -> Given:
    """Read the trades that `bench.peers.compare` wrote."""
    with np.load(path) as file:
        return Given(int(file["symbols"]), int(file["begin_ms"]), *(file[name] for name in Given._fields[2:]))


def run(package: str, prepare: Prepare, prepare_whole: Prepare | None = None) -> None:
    """Check a peer's bars, take its time and print both as JSON.

    Args:
        package: Its distribution.
        prepare: Makes everything that does not belong to aggregating; returns the work, which returns
            what makes its bars readable. Bars are up to date after every BATCH of trades at the latest.
        prepare_whole: The same without that: all trades at once.

    Raises:
        SystemExit: If its bars are not the trades' own.
    """
    given = load(Path(sys.argv[1]))
    found: dict[str, Any] = {"ns": _per_trade_ns(package, given, prepare), "version": version(package)}
    if prepare_whole is not None:
        found["whole_ns"] = _per_trade_ns(package, given, prepare_whole)
    print(json.dumps(found))


def _per_trade_ns(package: str, given: Given, prepare: Prepare) -> float:
    seconds = []
    for _ in range(_TRIES):
        work = prepare(given)
        began_s = time.perf_counter()
        bars_of = work()
        seconds.append(time.perf_counter() - began_s)
        for interval, bars in bars_of().items():
            if not np.allclose(bars, given.bars, rtol=1e-9, atol=0):
                raise SystemExit(f"{package} {interval}: bars differ from the trades' own")
    return min(seconds) / len(given.slot) * 1e9
