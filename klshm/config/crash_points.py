"""The names of the instants at which a role can be told to die (`chaos.crash_at`), in the order of its work.

Each names what has just been done: `worker.log_written` dies between the log entry and the history
row. Those of the worker lie inside compiled kernels (`klshm.shm.crash`), but for the last.
"""

from __future__ import annotations

from typing import Final


__all__ = ["CRASH_POINTS"]

CRASH_POINTS: Final = (
    "worker.log_written",
    "worker.history_written",
    "worker.live_written",
    "worker.swap_begun",
    "worker.half_written",
    "worker.swapped",
    "worker.tail_moved",
    "worker.waiters_woken",
    "persister.log_taken",
    "persister.journal_committed",
    "persister.open_bars_committed",
    "persister.backfill_taken",
    "persister.backfill_committed",
    "persister.blocks_read",
    "persister.archive_committed",
    "persister.trimmed",
    "persister.walk_committed",
    "historian.ring_written",
    "historian.tail_moved",
)
