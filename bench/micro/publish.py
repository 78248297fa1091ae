"""Publishing one record under its sequence lock: nanoseconds, beside one NumPy store per field."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from bench.support.bars import wave_of
from bench.support.figures import best_of, print_figures
from klshm.shm import layout as lay
from klshm.shm.compile import kernel
from klshm.shm.layout import KLINE, ROW_WORDS
from klshm.shm.rows import write_row


__all__ = ["measure"]

_ROWS: Final = 3600
_BODY: Final = struct.Struct(f"<{ROW_WORDS - 1}q")


def measure(quick: bool) -> dict[str, float]:
    """Return ns per record: compiled, by one struct.pack_into, by NumPy fields.

    Args:
        quick: Fewer records.
    """
    source = wave_of(_ROWS // 6, 0).rows
    words, image = np.zeros(_ROWS * ROW_WORDS, dtype=np.int64), source.view(np.int64).reshape(-1).copy()
    rows, plain = words.view(KLINE), source[0].tolist()
    cells, values = (
        [name for name in KLINE.names or () if name != "sequence"],
        dict(zip(KLINE.names or (), plain, strict=True)),
    )
    buffer, locks = memoryview(words.data).cast("B"), memoryview(words.data)
    body = image[1:ROW_WORDS].tolist()

    def packed() -> None:
        locks[0] += 1
        _BODY.pack_into(buffer, 8, *body)
        locks[0] += 1

    def by_fields() -> None:
        row = rows[0]
        row["sequence"] += 1
        for name in cells:
            row[name] = values[name]
        row["sequence"] += 1

    calls = 2_000 if quick else 20_000
    return {
        "compiled_ns": best_of(20, 1, lambda: _write_all(words, image, _ROWS)) / _ROWS,
        "pack_into_ns": best_of(3, calls, packed),
        "numpy_fields_ns": best_of(3, calls // 10, by_fields),
    }


@kernel("void(int64[::1], int64[::1], int64)")
def _write_all(words, image, rows):  # type: ignore[no-untyped-def]
    for row in range(rows):
        write_row(words, row * ROW_WORDS, image, row * ROW_WORDS)


assert lay.W_SEQUENCE == 0


if __name__ == "__main__":
    print_figures(measure)
