"""The closed-bar log: nanoseconds per entry for its writer and for a reader that takes all at once."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from bench.support.bars import wave_of
from bench.support.figures import print_figures
from bench.support.stage import make_layout, segment_of
from klshm.shm import layout as lay
from klshm.shm.ring import RingProducer
from klshm.shm.view import PartitionView


__all__ = ["measure"]

_SYMBOLS: Final = 600


def measure(quick: bool) -> dict[str, float]:
    """Return ns per entry, 3,600 at once.

    Args:
        quick: Fewer rounds.
    """
    rows = wave_of(_SYMBOLS, 0).rows
    written, taken = [], []
    with segment_of(make_layout(_SYMBOLS)) as segment:
        layout = segment.layout
        tail = layout.partition_offset(0) // 8 + lay.B_TAIL
        producer = RingProducer(segment.words, layout.log_offset(0) // 8, layout.log_rows, tail)
        consumer = PartitionView(segment, 0).log()
        for _ in range(20 if quick else 100):
            began_ns = time.perf_counter_ns()
            producer.append(rows)
            producer.publish()
            written.append(time.perf_counter_ns() - began_ns)
            began_ns = time.perf_counter_ns()
            found = len(consumer.take())
            taken.append(time.perf_counter_ns() - began_ns)
            if found != len(rows):
                raise AssertionError(f"{found} entries came, expected {len(rows)}")
    return {
        "append_ns": float(np.median(written)) / len(rows),
        "take_ns": float(np.median(taken)) / len(rows),
    }


if __name__ == "__main__":
    print_figures(measure)
