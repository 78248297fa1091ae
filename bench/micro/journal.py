"""A wave of 3,600 rows, durable in the journal (LMDB): milliseconds per commit, on the working directory's disk."""

from __future__ import annotations

import os
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
    """Return milliseconds per wave, of the same bytes into a plain file, and of the trim that follows a flush.

    Args:
        quick: Fewer waves.
    """
    waves_ms, trims_ms, floor_ms = [], [], []
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as directory:
        journal = Journal(Path(directory) / "journal")
        plain = os.open(Path(directory) / "plain", os.O_CREAT | os.O_WRONLY)
        for number in range(10 if quick else 40):
            wave = wave_of(_SYMBOLS, number)
            floor_ms.append(_plain_ms(plain, wave.rows.tobytes()))
            began_s = time.perf_counter()
            newest = journal.append([wave], "bench", {"log/0": number + 1})
            appended_s = time.perf_counter()
            journal.trim(newest)
            waves_ms.append((appended_s - began_s) * 1e3)
            trims_ms.append((time.perf_counter() - appended_s) * 1e3)
        journal.close()
        os.close(plain)
    return {
        "wave_ms": float(np.median(waves_ms)),
        "fdatasync_ms": float(np.median(floor_ms)),
        "trim_ms": float(np.median(trims_ms)),
        "rows_per_s": _SYMBOLS * 6 / float(np.median(waves_ms)) * 1e3,
    }


def _plain_ms(descriptor: int, data: bytes) -> float:
    """Append the same bytes to a plain file, durable: what the disk alone takes."""
    began_s = time.perf_counter()
    os.write(descriptor, data)
    os.fdatasync(descriptor)
    return (time.perf_counter() - began_s) * 1e3


if __name__ == "__main__":
    print_figures(measure)
