"""The arithmetic of open times."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.errors import UnknownInterval
from klshm.intervals import (
    CODES,
    INTERVALS,
    MINUTE_MS,
    anchor_ms,
    code_of,
    length_ms,
    name_of,
    open_time_of,
    parents_of,
)


interval = st.sampled_from(INTERVALS)
times = st.integers(1_500_000_000_000, 4_000_000_000_000)


def test_the_codes_are_what_segments_and_archives_hold() -> None:
    assert CODES == {
        "1m": 0,
        "3m": 1,
        "5m": 2,
        "15m": 3,
        "30m": 4,
        "1h": 5,
        "2h": 6,
        "4h": 7,
        "6h": 8,
        "8h": 9,
        "12h": 10,
        "1d": 11,
        "1w": 12,
    }
    assert [name_of(code_of(name)) for name in INTERVALS] == list(INTERVALS)


@pytest.mark.parametrize("name", ["3d", "1M", "1s", "", "1W"])
def test_others_are_refused_and_the_known_ones_named(name: str) -> None:
    for ask in (length_ms, code_of):
        with pytest.raises(UnknownInterval, match="is not one of 1m, 3m, .* 1w; use one of these"):
            ask(name)


@pytest.mark.parametrize("code", [-1, 13, 255])
def test_codes_without_an_interval_are_refused(code: int) -> None:
    with pytest.raises(UnknownInterval, match=f"interval code {code} is not in 0..12"):
        name_of(code)


@given(interval, times)
def test_a_bar_holds_the_times_it_should(name: str, time_ms: int) -> None:
    opened = open_time_of(name, time_ms)
    assert opened <= time_ms < opened + length_ms(name)
    assert (opened - anchor_ms(name)) % length_ms(name) == 0
    assert open_time_of(name, opened) == opened
    assert open_time_of(name, opened - 1) == opened - length_ms(name)


@given(times)
def test_weeks_open_on_monday_and_days_at_midnight(time_ms: int) -> None:
    week = datetime.datetime.fromtimestamp(open_time_of("1w", time_ms) / 1000, datetime.UTC)
    assert (week.weekday(), week.hour, week.minute, week.second) == (0, 0, 0, 0)
    day = datetime.datetime.fromtimestamp(open_time_of("1d", time_ms) / 1000, datetime.UTC)
    assert (day.hour, day.minute) == (0, 0)


@given(st.sets(interval).map(lambda names: ("1m", *sorted(names - {"1m"}, key=length_ms))))
def test_each_interval_is_folded_from_the_longest_that_divides_it(kept: tuple[str, ...]) -> None:
    sources = parents_of(kept)
    assert sources[0] == -1
    for index in range(1, len(kept)):
        shorter = kept[:index]
        dividing = [name for name in shorter if length_ms(kept[index]) % length_ms(name) == 0]
        assert kept[sources[index]] == max(dividing, key=length_ms)


def test_the_default_intervals_fold_by_at_most_eight() -> None:
    kept = ("1m", "5m", "30m", "4h", "1d", "1w")
    assert parents_of(kept) == (-1, 0, 1, 2, 3, 4)
    ratios = [length_ms(kept[i]) // length_ms(kept[i - 1]) for i in range(1, len(kept))]
    assert ratios == [5, 6, 8, 6, 7]
    assert length_ms("1m") == MINUTE_MS
