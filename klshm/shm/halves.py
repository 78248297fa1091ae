"""The live table and its two published halves.

Trades go to the live table only. A swap copies the rows that changed since the last *two*
swaps into the half nobody reads, then publishes it by raising the generation: half
`generation & 1` is always whole, at any instant, also after kill -9. A reader has one full
swap interval for its copy, because its half is rewritten only while generation + 2 is built.

What changed is the worker's own knowledge: an index list and a mark per row, shared with
nobody. After a worker's restart every row counts as changed for two swaps.
"""

from __future__ import annotations

from klshm.shm import layout as lay
from klshm.shm.atomics import fence_release, load_relaxed, store_relaxed, store_release
from klshm.shm.compile import kernel
from klshm.shm.layout import B_CUT, B_GENERATION, B_INTENT, CUT_WORDS, ROW_WORDS
from klshm.shm.rows import copy_row


__all__ = ["D_CURRENT", "D_HEADER", "D_PREVIOUS", "mark_all", "mark_row", "new_dirty", "swap"]

# A dirty tracker is one private int64 array: counts of the two lists, which list is current,
# then two lists of `rows` indices, then one mark per row.
D_CURRENT = 0
D_PREVIOUS = 1
D_WHICH = 2
D_HEADER = 4


def new_dirty(rows):
    """Return a tracker for a table of so many rows, dtype int64, nothing marked."""
    import numpy as np

    return np.zeros(D_HEADER + 3 * rows, dtype=np.int64)


@kernel("void(int64[::1], int64)")
def mark_row(dirty, row):
    """Remember that a row of the live table changed."""
    rows = (len(dirty) - D_HEADER) // 3
    mark = D_HEADER + 2 * rows + row
    if dirty[mark] == 0:
        dirty[mark] = 1
        dirty[D_HEADER + dirty[D_WHICH] * rows + dirty[D_CURRENT]] = row
        dirty[D_CURRENT] += 1


@kernel("void(int64[::1])")
def mark_all(dirty):
    """Count every row as changed, in this swap and in the one before."""
    rows = (len(dirty) - D_HEADER) // 3
    for row in range(rows):
        mark_row(dirty, row)
        dirty[D_HEADER + (1 - dirty[D_WHICH]) * rows + row] = row
    dirty[D_PREVIOUS] = rows


@kernel("int64(int64[::1], int64, int64, int64, int64, int64[::1], int64, int64, int64, int64)")
def swap(words, block, live, half_0, half_1, dirty, mono_ns, exchange_ms, closed_through_ms, batch):
    """Publish what changed.

    Args:
        words: The segment, dtype int64.
        block: First word of the worker's block.
        live: First word of the live table.
        half_0: First word of half 0.
        half_1: First word of half 1.
        dirty: The tracker.
        mono_ns: CLOCK_MONOTONIC of the cut.
        exchange_ms: Exchange time of the cut.
        closed_through_ms: Every minute that ended by then is closed in this cut.
        batch: Number of the last batch of events in this cut.

    Returns:
        Rows copied.
    """
    # SYNC POINT cut: writer
    rows = (len(dirty) - D_HEADER) // 3
    marks = D_HEADER + 2 * rows
    current = D_HEADER + dirty[D_WHICH] * rows
    previous = D_HEADER + (1 - dirty[D_WHICH]) * rows
    generation = load_relaxed(words, block + B_GENERATION)
    parity = (generation + 1) & 1
    half = half_1 if parity else half_0
    store_relaxed(words, block + B_INTENT, generation + 1)
    fence_release()
    copied = dirty[D_CURRENT]
    for i in range(dirty[D_CURRENT]):
        row = dirty[current + i]
        copy_row(words, half + row * ROW_WORDS, live + row * ROW_WORDS)
    for i in range(dirty[D_PREVIOUS]):
        row = dirty[previous + i]
        if dirty[marks + row] == 0:
            copy_row(words, half + row * ROW_WORDS, live + row * ROW_WORDS)
            copied += 1
    cut = block + B_CUT + parity * CUT_WORDS
    words[cut + lay.CUT_MONO_NS] = mono_ns
    words[cut + lay.CUT_EXCHANGE_MS] = exchange_ms
    words[cut + lay.CUT_CLOSED_THROUGH_MS] = closed_through_ms
    words[cut + lay.CUT_BATCH] = batch
    store_release(words, block + B_GENERATION, generation + 1)
    fence_release()  # the next half's stores must not pass this one on weakly ordered machines
    for i in range(dirty[D_CURRENT]):
        dirty[marks + dirty[current + i]] = 0
    dirty[D_PREVIOUS] = dirty[D_CURRENT]
    dirty[D_CURRENT] = 0
    dirty[D_WHICH] = 1 - dirty[D_WHICH]
    return copied
