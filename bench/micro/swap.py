"""Publishing the halves: microseconds per swap, by how many of 600 symbols traded since the last one."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from bench.micro.kernel import filled_engine
from bench.support.figures import print_figures
from bench.support.market import Trades


__all__ = ["measure"]

_SYMBOLS: Final = 600


def measure(quick: bool) -> dict[str, float]:
    """Return us per swap after trades of 10, 100 and all symbols.

    Args:
        quick: Fewer swaps.
    """
    return {f"swap_{traded}_us": _swap_us(traded, 20 if quick else 100) for traded in (10, 100, _SYMBOLS)}


def _swap_us(traded: int, rounds: int) -> float:
    engine = filled_engine(_SYMBOLS)
    events = Trades.make(traded * rounds, traded, 40_000).events()
    times_ns = []
    for part in np.array_split(events, rounds):
        engine.apply(part, int(part["time"][-1]) + 5)
        began_ns = time.perf_counter_ns()
        engine.publish(began_ns)
        times_ns.append(time.perf_counter_ns() - began_ns)
    return float(np.median(times_ns)) / 1000


if __name__ == "__main__":
    print_figures(measure)
