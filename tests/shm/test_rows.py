"""The sequence lock of one row, step by step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.intervals import MONDAY_MS
from klshm.shm.layout import ROW_WORDS, W_OPEN_TIME
from klshm.shm.rows import copy_row, history_index, read_row, row_is, write_row


def test_a_row_is_written_under_the_next_even_sequence() -> None:
    words, image = np.zeros(48, dtype=np.int64), np.arange(100, 132, dtype=np.int64)
    assert write_row(words, 16, image, 16) == 2
    assert words[16:32].tolist() == [2, *range(117, 132)], "the image's own sequence counts for nothing"
    assert write_row(words, 16, image, 0) == 4
    assert words[16:32].tolist() == [4, *range(101, 116)]
    assert not words[:16].any() and not words[32:].any()


def test_a_row_whose_writer_was_killed_is_written_anew() -> None:
    words, image = np.zeros(16, dtype=np.int64), np.arange(16, dtype=np.int64)
    words[0] = 7
    assert write_row(words, 0, image, 0) == 8
    assert words[0] == 8


def test_a_copy_carries_the_version_of_its_source() -> None:
    words = np.zeros(32, dtype=np.int64)
    for _ in range(3):
        write_row(words, 0, np.arange(16, dtype=np.int64), 0)
    copy_row(words, 16, 0)
    assert words[16:].tolist() == words[:16].tolist() == [6, *range(1, 16)]


def test_reading_a_whole_row() -> None:
    words, out = np.zeros(32, dtype=np.int64), np.zeros(48, dtype=np.int64)
    write_row(words, 16, np.arange(16, dtype=np.int64), 0)
    assert read_row(words, 16, out, 32, 64) == 2
    assert out[32:].tolist() == [2, *range(1, 16)]
    assert not out[:32].any()


def test_a_row_that_stays_half_written_is_given_up() -> None:
    words, out = np.full(16, 5, dtype=np.int64), np.zeros(16, dtype=np.int64)
    assert read_row(words, 0, out, 0, 64) == -1
    assert not out.any()


class Moving(np.ndarray):
    """Words whose first one has moved on by the second look: a writer that was faster."""

    def __getitem__(self, index: object) -> object:
        value = super().__getitem__(index)  # type: ignore[index]
        if index == 0:
            super().__setitem__(0, value + 2)
        return value


def test_a_row_that_changed_meanwhile_is_not_taken() -> None:
    from klshm.shm.compile import COMPILED

    if COMPILED:
        pytest.skip("needs plain Python; under the compiler the stress tests show it")
    words, out = np.zeros(16, dtype=np.int64).view(Moving), np.zeros(16, dtype=np.int64)
    assert read_row(words, 0, out, 0, 3) == -1


@given(st.integers(0, 10**6), st.sampled_from([32, 96, 1024]), st.sampled_from([(60_000, 0), (604_800_000, MONDAY_MS)]))
def test_neighbours_in_time_are_neighbours_in_history(step: int, rows: int, interval: tuple[int, int]) -> None:
    length, anchor = interval
    index = [history_index(anchor + (step + n) * length, anchor, length, rows) for n in range(rows + 1)]
    assert all(later == (earlier + 1) % rows for earlier, later in pairwise(index))
    assert index[rows] == index[0] and len(set(index)) == rows


def test_a_row_belongs_to_its_open_time_only_while_whole() -> None:
    words = np.zeros(16, dtype=np.int64)
    assert not row_is(words, 0, 0), "never written"
    words[W_OPEN_TIME], words[0] = 60_000, 2
    assert row_is(words, 0, 60_000)
    assert not row_is(words, 0, 120_000)
    words[0] = 3
    assert not row_is(words, 0, 60_000), "half written"
    assert ROW_WORDS == len(words)
