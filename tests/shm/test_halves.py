"""Swaps, step by step: what is copied, when it shows, what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from klshm.shm import layout as lay
from klshm.shm.halves import D_CURRENT, D_HEADER, D_PREVIOUS, mark_all, mark_row, swap, tracker_words
from klshm.shm.layout import ROW_WORDS
from klshm.shm.rows import write_row
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView
from tests.shm.segments import Partition


ROWS = 6


class Table:
    """A block, a live table, two halves and a tracker in private memory."""

    def __init__(self) -> None:
        size = ROWS * ROW_WORDS
        self.live, self.halves = 256, (256 + size, 256 + 2 * size)
        self.words = np.zeros(256 + 3 * size, dtype=np.int64)
        self.cut = tracker_words(ROWS)
        self.private = np.zeros(self.cut + lay.CUT_WORDS, dtype=np.int64)
        self.want = [0] * ROWS

    def write(self, row: int, value: int) -> None:
        image = np.full(ROW_WORDS, value, dtype=np.int64)
        write_row(self.words, self.live + row * ROW_WORDS, image, 0)
        mark_row(self.private, 0, ROWS, row)
        self.want[row] = value

    def swap(self, batch: int = 0) -> int:
        self.private[self.cut :] = batch
        return int(swap(self.words, 0, self.live, *self.halves, self.private, 0, ROWS, self.cut))

    def half(self, parity: int) -> list[int]:
        at = self.halves[parity]
        return self.words[at + 1 : at + ROWS * ROW_WORDS : ROW_WORDS].tolist()

    @property
    def generation(self) -> int:
        return int(self.words[lay.B_GENERATION])

    def readable(self) -> list[int]:
        return self.half(self.generation & 1)


def test_what_changed_shows_with_the_next_generation() -> None:
    table = Table()
    table.write(2, 11)
    assert table.readable() == [0] * ROWS
    assert table.swap(5) == 1
    assert table.generation == 1 and table.words[lay.B_INTENT] == 1
    assert table.readable() == [0, 0, 11, 0, 0, 0]
    assert table.half(0) == [0] * ROWS, "the other half is not touched"
    assert table.words[lay.B_CUT + lay.CUT_WORDS : lay.B_CUT + 2 * lay.CUT_WORDS].tolist() == [5] * 4


def test_a_quiet_row_stays_constant_over_many_swaps() -> None:
    """The original system swapped without copying forward: a quiet symbol flipped at every swap."""
    table = Table()
    table.write(0, 7)
    for batch in range(20):
        table.write(1, batch)
        copied = table.swap(batch)
        assert table.readable()[:2] == [7, batch]
        assert copied == (2 if batch in (0, 1) else 1), "a row is copied for two swaps, then left alone"


def test_a_row_that_changes_in_two_swaps_running_is_copied_once_in_each() -> None:
    table = Table()
    table.write(3, 1)
    table.swap()
    table.write(3, 2)
    table.write(3, 3)
    assert table.swap() == 1
    assert table.swap() == 1 and table.swap() == 0
    assert table.half(0) == table.half(1) == [0, 0, 0, 3, 0, 0]


def test_half_rows_carry_the_version_of_the_live_row() -> None:
    table = Table()
    for value in (1, 2, 3):
        table.write(4, value)
    table.swap()
    at = 4 * ROW_WORDS
    assert table.words[table.halves[1] + at] == table.words[table.live + at] == 6


def test_after_a_restart_every_row_is_copied_twice() -> None:
    table = Table()
    for row in range(ROWS):
        table.write(row, row + 1)
    table.private[:] = 0  # the worker was killed and knows nothing
    mark_all(table.private, 0, ROWS)
    assert (table.private[D_CURRENT], table.private[D_PREVIOUS]) == (ROWS, ROWS)
    assert [table.swap(), table.swap(), table.swap()] == [ROWS, ROWS, 0]
    assert table.half(0) == table.half(1) == table.want


def test_all_rows_may_be_marked_while_some_are() -> None:
    table = Table()
    table.write(1, 5)
    mark_all(table.private, 0, ROWS)
    lists = table.private[D_HEADER : D_HEADER + 2 * ROWS].reshape(2, ROWS)
    assert sorted(lists[0]) == sorted(lists[1]) == list(range(ROWS))
    assert table.swap() == ROWS


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, ROWS - 1), st.integers(1, 999))), max_size=60))
def test_the_readable_half_is_always_the_live_table_of_the_last_swap(steps: list[Any]) -> None:
    table = Table()
    published = [0] * ROWS
    for step in steps:
        if step is None:
            table.swap()
            published = list(table.want)
        else:
            table.write(*step)
        assert table.readable() == published


def test_a_reader_finds_what_the_kernel_published(segment: Segment) -> None:
    partition, view = Partition(segment, 1), PartitionView(segment, 1)
    image = np.full(ROW_WORDS, 9, dtype=np.int64)
    write_row(partition.words, partition.live_row(3), image, 0)
    mark_row(partition.private, 0, partition.rows, 3)
    assert partition.swap(40) == 1
    cut = view.cut()
    assert (cut.generation, cut.batch, cut.closed_through_ms, cut.exchange_ms, cut.mono_ns) == (1, 40, 41, 42, 43)
    assert cut.rows["open_time"].tolist() == [[0, 0], [0, 9], *[[0, 0]] * 6]
