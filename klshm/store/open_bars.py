"""The open bars on disk: every few seconds, or once many have changed, those that changed."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from klshm.config import StoreConfig
from klshm.errors import SnapshotBusy
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView, take_cuts
from klshm.store.batch import Batch
from klshm.store.segment_rows import OPEN, Namer


__all__ = ["OpenBars"]

Rows = np.ndarray[Any, Any]

_LOOK_S: Final = 0.5  # between two looks at how many changed


class OpenBars:
    """Finds the open bars that changed since they were last stored.

    What changed is seen from the rows' sequence numbers against an own copy of them.

    Args:
        segment: Whose bars; the readable half of every worker.
        namer: Names of the segment's slots.
        store: How often, and how many.
    """

    def __init__(self, segment: Segment, namer: Namer, store: StoreConfig) -> None:
        layout = segment.layout
        self._views = [PartitionView(segment, worker) for worker in range(layout.workers)]
        self._namer = namer
        self._store = store
        self._stored: list[Rows] = [np.zeros((layout.slots, layout.intervals), dtype=np.int64) for _ in self._views]
        self._pending = self._stored
        self._looked_s = 0.0
        self._stored_s = 0.0

    def due(self, *, final: bool = False) -> Batch | None:
        """Return the open bars to store now, or None.

        Args:
            final: The engine stops: whatever changed, now.

        Raises:
            RowBusy: If the symbols table was being written at every look.
        """
        now_s = time.monotonic()
        if not final and now_s - self._looked_s < _LOOK_S:
            return None
        self._looked_s = now_s
        try:
            tables = [cut.rows for cut in take_cuts(self._views)]
        except SnapshotBusy:
            return None  # the worker publishes faster than we copy: the next look will do
        changed = [
            (rows["sequence"] != stored) & (rows["state"] == lay.STATE_LIVE)
            for rows, stored in zip(tables, self._stored, strict=True)
        ]
        count = sum(int(np.count_nonzero(which)) for which in changed)
        waited = now_s - self._stored_s >= self._store.flush_interval_s
        if not count or not (final or waited or count >= self._store.flush_rows):
            return None
        self._pending = [rows["sequence"].copy() for rows in tables]
        parts = [rows[which] for rows, which in zip(tables, changed, strict=True)]
        return self._namer.batch(np.concatenate(parts) if parts else np.empty(0, dtype=KLINE), OPEN)

    def stored(self) -> None:
        """Note that the bars last returned by `due` are durable."""
        self._stored = self._pending
        self._stored_s = time.monotonic()

    def forget(self) -> None:
        """Count every open bar as changed: what was stored may be gone."""
        self._stored = [np.zeros_like(sequences) for sequences in self._stored]
