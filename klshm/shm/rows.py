"""One row, one writer, many readers: the sequence lock of a 128-byte record.

States of a row's sequence word::

    even s    the row is whole; this is its version
    odd  s+1  the row is being written (or its writer was killed there)
    even s+2  the row is whole again

A reader copies between two equal even sequences; it is never blocked and never blocks.
"""

from __future__ import annotations

from klshm.shm.atomics import fence_acquire, fence_release, load_acquire, load_relaxed, store_relaxed, store_release
from klshm.shm.compile import kernel
from klshm.shm.layout import ROW_WORDS, W_OPEN_TIME


__all__ = ["begin_row", "copy_row", "end_row", "history_index", "read_row", "row_is", "write_row"]


@kernel("int64(int64[::1], int64)")
def begin_row(words, at):
    """Let readers know that a row is being written.

    Args:
        words: The segment, dtype int64.
        at: First word of the row.

    Returns:
        The sequence it had; `end_row` takes it.
    """
    # SYNC POINT row: writer
    sequence = load_relaxed(words, at)
    if sequence & 1:  # the writer before us was killed here
        sequence -= 1
    store_relaxed(words, at, sequence + 1)
    fence_release()
    return sequence


@kernel("int64(int64[::1], int64, int64)")
def end_row(words, at, sequence):
    """Let readers know that a row is whole again; return its new sequence."""
    store_release(words, at, sequence + 2)
    return sequence + 2


@kernel("int64(int64[::1], int64, int64[::1], int64)")
def write_row(words, at, image, source):
    """Write a row under its sequence.

    Args:
        words: The segment, dtype int64.
        at: First word of the row.
        image: Where the new row comes from, dtype int64.
        source: First word of it; its sequence word is ignored.

    Returns:
        The row's new sequence.
    """
    sequence = begin_row(words, at)
    for k in range(1, ROW_WORDS):
        words[at + k] = image[source + k]
    return end_row(words, at, sequence)


@kernel("void(int64[::1], int64, int64)")
def copy_row(words, at, source):
    """Copy a row of the same writer, sequence included: the copy carries the version of its source."""
    # SYNC POINT row: writer
    store_relaxed(words, at, load_relaxed(words, at) | 1)
    fence_release()
    for k in range(1, ROW_WORDS):
        words[at + k] = words[source + k]
    store_release(words, at, load_relaxed(words, source))


@kernel("int64(int64[::1], int64, int64[::1], int64, int64)")
def read_row(words, at, out, to, tries):
    """Copy a row out, consistently.

    Returns:
        Its sequence, or -1 if it was being written at every try.
    """
    # SYNC POINT row: reader
    for _ in range(tries):
        sequence = load_acquire(words, at)
        if sequence & 1:
            continue
        for k in range(1, ROW_WORDS):
            out[to + k] = words[at + k]
        fence_acquire()
        if load_relaxed(words, at) == sequence:
            out[to] = sequence
            return sequence
    return -1


@kernel("int64(int64, int64, int64, int64)")
def history_index(open_time, anchor, length, rows):
    """Return where in its series the history row of an open time lies."""
    return ((open_time - anchor) // length) % rows


@kernel("boolean(int64[::1], int64, int64)")
def row_is(words, at, open_time):
    """Return whether the row at `at` is whole and belongs to `open_time` (for its own writer)."""
    return words[at + W_OPEN_TIME] == open_time and words[at] & 1 == 0 and words[at] > 0
