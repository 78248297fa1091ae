"""Writers and readers that run flat out in machine code, with their guards and without.

Every number they write follows from the number of the step, so that a reader can tell by one
look whether what it got is whole, and from when it is.
"""

from __future__ import annotations

from typing import Any

from klshm.shm.atomics import fence_release, load_acquire, load_relaxed, store_relaxed, store_release
from klshm.shm.compile import kernel as compiled_kernel
from klshm.shm.halves import D_PREVIOUS, mark_row, swap
from klshm.shm.layout import CUT_WORDS, ROW_WORDS
from klshm.shm.ring import adopt_entries, publish_tail, write_entry
from klshm.shm.rows import read_row, write_row


def kernel(signature: str) -> Any:
    """Compile anew in every run: a cached kernel would remember under which name this file was imported."""
    return compiled_kernel(signature, cache=False)


@kernel("int64(int64)")
def next_random(seed):
    return seed * 6364136223846793005 + 1442695040888963407


@kernel("void(int64[::1], int64, int64)")
def pause(words, seed, longest):
    """Spend the time of up to `longest` loads."""
    if longest > 0:
        for _ in range(((seed >> 33) & 0x3FFFFFFF) % longest):
            load_acquire(words, 0)


# -- one row ----------------------------------------------------------------------------------------

TORN, BACK, BUSY, LAST_SEQUENCE, LAST_VALUE, READS = range(6)
SEEN_WORDS = 6


@kernel("void(int64[::1], int64, int64[::1])")
def write_row_unguarded(words, at, image):
    """Write a row as one would without thinking of readers: the body, then the next version."""
    for k in range(1, ROW_WORDS):
        words[at + k] = image[k]
    store_release(words, at, load_relaxed(words, at) + 2)


@kernel("void(int64[::1], int64, int64[::1], int64, int64, int64, int64, boolean)")
def hammer_row(words, at, image, open_time, first, last, longest, guarded):
    """Write the row at `at` with the values first..last-1, one after the other.

    With `open_time` below 0 the open time carries the value as well.
    """
    seed = first + 1
    for value in range(first, last):
        for k in range(1, ROW_WORDS):
            image[k] = value
        if open_time >= 0:
            image[1] = open_time
        if guarded:
            write_row(words, at, image, 0)
        else:
            write_row_unguarded(words, at, image)
        seed = next_random(seed)
        pause(words, seed, longest)


@kernel("void(int64[::1], int64[::1], int64)")
def judge_row(row, seen, sequence):
    """Count what is wrong with a copy of a hammered row."""
    seen[READS] += 1
    for k in range(2, ROW_WORDS):
        if row[k] != row[1]:
            seen[TORN] += 1
            return
    if sequence < seen[LAST_SEQUENCE] or row[1] < seen[LAST_VALUE]:
        seen[BACK] += 1
    seen[LAST_SEQUENCE] = sequence
    seen[LAST_VALUE] = row[1]


@kernel("void(int64[::1], int64, int64[::1], int64, int64[::1], boolean)")
def watch_row(words, at, row, reads, seen, guarded):
    """Read a row so many times and judge each copy."""
    for _ in range(reads):
        if guarded:
            sequence = read_row(words, at, row, 0, 64)
            if sequence < 0:
                seen[BUSY] += 1
                continue
        else:
            sequence = load_acquire(words, at)
            for k in range(1, ROW_WORDS):
                row[k] = words[at + k]
        judge_row(row, seen, sequence)


# -- the halves -------------------------------------------------------------------------------------


@kernel("int64(int64, int64)")
def due(row, batch):
    """Return the last batch up to `batch` that writes a row: every, every second, ... or only the first."""
    if row % 8 == 7:
        return 0
    return batch - batch % (row % 8 + 1)


@kernel("void(int64[::1], int64, int64[::1], int64, int64)")
def write_live(words, live, image, row, value):
    for k in range(1, ROW_WORDS):
        image[k] = value
    write_row(words, live + row * ROW_WORDS, image, 0)


@kernel("void(int64[::1], int64[::1], int64[::1], int64[::1], int64, int64, int64, boolean)")
def run_batches(words, places, private, image, first, last, longest, carry):
    """Write the rows that are due, then swap, batch after batch.

    Args:
        words: The segment.
        places: Words of the block, the live table and the two halves; rows; word of the cut in `private`.
        private: The tracker, then the cut.
        image: Words of one row.
        first: The first batch.
        last: After the last batch.
        longest: Longest pause after a swap.
        carry: Whether what the swap before wrote is carried forward.
    """
    rows, cut = places[4], places[5]
    seed = first + 1
    for batch in range(first, last):
        for row in range(rows):
            if due(row, batch) == batch:
                write_live(words, places[1], image, row, batch)
                mark_row(private, 0, rows, row)
        for k in range(CUT_WORDS):
            private[cut + k] = batch
        if not carry:
            private[D_PREVIOUS] = 0
        swap(words, places[0], places[1], places[2], places[3], private, 0, rows, cut)
        seed = next_random(seed)
        pause(words, seed, longest)


# -- the rings --------------------------------------------------------------------------------------


@kernel("void(int64[::1], int64, int64, int64, int64[::1], int64[::1], int64, int64, boolean)")
def produce(words, ring, capacity, tail, image, own, batches, longest, adopt):
    """Write entries as a worker does: entry, then history, and the tail once a batch.

    Entry p says p in every word, as long as nothing was lost at a restart: the number comes from
    `own[0]` (the "history": the last number written there), the position from tail and adoption.

    Args:
        words: The segment.
        ring: First word of the ring.
        capacity: Its entries.
        tail: Word of the tail.
        image: Words of one row.
        own: Shared with the next producer: last number in history, entries adopted so far, seed.
        batches: How many.
        longest: Longest pause after a batch.
        adopt: Whether whole entries beyond the tail are taken over.
    """
    position = load_relaxed(words, tail)
    if adopt:
        end = adopt_entries(words, ring, capacity, position)
        if end > position:
            own[0] = max(own[0], words[ring + ((end - 1) & (capacity - 1)) * ROW_WORDS + 1])
            own[1] += end - position
        position = end
    seed = own[2]
    for _ in range(batches):
        seed = next_random(seed)
        for _ in range(1 + ((seed >> 40) & 15)):
            number = own[0] + 1
            for k in range(1, ROW_WORDS):
                image[k] = number
            write_entry(words, ring, capacity, position, image, 0)
            position += 1
            store_release(own, 0, number)
        publish_tail(words, tail, position)
        store_relaxed(own, 2, seed)
        pause(words, seed, longest)
    fence_release()
