"""Writing a ring: whole entries first, then the tail, then the waiters.

Stamp of entry p (its `sequence` word)::

    2p + 1    being written
    2p + 2    whole; readers take it once the tail has passed it

Positions never wrap. A producer that was killed between an entry and the tail loses nothing:
its successor adopts every whole entry beyond the tail.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klshm.shm import futex
from klshm.shm.atomics import fence_release, load_acquire, store_relaxed, store_release
from klshm.shm.compile import kernel
from klshm.shm.layout import ROW_WORDS


__all__ = ["RingProducer", "adopt_entries", "load_word", "publish_tail", "write_entry"]

Words = np.ndarray[Any, np.dtype[np.int64]]


@kernel("void(int64[::1], int64, int64, int64, int64[::1], int64)")
def write_entry(words, ring, capacity, position, image, source):
    """Write entry `position` of a ring; it stays invisible until the tail passes it.

    Args:
        words: The segment, dtype int64.
        ring: First word of the ring.
        capacity: Its entries, a power of two.
        position: Which entry.
        image: Where the row comes from, dtype int64.
        source: First word of it; its sequence word is ignored.
    """
    # SYNC POINT ring: writer
    at = ring + (position & (capacity - 1)) * ROW_WORDS
    store_relaxed(words, at, 2 * position + 1)
    fence_release()
    for k in range(1, ROW_WORDS):
        words[at + k] = image[source + k]
    store_release(words, at, 2 * position + 2)


@kernel("int64(int64[::1], int64, int64, int64)")
def adopt_entries(words, ring, capacity, tail):
    """Return the position after the last whole entry that a killed producer left beyond its tail."""
    position = tail
    while load_acquire(words, ring + (position & (capacity - 1)) * ROW_WORDS) == 2 * position + 2:
        position += 1
    return position


@kernel("void(int64[::1], int64, int64)")
def publish_tail(words, at, position):
    """Make every entry before `position` visible."""
    # SYNC POINT ring: writer
    store_release(words, at, position)


@kernel("int64(int64[::1], int64)")
def load_word(words, at):
    """Load a word that another process stores with release."""
    return load_acquire(words, at)


class RingProducer:
    """The writing side of one ring.

    Args:
        words: The segment, dtype int64.
        ring: First word of the ring.
        capacity: Its entries, a power of two.
        tail: The tail's word.
        cursor: Word of the one consumer that must not be overrun; None: nobody is waited for.
    """

    def __init__(self, words: Words, ring: int, capacity: int, tail: int, cursor: int | None = None) -> None:
        self._words = words
        self._ring = ring
        self._tail = tail
        self._wake = futex.Waker(words, tail)
        self._cursor = cursor
        self.capacity = capacity
        self.position = int(words[tail])
        self.adopt()

    def adopt(self) -> int:
        """Take over whole entries beyond the tail (after a crash of the producer before us).

        Returns:
            How many there were; `publish` makes them visible.
        """
        before = self.position
        self.position = int(adopt_entries(self._words, self._ring, self.capacity, self.position))
        return self.position - before

    def room(self) -> int:
        """Return how many entries may be appended without overrunning the consumer that is waited for."""
        if self._cursor is None:
            return self.capacity
        return self.capacity - (self.position - int(load_word(self._words, self._cursor)))

    def append(self, rows: np.ndarray[Any, Any]) -> None:
        """Write entries; they stay invisible until `publish`.

        Args:
            rows: Shape (n,), dtype KLINE; n at most `room()`.
        """
        # Writable too, which the kernel's signature asks for: rows may look into somebody's bytes.
        image = np.require(rows, requirements=("C", "W")).view(np.int64).reshape(-1)
        for index in range(len(rows)):
            write_entry(self._words, self._ring, self.capacity, self.position, image, index * ROW_WORDS)
            self.position += 1

    def publish(self) -> None:
        """Make all appended entries visible and wake those who wait for them."""
        if int(self._words[self._tail]) != self.position:
            publish_tail(self._words, self._tail, self.position)
            self._wake()
