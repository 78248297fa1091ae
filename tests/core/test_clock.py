"""When a minute ends and settles: each moment once, in order, never early."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.core.clock import MinuteClock


MINUTE = 60_000
NOON = 1_760_000_040_000 // MINUTE * MINUTE


def test_a_minute_ticks_once_it_has_surely_ended() -> None:
    clock = MinuteClock(settle_ms=250)
    assert clock.next_due_ms(5, 20) == 0, "before the first tick something is due at once"
    assert clock.tick(NOON + 1000, 5)
    assert clock.ticked_ms == NOON
    assert not clock.tick(NOON + 59_999, 0)
    assert not clock.tick(NOON + MINUTE + 4, 5), "the exchange's clock may still show the old minute"
    assert clock.tick(NOON + MINUTE + 5, 5)
    assert clock.ticked_ms == NOON + MINUTE
    assert not clock.tick(NOON + MINUTE + 6, 5)


def test_minutes_that_were_missed_tick_at_once_as_one() -> None:
    clock = MinuteClock(settle_ms=250, ticked_ms=NOON)
    assert clock.tick(NOON + 10 * MINUTE, 0)
    assert clock.ticked_ms == NOON + 10 * MINUTE


def test_a_clock_that_is_set_back_ticks_nothing_twice() -> None:
    clock = MinuteClock(settle_ms=250, ticked_ms=NOON)
    assert not clock.tick(NOON - 5 * MINUTE, 0)
    assert clock.settle(NOON - 5 * MINUTE, 0) == NOON - 6 * MINUTE
    assert clock.settle(NOON - 5 * MINUTE, 0) == 0
    assert clock.ticked_ms == NOON


@pytest.mark.parametrize(("lag_ms", "due_ms"), [(0, 250), (40, 290), (1000, 1250)])
def test_a_minute_settles_after_its_delay_and_the_lag(lag_ms: int, due_ms: int) -> None:
    clock = MinuteClock(settle_ms=250, ticked_ms=NOON)
    assert clock.next_due_ms(5, lag_ms) == NOON + due_ms
    assert clock.settle(NOON + due_ms - 1, lag_ms) == NOON - MINUTE, "the one before, long due"
    assert clock.settle(NOON + due_ms - 1, lag_ms) == 0
    assert clock.settle(NOON + due_ms, lag_ms) == NOON
    assert clock.settle(NOON + due_ms, lag_ms) == 0
    assert clock.next_due_ms(5, lag_ms) == NOON + MINUTE + 5


def test_nothing_settles_before_it_ticked() -> None:
    clock = MinuteClock(settle_ms=0, ticked_ms=NOON, settled_ms=NOON)
    assert clock.settle(NOON + 3 * MINUTE, 0) == 0
    clock.tick(NOON + 3 * MINUTE, 0)
    assert clock.settle(NOON + 3 * MINUTE, 0) == NOON + 3 * MINUTE


def test_a_long_lag_lets_the_next_minute_tick_first() -> None:
    clock = MinuteClock(settle_ms=250, ticked_ms=NOON)
    assert clock.next_due_ms(5, 90_000) == NOON + MINUTE + 5


waits = st.lists(st.tuples(st.floats(0, 150_000), st.floats(0, 500), st.floats(0, 90_000)), min_size=1, max_size=60)


@given(waits, st.integers(0, 30_000))
def test_moments_come_in_order_and_never_early(steps: list[Any], settle_ms: int) -> None:
    clock = MinuteClock(settle_ms)
    now_ms, settled = float(NOON), 0
    for wait_ms, error_ms, lag_ms in steps:
        now_ms += wait_ms
        before = clock.ticked_ms
        due_ms = clock.next_due_ms(error_ms, lag_ms)
        ticked = clock.tick(now_ms, error_ms)
        end = clock.settle(now_ms, lag_ms)
        assert ticked == (clock.ticked_ms > before)
        assert clock.ticked_ms % MINUTE == 0
        assert not ticked or clock.ticked_ms <= now_ms - error_ms
        if end:
            assert settled < end <= clock.ticked_ms and end + settle_ms + lag_ms <= now_ms + 1
            settled = end
        if now_ms < due_ms - 1:
            assert not ticked and (not end or end < before), "before its time"
        if now_ms > due_ms + 1:
            assert ticked or end, "what was due did not happen"
        assert not clock.tick(now_ms, error_ms) and not clock.settle(now_ms, lag_ms), "each once"
