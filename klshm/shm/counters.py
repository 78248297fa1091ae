"""Names of the counters in each role's block, and how to read them.

A counter is one int64 word that only its role writes. Its index never changes within a layout
version; new ones are appended. Those that end in `_total` only grow; the others are levels.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from klshm.shm import layout as lay


__all__ = [
    "HISTORIAN",
    "LAUNCHER",
    "PERSISTER",
    "WEB",
    "WORKER",
    "Counters",
    "index_of",
]

Words = np.ndarray[Any, np.dtype[np.int64]]

_CLASSES: Final = ("traded", "filled", "partial", "provisional")
_CELLS: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trade_count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)

_MATCH: Final = tuple(
    f"match_{moment}_{group}_{what}_total"
    for moment in ("tick", "settle")
    for group in _CLASSES
    for what in ("compared", "equal")
) + tuple(f"match_{moment}_unequal_{cell}_total" for moment in ("tick", "settle") for cell in _CELLS)

WORKER: Final = (
    # written by the engine's kernel, in this order
    "trades_total",
    "duplicates_total",
    "holes_total",
    "holes_filled_total",
    "id_resets_total",
    "doubts_total",
    "id_beats_time_total",
    "refused_total",
    "overflows_total",
    "frames_total",
    "frames_clean_total",
    "frames_clean_equal_total",
    "frames_clean_equal_count_total",
    "frames_cut_total",
    "frames_cut_exact_total",
    "frames_cut_unresolved_total",
    "frames_stale_total",
    "frames_skipped_total",
    "frames_empty_total",
    "contradictions_total",
    "rest_rows_total",
    "rest_stale_total",
    "rest_adopted_total",
    "rest_differs_from_final_total",
    "confirmed_by_final_frame_total",
    "confirmed_by_next_frame_total",
    "confirmed_by_rest_total",
    "confirmed_empty_total",
    "closed_total",
    "filled_total",
    "partial_total",
    "late_total",
    "corrected_total",
    "refolds_total",
    "log_rows_total",
    "no_row_total",
    "match_tick_confirmed_total",
    "match_settle_confirmed_total",
    "match_aggtrade_compared_total",
    "match_aggtrade_equal_total",
    "rescales_total",
    "folds_compared_total",
    "folds_equal_total",
    *_MATCH,
    # written by the worker process
    "messages_total",
    "received_bytes_total",
    "decode_errors_total",
    "unknown_symbols_total",
    "connects_total",
    "disconnects_total",
    "rotations_total",
    "subscriptions",
    "subscriptions_proven",
    "swaps_total",
    "inbox_rows_total",
    "symbols",
    "symbols_silent",
    "connections",
    "lag_p50_us",
    "lag_p99_us",
    "loop_turns_total",
    "history_missing",
)

HISTORIAN: Final = (
    "requests_total",
    "requests_failed_total",
    "weight_used",
    "weight_limit",
    "banned_until_ms",
    "limited_total",
    "symbols_trading",
    "symbols_left_out",
    "backfill_tasks",
    "backfill_done",
    "backfill_failed",
    "backfill_rows_total",
    "clock_samples_total",
    "clock_steps_total",
    "queue_rows",
    "rows_refused_total",
    "exchange_reachable",
    "confirm_requests_total",
    "repair_requests_total",
    "listings_total",
    "delistings_total",
    "mutes_total",
    "symbols_mute",
    "weight_repair_total",
    "weight_confirm_total",
    "weight_listings_total",
    "weight_backfill_total",
)

PERSISTER: Final = (
    "journal_rows_total",
    "journal_commits_total",
    "journal_commit_ms",
    "journal_behind_rows",
    "journal_sequence",
    "archive_sequence",
    "archive_rows_total",
    "archive_flushes_total",
    "archive_failures_total",
    "archive_last_ms",
    "overruns_total",
    "lost_rows_total",
    "runs_total",
    "failures_total",
    "alarm",
    "wal_bytes",
    "open_rows_total",
    "trimmed_total",
    "commit_last_ms",
    "rows_refused_total",
    "walks_total",
    "pruned_total",
    "historian_behind_rows",
)

LAUNCHER: Final = ("restarts_total", "hung_total", "status_lines_total")

WEB: Final = ("requests_total", "refused_total", "clients")


def index_of(names: tuple[str, ...], name: str) -> int:
    """Return the word of a named counter, relative to its role's block."""
    return lay.B_COUNTERS + names.index(name)


class Counters:
    """The counters of one role by name.

    Args:
        block: The role's block, shape (256,), dtype int64.
        names: One of `WORKER`, `HISTORIAN`, `PERSISTER`, `LAUNCHER`, `WEB`.
    """

    def __init__(self, block: Words, names: tuple[str, ...]) -> None:
        self._words = block[lay.B_COUNTERS : lay.B_COUNTERS + len(names)]
        self._index = {name: index for index, name in enumerate(names)}

    # Called by the role that owns the block

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self._words[self._index[name]] += amount

    def set(self, name: str, value: int) -> None:
        """Set a level."""
        self._words[self._index[name]] = value

    # Called by anyone

    def get(self, name: str) -> int:
        """Return the value of one counter."""
        return int(self._words[self._index[name]])

    def as_dict(self) -> dict[str, int]:
        """Return all counters, name to value."""
        values = self._words.tolist()
        return {name: int(values[index]) for name, index in self._index.items()}
