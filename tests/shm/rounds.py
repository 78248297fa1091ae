"""Rounds of a race: as long as both run, and lost where a guard is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest


_LATE_S = 60.0


def while_it_runs(seconds: float, runs: Callable[[], bool]) -> Iterator[None]:
    """Yield for so long from the moment the other process is seen to run: a busy machine starts it late."""
    late_s = time.monotonic() + _LATE_S
    while not runs() and time.monotonic() < late_s:
        yield
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        yield


def shown(rounds: Iterable[Any], fault: str) -> None:
    """Return as soon as a round shows the fault that a missing guard lets through.

    Processes that never run at the same time collide rarely: a busy machine may show nothing.
    """
    tried = 0
    for found in rounds:
        tried += 1
        if found:
            return
    pytest.skip(f"this machine showed {fault} in none of {tried} rounds: is it very busy, or has it one core?")
