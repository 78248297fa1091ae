"""Many readers at once: what they cost the worker in a burst, and what each of them gets.

Every reader takes a snapshot of all open bars each 50 ms, as often as there is a new one.
"""

from __future__ import annotations

import mmap
import time
from typing import Any, Final

import numpy as np

import klshm
from bench.scenario.burst import intake_per_s, klshm_worker
from bench.support.figures import print_figures
from klshm.shm.segment import Segment


__all__ = ["SnapshotReaders", "measure"]

_SYMBOLS: Final = 200
_PERIOD_S: Final = 0.05


def measure(quick: bool) -> dict[str, float]:
    """Return messages per second with 0, 2 and 8 readers, and how long a snapshot took with 8.

    Args:
        quick: Fewer messages.
    """
    count = 120_000 if quick else 400_000
    figures = {}
    for number in (0, 2, 8):
        readers = SnapshotReaders(number)
        figures[f"messages_per_s_{number}"] = intake_per_s(count, _SYMBOLS, klshm_worker, readers=[readers] * number)
        if number:
            figures[f"snapshot_{number}_us"] = readers.mean_us
    return figures


class SnapshotReaders:
    """What each reader's process does, and how long its snapshots took; shared by fork."""

    def __init__(self, number: int) -> None:
        self._sums: Any = np.frombuffer(mmap.mmap(-1, 4096), dtype=np.int64)
        self._number = number

    @property
    def mean_us(self) -> float:
        """Microseconds of a snapshot, mean over all readers."""
        return float(self._sums[0]) / max(1, int(self._sums[1])) / 1000

    def __call__(self, segment: Segment) -> None:
        """Read for ever."""
        with klshm.attach(segment.path.name.removeprefix("klshm.")) as reader:
            while True:
                began_ns = time.monotonic_ns()
                reader.snapshot()
                # Readers share two words without a lock: a lost addition loses one sample of both.
                self._sums += np.array([time.monotonic_ns() - began_ns, 1, *[0] * (len(self._sums) - 2)])
                time.sleep(_PERIOD_S)


if __name__ == "__main__":
    print_figures(measure)
