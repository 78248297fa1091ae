"""Official rows of minutes that have a record: too young, old enough, the last word; beside final frames."""

from __future__ import annotations

import pytest

from klshm.core import events as ev
from tests.core.feed import (
    CLOSED,
    CONFIRMED,
    CORRECTED,
    FILLED,
    LIVE,
    MINUTE,
    MONDAY,
    PROVISIONAL,
    START,
    Feed,
    begun,
    quiet,
    volumes,
)


@pytest.mark.parametrize(("age_s", "state"), [(2.4, CLOSED), (2.5, CONFIRMED)])
def test_an_equal_row_confirms_when_it_is_old_enough(age_s: float, state: int) -> None:
    feed = quiet()
    feed.rest(4, 1, age_s=age_s)
    feed.assert_bar(4, 1, state=state)
    assert feed.count("rest_adopted_total") == 0
    assert feed.count("confirmed_by_rest_total") == (state == CONFIRMED)


@pytest.mark.parametrize(("age_s", "state"), [(29.9, CLOSED), (30, CONFIRMED)])
def test_a_different_row_is_adopted_and_confirmed_when_an_old_one_repeats_it(age_s: float, state: int) -> None:
    feed = quiet()
    feed.rest(5, 2, age_s=3)
    feed.assert_bar(5, 2, state=CLOSED, flags=PROVISIONAL | CORRECTED)
    assert feed.count("rest_adopted_total") == 1
    feed.rest(5, 2, age_s=age_s)
    feed.assert_bar(5, 2, state=state)


def test_an_adopted_row_that_moves_is_adopted_again() -> None:
    feed = quiet()
    feed.rest(5, 2, age_s=3)
    feed.rest(6, 3, age_s=31)
    feed.assert_bar(6, 3, state=CLOSED)
    feed.rest(6, 3, age_s=36)
    feed.assert_bar(6, 3, state=CONFIRMED, flags=CORRECTED)


def test_a_row_of_a_minute_is_the_last_word() -> None:
    feed = quiet()
    feed.rest(5, 2, age_s=60)
    feed.assert_bar(5, 2, state=CONFIRMED, flags=CORRECTED)


def test_the_last_word_confirms_at_once_though_another_was_adopted() -> None:
    feed = quiet()
    feed.rest(9, 2, age_s=5)
    feed.assert_bar(9, 2, state=CLOSED)
    feed.rest(9, 2, age_s=10)  # repeated, but not old enough
    feed.assert_bar(9, 2, state=CLOSED)
    feed.rest(11, 3, age_s=61)
    feed.assert_bar(11, 3, state=CONFIRMED)
    assert feed.count("confirmed_by_rest_total") == 1


@pytest.mark.parametrize("v", [3.9, 4])
def test_a_row_behind_the_frame_is_stale_until_it_is_the_last_word(v: float) -> None:
    feed = quiet()
    feed.trade(2, 11, 11, 1, 59.9)
    feed.frame(11, 5, 2)
    feed.rest(v, 1, age_s=31)
    feed.assert_bar(5, 2, state=CLOSED)
    assert feed.count("rest_stale_total") == 1
    feed.rest(v, 1, age_s=60)
    feed.assert_bar(v, 1, state=CONFIRMED)


def test_an_equal_row_takes_the_doubt_but_waits_to_confirm() -> None:
    feed = quiet()
    feed.down(60.5)
    feed.tick(2)
    feed.down(59.5)
    assert feed.count("doubts_total") == 1
    feed.rest(0, 0, age_s=3, minute=1)
    feed.assert_bar(0, 0, 1, state=CLOSED, flags=FILLED | PROVISIONAL)
    feed.rest(0, 0, age_s=31, minute=1)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)


def test_an_equal_row_confirms_a_partial_minute_only_when_it_is_old() -> None:
    feed = begun()
    feed.down(55)
    feed.tick(1)
    feed.settle(1)
    feed.rest(4, 1, age_s=5)
    feed.assert_bar(4, 1, state=CLOSED)
    feed.rest(4, 1, age_s=30)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)


def test_an_equal_row_keeps_the_id_that_the_last_frame_gave() -> None:
    feed = quiet()
    feed.rest(4, 1, age_s=3)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.trade(2, 11, 11, 5, 59.999, sent_s=63.5)  # beyond it: it cannot belong there
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.assert_bar(5, 1, 1)


def test_a_row_of_a_partial_minute_keeps_its_id_only_when_it_confirms() -> None:
    feed = quiet()
    feed.down(60.2)
    feed.rest(4, 1, age_s=31)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.trade(2, 11, 11, 5, 59.99)  # its id lies beyond the last one of the minute
    feed.assert_bar(4, 1)
    feed.assert_bar(5, 1, 1)


def test_an_empty_row_confirms_an_empty_minute_when_it_is_old() -> None:
    feed = quiet(3)
    feed.rest(0, 0, minute=1, age_s=10)
    feed.assert_bar(0, 0, 1, state=CLOSED)
    feed.rest(0, 0, minute=1, age_s=31)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)


def test_a_row_of_a_minute_that_is_not_over_is_not_taken() -> None:
    feed = begun()
    feed.rest(9, 2, age_s=-5)
    feed.rest(9, 2, age_s=1)  # over for the exchange, but the clock here has not closed it
    feed.assert_bar(4, 1, state=LIVE)
    assert feed.count("rest_rows_total") == 2
    assert feed.count("rest_adopted_total") == 0


def test_a_row_read_before_the_end_of_its_minute_says_nothing() -> None:
    feed = quiet()
    feed.tick(2)
    feed.rest(9, 9, age_s=-1, minute=1)
    feed.assert_bar(0, 0, 1)


@pytest.mark.parametrize(
    "fields", [{"interval": -1}, {"interval": 6}, {"open_time": 0}, {"open_time": START + 1}, {"open_time": -MINUTE}]
)
def test_a_row_of_no_kept_bar_is_refused(fields: dict[str, int]) -> None:
    feed = quiet(8)
    there = {"slot": 0, "time": feed.now, "open_time": START, "interval": 0} | fields
    feed.apply(feed.bar_event(ev.REST_ROW, 9, 2, (100, 100, 100, 100), None, **there))
    assert feed.count("refused_total") == 1
    assert feed.count("rest_rows_total") == 0


def test_an_official_row_that_cannot_be_is_refused() -> None:
    feed = quiet(8)
    there = {"slot": 0, "time": feed.now, "open_time": START, "interval": 0}
    feed.apply(feed.bar_event(ev.REST_ROW, 9, 2, (100, 99, 100, 100), None, **there))
    assert (feed.count("refused_total"), feed.count("rest_rows_total")) == (1, 0)


# Final frames and adopted rows


def test_a_frame_that_is_not_final_says_nothing_beside_an_adopted_row() -> None:
    feed = quiet()
    feed.rest(5, 2, age_s=3)
    feed.frame(12, 6, 3)
    feed.assert_bar(5, 2, state=CLOSED)
    assert feed.count("contradictions_total") == 0


def test_a_final_frame_confirms_an_adopted_row_that_it_equals() -> None:
    feed = quiet()
    feed.rest(5, 2, age_s=3)
    feed.frame(11, 5, 2, final=True)
    feed.assert_bar(5, 2, state=CONFIRMED)
    assert feed.count("contradictions_total") == 0


def test_a_final_frame_with_more_trades_beats_an_adopted_row() -> None:
    feed = quiet()
    feed.rest(5, 2, age_s=3)
    feed.frame(12, 6, 3, final=True)
    feed.assert_bar(6, 3, state=CONFIRMED)
    assert feed.count("contradictions_total") == 1


def test_an_adopted_row_with_more_trades_beats_a_final_frame() -> None:
    feed = quiet()
    feed.rest(6, 3, age_s=3)
    feed.frame(11, 5, 2, final=True)
    feed.assert_bar(6, 3, state=CLOSED)
    assert feed.count("contradictions_total") == 1
    feed.check()
    assert feed.need()["from_ms"] == START
    feed.rest(6, 3, age_s=60)
    feed.assert_bar(6, 3, state=CONFIRMED)


def test_a_confirmed_row_learns_its_last_id_from_an_equal_final_frame() -> None:
    feed = quiet()
    feed.trade(2, 11, 14, 10, 59.98)
    feed.rest(10, 3, age_s=60)
    feed.assert_bar(10, 3, state=CONFIRMED)
    feed.frame(12, 10, 3, final=True)
    feed.assert_bar(10, 3, state=CONFIRMED)
    feed.assert_bar(4, 2, 1)  # the rest of the group
    feed.frame(13, 11, 4, final=True)
    assert feed.count("contradictions_total") == 1


def test_the_final_frame_tells_a_confirmed_row_its_last_id() -> None:
    feed = quiet()
    feed.rest(9, 2, age_s=61)
    feed.assert_bar(9, 2, state=CONFIRMED)
    feed.frame(11, 9, 2, final=True)
    feed.trade(2, 11, 14, 8, 59.9, sent_s=122)
    feed.assert_bar(9, 2, state=CONFIRMED)
    assert volumes(feed.bar(1))[1] == 3  # its tail


def test_an_adopted_empty_row_gives_way_to_an_empty_final_frame() -> None:
    feed = quiet()
    feed.down(60.5)
    feed.tick(2)
    feed.rest(0, 0, age_s=3, minute=1)
    feed.frame(-1, 0, 0, first=-1, minute=1, final=True)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)
    assert feed.count("confirmed_empty_total") == 1


def test_a_final_frame_without_trades_agrees_with_an_adopted_empty_row() -> None:
    feed = quiet(2)
    feed.rest(0, 0, minute=1, age_s=5)
    feed.frame(-1, 0, 0, first=-1, minute=1, final=True)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)
    assert feed.count("contradictions_total") == 0


# Confirmed bars


def confirmed_minute() -> Feed:
    feed = quiet()
    feed.frame(10, 4, 1, final=True)
    return feed


def test_a_confirmed_bar_changes_only_when_an_old_row_says_so_twice() -> None:
    feed = confirmed_minute()
    feed.rest(5, 2, age_s=59)
    feed.rest(5, 2, age_s=59.5)
    feed.rest(5, 2, age_s=60)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.rest(6, 3, age_s=65)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.rest(5, 2, age_s=70)
    feed.assert_bar(5, 2, state=CONFIRMED, flags=CORRECTED)
    assert feed.count("rest_differs_from_final_total") == 5
    assert feed.count("corrected_total") == 1
    feed.rest(5, 2, age_s=80)
    assert feed.count("rest_differs_from_final_total") == 5


def test_an_equal_row_changes_nothing_of_a_confirmed_bar() -> None:
    feed = confirmed_minute()
    feed.logged()
    feed.rest(4, 1, age_s=70)
    assert len(feed.logged()) == 0


def test_a_minute_proven_empty_is_overruled_likewise() -> None:
    feed = confirmed_minute()
    feed.tick(2)
    feed.trade(2, 11, 11, 1, 130)
    feed.assert_bar(0, 0, 1, state=CONFIRMED)
    feed.rest(2, 1, age_s=70, minute=1, prices=(101, 101, 101, 101), quote=202)
    feed.rest(2, 1, age_s=75, minute=1, prices=(101, 101, 101, 101), quote=202)
    feed.assert_bar(2, 1, 1, state=CONFIRMED, flags=CORRECTED)


def test_contradictions_of_several_bars_are_remembered_side_by_side() -> None:
    feed = Feed(start=MONDAY)
    feed.now += 60 * MINUTE
    for minute in range(1, 61):
        feed.tick(minute)
    for minute in range(3):
        feed.rest(2, 1, age_s=900, minute=minute)
    for _ in range(2):
        for minute in range(3):
            feed.rest(3, 2, age_s=900, minute=minute)
    assert [volumes(feed.bar(minute)) for minute in range(3)] == [(3, 2)] * 3
