"""A wave of 3,600 rows, durable in the journal (LMDB): milliseconds per commit, on the working directory's disk."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from bench.support.bars import wave_of
from bench.support.figures import print_figures
from klshm.store.journal import Journal


__all__ = ["measure"]

_SYMBOLS: Final = 600


def measure(quick: bool) -> dict[str, float]:
    """Return milliseconds per wave, and of the trim that follows a flush.

    Args:
        quick: Fewer waves.
    """
    waves_ms, trims_ms = [], []
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as directory:
        journal = Journal(Path(directory) / "journal")
        for number in range(10 if quick else 40):
            wave = wave_of(_SYMBOLS, number)
            began_s = time.perf_counter()
            newest = journal.append([wave], "bench", {"log/0": number + 1})
            appended_s = time.perf_counter()
            journal.trim(newest)
            waves_ms.append((appended_s - began_s) * 1e3)
            trims_ms.append((time.perf_counter() - appended_s) * 1e3)
        journal.close()
    return {
        "wave_ms": float(np.median(waves_ms)),
        "trim_ms": float(np.median(trims_ms)),
        "rows_per_s": _SYMBOLS * 6 / float(np.median(waves_ms)) * 1e3,
    }


if __name__ == "__main__":
    print_figures(measure)
