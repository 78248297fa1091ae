"""Which bars of one series have been handed out: each once, in whatever order they come.

Bars of a series follow each other without a break, so everything up to `through` is done, a
few beyond it are done out of order, a few are waiting for their moment, and what is neither
is missing. Memory stays bounded: what fell out of the segment's history is given up.
"""

from __future__ import annotations

from klshm.read.bars import Row


__all__ = ["Progress"]


class Progress:
    """The progress of one series.

    Args:
        through: Open time up to which all bars count as done, UTC ms.
        step: Length of the interval, ms.
        capacity: Bars that the segment's history holds.
    """

    __slots__ = ("_ahead", "_capacity", "_step", "newest", "through", "waiting")

    def __init__(self, through: int, step: int, capacity: int) -> None:
        self.through = through
        self.newest = through
        self.waiting: dict[int, Row] = {}
        self._ahead: set[int] = set()
        self._step = step
        self._capacity = capacity

    def is_done(self, open_time: int) -> bool:
        """Return whether a bar was handed out or lies before the beginning."""
        return open_time <= self.through or open_time in self._ahead

    def finish(self, open_time: int) -> None:
        """Note that a bar was handed out."""
        self.waiting.pop(open_time, None)
        self._ahead.add(open_time)
        self._advance(open_time)

    def hold(self, open_time: int, row: Row) -> None:
        """Keep the newest row of a bar whose moment has not come."""
        self.waiting[open_time] = row
        self._advance(open_time)

    def has_missing(self, before: int) -> bool:
        """Return whether a bar between the beginning and `before` was neither handed out nor seen."""
        expected = (before - self.through) // self._step - 1
        return expected > len(self._ahead) + len(self.waiting)

    def _advance(self, open_time: int) -> None:
        self.newest = max(self.newest, open_time)
        oldest_kept = self.newest - self._capacity * self._step
        if self.through < oldest_kept:
            self.through = oldest_kept
            self._ahead = {t for t in self._ahead if t > oldest_kept}
            self.waiting = {t: row for t, row in self.waiting.items() if t > oldest_kept}
        while self.through + self._step in self._ahead:
            self.through += self._step
            self._ahead.remove(self.through)
