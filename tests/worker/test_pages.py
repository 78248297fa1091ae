"""Pages are mapped before serving, and nothing in them changes."""

from __future__ import annotations

import platform
import resource

import pytest

from klshm.shm.segment import Segment
from klshm.worker.pages import populate


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_stores_after_populating_cause_no_fault(made: Segment) -> None:
    if tuple(int(part) for part in platform.release().split(".")[:2]) < (5, 14):
        pytest.skip("the kernel is older than Linux 5.14 and cannot populate")
    layout = made.layout
    first, end = layout.partition_offset(0), layout.history_offset(0)
    tables = made.region(first, end - first)
    tables[5] = 77
    assert populate(made, 0)
    before = faults()
    tables[:: 4096 // 8] |= 0  # a store to every page
    populated = faults() - before
    history = made.region(end, layout.total_bytes - end)
    before = faults()
    history[:: 4096 // 8] |= 0
    assert faults() - before > populated  # the history is populated as it is used
    assert populated < (end - first) // 4096 // 4
    assert int(tables[5]) == 77
