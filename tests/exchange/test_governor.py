"""The budget, pure: time is passed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.exchange.governor import Governor, GovernorState, Priority, klines_weight


MINUTE = 60_000
T0 = 29_000_000 * MINUTE + 10_000
NEXT = 29_000_001 * MINUTE + 200


@pytest.mark.parametrize(
    ("limit", "weight"), [(1, 1), (99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10), (1500, 10)]
)
def test_klines_weight_is_the_stricter_of_documented_and_measured(limit: int, weight: int) -> None:
    assert klines_weight(limit) == weight


def test_backfill_stops_at_its_share_while_repair_goes_on() -> None:
    governor = Governor(0.9, 0.6)
    governor.sent(T0, 1439)
    assert governor.wait_ms(T0, 1, Priority.BACKFILL) == 0
    governor.sent(T0, 1)
    assert governor.wait_ms(T0, 1, Priority.BACKFILL) == NEXT - T0
    for priority in (Priority.REPAIR, Priority.CONFIRM, Priority.LISTINGS):
        assert governor.wait_ms(T0, 720, priority) == 0
        assert governor.wait_ms(T0, 721, priority) == NEXT - T0


def test_minute_ends_a_little_after_the_exchange_clock_says() -> None:
    governor = Governor()
    governor.sent(T0, 2160)
    assert governor.wait_ms(NEXT - 1, 1, Priority.REPAIR) == 1
    assert governor.wait_ms(NEXT, 1, Priority.REPAIR) == 0
    assert governor.used(NEXT) == 0


def test_header_counts_where_it_is_larger() -> None:
    governor = Governor()
    governor.sent(T0, 10)
    governor.answered(T0, T0 + 50, 3)
    assert governor.used(T0) == 10
    governor.answered(T0, T0 + 50, 2000)
    assert governor.used(T0) == 2000
    assert governor.wait_ms(T0, 200, Priority.REPAIR) > 0


def test_header_of_the_last_minute_is_not_taken_for_this_one() -> None:
    governor = Governor()
    governor.sent(NEXT - 100, 10)
    governor.sent(NEXT + 100, 10)
    governor.answered(NEXT - 100, NEXT + 120, 2300)
    assert governor.used(NEXT + 120) == 10


def test_limit_of_the_exchange_is_the_measure() -> None:
    governor = Governor(0.9, 0.6)
    governor.limit = 100
    governor.sent(T0, 60)
    assert governor.wait_ms(T0, 1, Priority.BACKFILL) > 0
    assert governor.wait_ms(T0, 30, Priority.LISTINGS) == 0


def test_request_heavier_than_the_share_goes_alone() -> None:
    governor = Governor()
    governor.limit = 20
    assert governor.wait_ms(T0, 40, Priority.LISTINGS) == 0
    governor.sent(T0, 40)
    assert governor.wait_ms(T0, 1, Priority.LISTINGS) > 0


def test_limited_waits_for_retry_after_or_the_next_minute() -> None:
    governor = Governor()
    assert governor.limited(T0, 7) == 7
    assert governor.wait_ms(T0, 1, Priority.REPAIR) == 7000
    assert governor.wait_ms(T0 + 7000, 1, Priority.REPAIR) == 0
    assert governor.limited(T0 + 8000, None) == (NEXT - T0 - 8000) / 1000
    assert governor.wait_ms(NEXT - 1, 1, Priority.REPAIR) == 1


def test_ban_holds_until_it_says() -> None:
    governor = Governor()
    assert governor.banned(T0, T0 + 500_000, 3) == T0 + 500_000
    assert governor.wait_ms(T0 + 499_999, 1, Priority.REPAIR) == 1
    assert governor.banned_until_ms(T0) == T0 + 500_000
    assert governor.banned_until_ms(T0 + 500_000) == 0
    assert governor.banned(T0, None, None) == T0 + 500_000  # a shorter one never shortens it


@pytest.mark.parametrize(("retry_after_s", "expected_ms"), [(None, 120_000), (30, 120_000), (600, 600_000)])
def test_ban_without_an_end_lasts_two_minutes_at_least(retry_after_s: float | None, expected_ms: int) -> None:
    assert Governor().banned(T0, None, retry_after_s) == T0 + expected_ms


def test_no_answer_stops_us_for_longer_than_the_longest_ban() -> None:
    longest_ms = 3 * 86_400_000 + 3_600_000
    assert Governor().banned(T0, 10**15, None) == T0 + longest_ms
    assert Governor().banned(T0, None, 1e12) == T0 + longest_ms
    assert Governor().limited(T0, 1e12) == longest_ms / 1000


def test_clock_that_was_only_guessed_does_not_blind_it() -> None:
    governor = Governor()
    governor.sent(T0 + 500 * MINUTE, 5)  # before the first measurement
    governor.sent(T0, 2160)
    assert governor.wait_ms(T0, 1, Priority.REPAIR) > 0


def test_bans_of_another_process_are_merged() -> None:
    state = GovernorState({5: 100}, blocked_until_ms=10, banned_until_ms=20)
    state.merge(GovernorState({5: 300}, blocked_until_ms=5, banned_until_ms=90), 5)
    assert state == GovernorState({5: 300}, 10, 90)


def test_a_ban_lasts_by_our_own_clock_too() -> None:
    """The time in the message is the exchange's, which nobody knows who is banned before the first answer."""
    governor, fast_ms = Governor(), T0 + 3_600_000
    assert governor.banned(fast_ms, T0 + 600_000, 600.0) == fast_ms + 600_000
    assert governor.banned(T0, T0 + 9_000_000, 600.0) == T0 + 9_000_000


@given(
    st.lists(
        st.tuples(st.integers(0, 20_000), st.sampled_from([1, 2, 5, 10, 20, 40]), st.sampled_from(list(Priority))),
        max_size=300,
    )
)
def test_never_more_than_its_share_in_any_minute(requests: list[tuple[int, int, Priority]]) -> None:
    governor, now, spent = Governor(0.9, 0.6), T0, dict[int, int]()
    for step_ms, weight, priority in requests:
        now += step_ms
        now += governor.wait_ms(now, weight, priority)
        assert governor.wait_ms(now, weight, priority) == 0
        governor.sent(now, weight)
        minute = (now - 200) // MINUTE
        spent[minute] = spent.get(minute, 0) + weight
        assert spent[minute] <= 2160
        if priority is Priority.BACKFILL:
            assert spent[minute] <= 1440
