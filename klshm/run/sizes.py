"""From the configuration to the sizes of the segment."""

from __future__ import annotations

from typing import Final

from klshm import intervals
from klshm.config import Config
from klshm.shm.layout import Layout


__all__ = ["layout_of"]

_ROOM: Final = 9
_ROOM_OF: Final = 8
"""A partition holds an eighth more symbols than its share: symbols are dealt by load, not by number."""
_HISTORY_MULTIPLE: Final = 32
_HISTORY_MARGIN: Final = 2
_MOST_INBOX_ROWS: Final = 8192
_DEFAULT_HISTORY: Final = 500


def layout_of(config: Config) -> Layout:
    """Return the layout of the segment that a configuration asks for."""
    workers = max(1, config.run.workers)
    symbols, kept = config.segment.max_symbols, config.klines.intervals
    slots = symbols if workers == 1 else min(symbols, -(-symbols * _ROOM // (_ROOM_OF * workers)))
    history = tuple(
        -(-(config.segment.history.get(name, _DEFAULT_HISTORY) + _HISTORY_MARGIN) // _HISTORY_MULTIPLE)
        * _HISTORY_MULTIPLE
        for name in kept
    )
    return Layout(
        max_symbols=symbols,
        workers=workers,
        slots=slots,
        interval_codes=tuple(intervals.code_of(name) for name in kept),
        history_rows=history,
        log_rows=config.segment.log_rows,
        inbox_rows=min(_MOST_INBOX_ROWS, config.segment.log_rows),
        historian_log_rows=config.segment.log_rows,
        swap_interval_ms=config.segment.swap_interval_ms,
    )
