"""Figures out of samples, and how a measurement prints them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


__all__ = ["best_of", "percentiles", "print_figures"]


def best_of(tries: int, calls: int, action: Callable[[], Any]) -> float:
    """Return nanoseconds per call: the quickest of several loops over so many calls.

    Args:
        tries: Loops.
        calls: Calls in a loop.
        action: What is measured.
    """
    best_ns = float("inf")
    for _ in range(tries):
        began_ns = time.perf_counter_ns()
        for _ in range(calls):
            action()
        best_ns = min(best_ns, (time.perf_counter_ns() - began_ns) / calls)
    return best_ns


def percentiles(name: str, samples: Any, unit: str = "us") -> dict[str, float]:
    """Return the median, the 99th and the 99.9th percentile of samples.

    Args:
        name: What the figures' names begin with.
        samples: Shape (n,), in the unit.
        unit: What the names end with.
    """
    return {f"{name}_p{p:g}_{unit}": float(np.percentile(samples, p)) for p in (50, 99, 99.9)}


def print_figures(measure: Callable[[bool], dict[str, float]]) -> None:
    """Measure, and print the figures as one line of JSON; `--quick` makes it short."""
    print(json.dumps(measure("--quick" in sys.argv[1:])))
