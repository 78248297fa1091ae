"""Reading a ring: one producer, any number of consumers, each with its own cursor.

A position never wraps. Entry `p` lies at `p mod capacity`; its stamp is 2p+1 while it is
written and 2p+2 once it is whole. A consumer that was overrun knows it, and how much it lost.
NumPy only: right on machines that keep the order of loads (x86-64), refused elsewhere by the
reader's `attach`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from klshm.shm.layout import KLINE, ROW_WORDS


__all__ = ["RingConsumer"]

Words = np.ndarray[Any, np.dtype[np.int64]]
Rows = np.ndarray[Any, np.dtype[np.void]]

_TRIES: Final = 8


class RingConsumer:
    """Follows one ring.

    Args:
        ring: Entries of the ring, shape (capacity * 16,), dtype int64.
        tail: The producer's tail word, shape (1,), dtype int64.
        cursor: Position to read next.
    """

    def __init__(self, ring: Words, tail: Words, cursor: int = 0) -> None:
        self.capacity = len(ring) // ROW_WORDS
        self.cursor = cursor
        self.lost = 0
        self._rows = ring.reshape(self.capacity, ROW_WORDS)
        self._tail = tail

    @property
    def tail(self) -> int:
        """Position after the newest published entry."""
        return int(self._tail[0])

    @property
    def behind(self) -> int:
        """Entries published but not yet taken."""
        return self.tail - self.cursor

    def take(self, limit: int = 65_536) -> Rows:
        """Take the next entries, oldest first, and move the cursor past them.

        Entries that were overwritten before they could be read are counted in `lost`.

        Args:
            limit: At most so many.

        Returns:
            A copy, shape (n,), dtype KLINE; the `sequence` field holds the stamp 2p+2.
        """
        # SYNC POINT ring: reader
        for _ in range(_TRIES):
            tail = self.tail
            self._skip_overrun(tail)
            count = min(tail - self.cursor, limit, self.capacity)
            if count <= 0:
                return np.empty(0, dtype=KLINE)
            copied = self._copy(self.cursor, count)
            expected = 2 * np.arange(self.cursor, self.cursor + count, dtype=np.int64) + 2
            oldest_now = int(self._rows[self.cursor % self.capacity, 0])
            if oldest_now == 2 * self.cursor + 2 and np.array_equal(copied[:, 0], expected):
                self.cursor += count
                return copied.view(KLINE).reshape(count)
            if self.tail - self.cursor <= self.capacity:
                # The producer rewrites the oldest entries but has not moved its tail yet.
                skip = max(1, min(self.capacity // 8, self.tail - self.cursor))
                self.lost += skip
                self.cursor += skip
        return np.empty(0, dtype=KLINE)

    def _skip_overrun(self, tail: int) -> None:
        if tail - self.cursor > self.capacity:
            # With a margin, or the producer overruns it again at once.
            resume = tail - self.capacity + self.capacity // 8
            self.lost += resume - self.cursor
            self.cursor = resume

    def _copy(self, position: int, count: int) -> Words:
        first = position % self.capacity
        head = min(count, self.capacity - first)
        if head == count:
            return self._rows[first : first + count].copy()
        return np.concatenate((self._rows[first:], self._rows[: count - head]))
