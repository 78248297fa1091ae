"""In which order words are stored: the promise behind every sync point, read off plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from klshm.shm import layout as lay
from klshm.shm.compile import COMPILED
from klshm.shm.halves import mark_row, swap, tracker_words
from klshm.shm.layout import ROW_WORDS
from klshm.shm.ring import write_entry
from klshm.shm.rows import copy_row, write_row


pytestmark = pytest.mark.skipif(COMPILED, reason="machine code stores unseen; the stress tests judge it")


class Recorded(np.ndarray):
    """Words that remember every store into them."""

    stores: list[tuple[int, int]]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.stores.append((int(index), int(value)))
        super().__setitem__(index, value)


def recorded(size: int) -> Recorded:
    words = np.zeros(size, dtype=np.int64).view(Recorded)
    words.stores = []
    return words


def check_row(stores: list[tuple[int, int]], at: int, version: int) -> None:
    """The odd mark first, the body, the even version last."""
    (first, mark), *body, last = stores
    assert first == at and mark & 1
    assert sorted(index for index, _ in body) == list(range(at + 1, at + ROW_WORDS))
    assert last == (at, version)


def test_a_row_is_marked_first_and_versioned_last() -> None:
    words = recorded(2 * ROW_WORDS)
    write_row(words, ROW_WORDS, np.arange(ROW_WORDS, dtype=np.int64), 0)
    check_row(words.stores, ROW_WORDS, 2)
    words.stores = []
    copy_row(words, 0, ROW_WORDS)
    check_row(words.stores, 0, 2)


def test_an_entry_is_marked_first_and_stamped_last() -> None:
    words = recorded(4 * ROW_WORDS)
    write_entry(words, 0, 4, 6, np.arange(ROW_WORDS, dtype=np.int64), 0)
    assert words.stores[0] == (2 * ROW_WORDS, 13)
    check_row(words.stores, 2 * ROW_WORDS, 14)


def test_a_swap_says_what_it_will_do_and_publishes_last() -> None:
    rows, block = 2, 0
    words = recorded(lay.BLOCK_WORDS + 3 * rows * ROW_WORDS)
    live, half_0, half_1 = (lay.BLOCK_WORDS + n * rows * ROW_WORDS for n in range(3))
    cut = tracker_words(rows)
    private = np.zeros(cut + lay.CUT_WORDS, dtype=np.int64)
    for row in range(rows):
        mark_row(private, 0, rows, row)
    swap(words, block, live, half_0, half_1, private, 0, rows, cut)
    intent, *between, generation = words.stores
    assert intent == (lay.B_INTENT, 1)
    assert generation == (lay.B_GENERATION, 1)
    touched = {index for index, _ in between}
    assert touched == {*range(half_1, half_1 + rows * ROW_WORDS), *range(lay.B_CUT + 4, lay.B_CUT + 8)}
    for row in range(rows):
        at = half_1 + row * ROW_WORDS
        check_row([store for store in between if at <= store[0] < at + ROW_WORDS], at, 0)
