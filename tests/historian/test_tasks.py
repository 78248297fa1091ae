"""What there is to fetch: ranges without gap or overlap, the most needed first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.historian.symbols import Entry
from klshm.historian.tasks import Task, first_pass_order, first_pass_rows, missing_range, pages


M = 60_000


@given(st.integers(0, 3000), st.integers(0, 3000), st.sampled_from([M, 5 * M, 7 * 1440 * M]))
def test_pages_cover_the_depth_without_gap_or_overlap(have: int, depth: int, length_ms: int) -> None:
    last_ms = 10_000 * length_ms
    opens: list[int] = []
    for first, last in pages(last_ms, length_ms, have, depth):
        page = range(first, last + 1, length_ms)
        assert 1 <= len(page) <= 499
        opens += page
    assert sorted(opens) == [last_ms - i * length_ms for i in range(depth - 1, have - 1, -1)]


@pytest.mark.parametrize(
    ("have", "expected"),
    [([], (0, 4)), ([0, 1], (2, 4)), ([4], (0, 3)), ([2], (0, 4)), ([0, 1, 2, 3, 4], None), ([0, 4, 9], (1, 3))],
)
def test_missing_range(have: list[int], expected: tuple[int, int] | None) -> None:
    assert missing_range(have, 0, 4, 1) == expected


def test_first_pass_begins_with_what_open_bars_are_folded_from() -> None:
    names = ["1m", "5m", "30m", "4h", "1d", "1w"]
    order = [names[index] for index in sorted(range(6), key=first_pass_order(names))]
    assert order == ["1m", "4h", "1d", "1w", "30m", "5m"]
    assert [first_pass_rows(name) for name in order] == [499, 99, 99, 99, 99, 99]


def test_first_passes_go_before_depth_and_busy_symbols_before_quiet_ones() -> None:
    entry = Entry(0, "BTCUSDT", 2, 0, 0, 2, 3, 0, 0, 0)
    tasks = [Task(2, 0, 5, entry, 0), Task(1, 0, 4, entry, 3), Task(0, 1, 3, entry), Task(0, 0, 2, entry)]
    assert [task.number for task in sorted(tasks)] == [2, 3, 4, 5]
