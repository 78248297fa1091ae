"""Which bars open ones stand on, and which rows can be bars at all."""

from __future__ import annotations

from klshm import intervals
from klshm.shm import layout as lay
from klshm.store.state import are_sound, needed_times
from tests.store.engine import MINUTE, bars
from tests.store.fresh import OPEN


def test_needed_times_reach_back_to_the_begin_of_the_bar_above() -> None:
    names = ("1m", "5m", "30m", "4h", "1d", "1w")
    monday = intervals.MONDAY_MS + 2900 * 7 * 86_400_000
    minute = monday + 6 * 86_400_000 + 23 * 3_600_000 + 59 * MINUTE  # the last of a week: all there can be
    counts = [len(times) for times in needed_times(names, minute, 1)]
    assert counts == [4, 5, 7, 5, 6, 1]
    assert [len(times) for times in needed_times(names, minute, 8)] == [8] * 6
    assert len(needed_times(("1m", "1w"), minute, 1)[0]) == 1024
    for index, times in enumerate(needed_times(names, monday, 2)):
        assert times[-1] + intervals.length_ms(names[index]) <= monday
        assert len(times) == 2


def test_soundness() -> None:
    rows = bars([OPEN] * 4, state=[lay.STATE_CLOSED, lay.STATE_LIVE, lay.STATE_CONFIRMED, lay.STATE_EMPTY])
    assert are_sound(rows, is_open=False).tolist() == [True, False, True, False]
    assert are_sound(rows, is_open=True).tolist() == [False, True, False, False]
