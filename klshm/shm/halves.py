"""The live table and its two published halves.

Trades go to the live table only. A swap copies the rows that changed since the last *two*
swaps into the half nobody reads, then publishes it by raising the generation: half
`generation & 1` is always whole, at any instant, also after kill -9. A reader has one full
swap interval for its copy, because its half is rewritten only while generation + 2 is built.

What changed is the worker's own knowledge: an index list and a mark per row, shared with
nobody. After a worker's restart every row counts as changed for two swaps.
"""

from __future__ import annotations

from klshm.shm.atomics import fence_release, load_relaxed, store_relaxed, store_release
from klshm.shm.compile import kernel
from klshm.shm.crash import HALF_WRITTEN, SWAP_BEGUN, SWAPPED
from klshm.shm.crash_here import crash_here
from klshm.shm.layout import B_CUT, B_GENERATION, B_INTENT, CUT_WORDS, ROW_WORDS
from klshm.shm.rows import copy_row


__all__ = ["D_CRASH", "D_CURRENT", "D_PREVIOUS", "mark_all", "mark_row", "swap", "tracker_words"]

# A tracker is a stretch of private words: lengths of the two lists, which list is current, where the
# process is to die (`klshm.shm.crash`), then two lists of row indices, then one mark per row.
D_CURRENT = 0
D_PREVIOUS = 1
D_WHICH = 2
D_CRASH = 3
D_HEADER = 4


def tracker_words(rows: int) -> int:
    """Return how many private words a tracker for so many rows takes."""
    return D_HEADER + 3 * rows


@kernel("void(int64[::1], int64, int64, int64)")
def mark_row(private, tracker, rows, row):
    """Remember that a row of the live table changed.

    Args:
        private: Memory that holds the tracker, dtype int64.
        tracker: First word of the tracker.
        rows: Rows of the table.
        row: Which row.
    """
    mark = tracker + D_HEADER + 2 * rows + row
    if private[mark] == 0:
        private[mark] = 1
        private[tracker + D_HEADER + private[tracker + D_WHICH] * rows + private[tracker + D_CURRENT]] = row
        private[tracker + D_CURRENT] += 1


@kernel("void(int64[::1], int64, int64)")
def mark_all(private, tracker, rows):
    """Count every row as changed, in this swap and in the one before."""
    for row in range(rows):
        mark_row(private, tracker, rows, row)
        private[tracker + D_HEADER + (1 - private[tracker + D_WHICH]) * rows + row] = row
    private[tracker + D_PREVIOUS] = rows


@kernel("int64(int64[::1], int64, int64, int64, int64, int64[::1], int64, int64, int64)")
def swap(words, block, live, half_0, half_1, private, tracker, rows, cut):
    """Publish what changed.

    Args:
        words: The segment, dtype int64.
        block: First word of the worker's block.
        live: First word of the live table.
        half_0: First word of half 0.
        half_1: First word of half 1.
        private: Memory that holds the tracker, dtype int64.
        tracker: First word of the tracker.
        rows: Rows of the table.
        cut: First private word of the cut to publish with it, CUT_WORDS words.

    Returns:
        Rows copied.
    """
    # SYNC POINT cut: writer
    marks = tracker + D_HEADER + 2 * rows
    current = tracker + D_HEADER + private[tracker + D_WHICH] * rows
    previous = tracker + D_HEADER + (1 - private[tracker + D_WHICH]) * rows
    generation = load_relaxed(words, block + B_GENERATION)
    parity = (generation + 1) & 1
    half = half_1 if parity else half_0
    store_relaxed(words, block + B_INTENT, generation + 1)
    fence_release()
    crash_here(private, tracker + D_CRASH, SWAP_BEGUN)
    copied = private[tracker + D_CURRENT]
    for i in range(private[tracker + D_CURRENT]):
        row = private[current + i]
        copy_row(words, half + row * ROW_WORDS, live + row * ROW_WORDS)
    for i in range(private[tracker + D_PREVIOUS]):
        row = private[previous + i]
        if private[marks + row] == 0:
            copy_row(words, half + row * ROW_WORDS, live + row * ROW_WORDS)
            copied += 1
    for k in range(CUT_WORDS):
        words[block + B_CUT + parity * CUT_WORDS + k] = private[cut + k]
    crash_here(private, tracker + D_CRASH, HALF_WRITTEN)
    store_release(words, block + B_GENERATION, generation + 1)
    fence_release()  # the next half's stores must not pass this one on weakly ordered machines
    crash_here(private, tracker + D_CRASH, SWAPPED)
    for i in range(private[tracker + D_CURRENT]):
        private[marks + private[current + i]] = 0
    private[tracker + D_PREVIOUS] = private[tracker + D_CURRENT]
    private[tracker + D_CURRENT] = 0
    private[tracker + D_WHICH] = 1 - private[tracker + D_WHICH]
    return copied
