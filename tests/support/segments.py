"""Segments of a whole engine's shape, small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from klshm import intervals
from klshm.shm.layout import Layout
from klshm.shm.segment import Segment, create_segment


INTERVALS = ("1m", "5m", "30m", "4h", "1d", "1w")


def make_layout(**changes: Any) -> Layout:
    """Return a layout of two workers and all intervals, but for the changes."""
    sizes: dict[str, Any] = {
        "max_symbols": 32,
        "workers": 2,
        "slots": 20,
        "interval_codes": tuple(intervals.code_of(name) for name in INTERVALS),
        "history_rows": (608, 128, 128, 128, 128, 128),
        "log_rows": 1024,
        "inbox_rows": 8192,
        "historian_log_rows": 8192,
        "swap_interval_ms": 50,
    }
    return Layout(**{**sizes, **changes})


@contextmanager
def segment(directory: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Iterator[Segment]:
    """Make the segment `test` in a directory of the test's own."""
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(directory))
    monkeypatch.setenv("XDG_STATE_HOME", str(directory / "state"))
    made = create_segment("test", make_layout(**changes), b"{}")
    yield made
    made.unlink()
