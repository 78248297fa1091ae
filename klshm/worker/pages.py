"""Touching the partition's pages before the first wave needs them.

A page that this process has not touched costs a fault at its first store; in a closing wave that
is every series at once. The tables and rings are populated before serving.
"""

from __future__ import annotations

import ctypes
from typing import Final

from klshm.shm.segment import Segment


__all__ = ["populate"]

_MADV_POPULATE_WRITE: Final = 23

_madvise = ctypes.CDLL(None, use_errno=True).madvise


def populate(segment: Segment, worker: int) -> bool:
    """Populate the tables and rings of a worker's partition.

    Args:
        segment: The segment, mapped for writing.
        worker: Number of the worker.

    Returns:
        Whether the kernel did it (Linux 5.14); without it pages are touched as they are used.
    """
    layout = segment.layout
    first, end = layout.partition_offset(worker), layout.history_offset(worker)
    address = segment.words.ctypes.data + first
    result = _madvise(ctypes.c_void_p(address), ctypes.c_size_t(end - first), _MADV_POPULATE_WRITE)
    return int(result) == 0
