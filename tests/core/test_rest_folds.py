"""Official rows of higher intervals, and what rows of minutes do to the folds above them."""

from __future__ import annotations

from functools import partial

import pytest

from klshm import intervals
from klshm.core import events as ev
from klshm.core.engine import partition_layout
from tests.core.feed import (
    CLOSED,
    CONFIRMED,
    CORRECTED,
    DERIVED,
    LATE,
    MINUTE,
    MONDAY,
    PROVISIONAL,
    START,
    Feed,
    begun,
    event,
    listed_long_ago,
    volumes,
)


FIVE = START // (5 * MINUTE) * (5 * MINUTE)


def folded() -> Feed:
    """Five minutes with one trade each, closed and folded."""
    feed = Feed(joined_s=None, start=FIVE)
    feed.add()
    for minute in range(5):
        feed.trade(1 + minute, 10 + minute, 10 + minute, 1, minute * 60 + 1)
    feed.tick(5)
    feed.settle(5)
    feed.logged()
    return feed


def five_minutes() -> tuple[Feed, int]:
    feed = Feed(start=MONDAY)
    feed.trade(1, 10, 10, 4, 50.0)
    feed.frame(10, 4, 1)
    feed.frame(10, 4, 1, final=True, sent_s=60)
    for minute in range(1, 6):
        feed.tick(minute)
    feed.settle(5)
    return feed, MONDAY


def test_an_official_row_of_a_higher_interval_takes_the_place_of_an_equal_fold() -> None:
    feed = folded()
    assert feed.bar(0, "5m")["flags"] & DERIVED
    feed.rest(5, 5, interval="5m", age_s=5)
    assert feed.bar(0, "5m")["flags"] & DERIVED
    feed.rest(5, 5, interval="5m", age_s=31)
    row = feed.bar(0, "5m")
    assert (row["state"], row["flags"]) == (CONFIRMED, 0)
    assert (feed.count("folds_compared_total"), feed.count("folds_equal_total")) == (1, 1)
    assert len(feed.logged()) == 1
    feed.rest(5, 5, interval="5m", age_s=35)
    assert feed.bar(0, "5m")["revision"] == row["revision"]


def test_an_official_row_of_a_higher_interval_corrects_a_fold_that_differs() -> None:
    feed = folded()
    feed.rest(6, 6, interval="5m", age_s=31)
    row = feed.bar(0, "5m")
    assert volumes(row) == (6, 6)
    assert (row["state"], row["flags"]) == (CONFIRMED, CORRECTED)
    assert (feed.count("folds_compared_total"), feed.count("folds_equal_total")) == (1, 0)


def test_a_young_row_does_not_freeze_a_fold() -> None:
    feed, opened = five_minutes()
    feed.rest(3, 1, age_s=1, interval="5m")
    assert volumes(feed.stored(opened, "5m")) == (4, 1)


def test_a_confirmed_fold_is_overruled_only_when_said_twice_and_then_for_good() -> None:
    feed, opened = five_minutes()
    feed.trade(2, 11, 11, 1, 310)
    assert feed.stored(opened, "5m")["state"] == CONFIRMED
    feed.rest(9, 5, age_s=70, interval="5m")
    assert volumes(feed.stored(opened, "5m")) == (4, 1)
    feed.rest(9, 5, age_s=80, interval="5m")
    row = feed.stored(opened, "5m")
    assert volumes(row) == (9, 5)
    assert (row["state"], row["flags"]) == (CONFIRMED, CORRECTED)
    feed.rest(5, 2, age_s=700)
    feed.rest(5, 2, age_s=705)
    feed.assert_bar(5, 2)
    assert volumes(feed.stored(opened, "5m")) == (9, 5)  # the children cannot overrule it


def test_a_confirmed_official_bar_is_not_folded_anew_from_its_minutes() -> None:
    feed = folded()
    feed.rest(6, 6, interval="5m", age_s=31)
    feed.rest(2, 2, minute=4, age_s=61)
    feed.assert_bar(2, 2, 4)
    assert volumes(feed.bar(0, "5m")) == (6, 6)


def test_a_young_official_bar_is_folded_anew_once_all_its_minutes_are_there() -> None:
    feed = listed_long_ago()
    opened = FIVE - 6 * 5 * MINUTE
    first = (opened - START) // MINUTE
    feed.rest(9, 9, interval="5m", open_time=opened, age_s=5)
    assert feed.stored(opened, "5m")["flags"] == PROVISIONAL
    for minute in range(first, first + 5):
        assert volumes(feed.stored(opened, "5m")) == (9, 9)
        feed.rest(1, 1, minute=minute, age_s=400)
    assert volumes(feed.stored(opened, "5m")) == (5, 5)
    assert (feed.stored(opened, "5m")["state"], feed.stored(opened, "5m")["flags"]) == (CONFIRMED, DERIVED)


def test_a_bar_whose_minutes_are_gone_is_not_folded_anew() -> None:
    feed = listed_long_ago()
    oldest = START - 126 * MINUTE
    opened = oldest // (5 * MINUTE) * (5 * MINUTE)
    assert opened < oldest
    feed.rest(9, 9, interval="5m", open_time=opened, age_s=5)
    feed.rest(1, 1, minute=-126, age_s=600)
    assert volumes(feed.stored(opened, "5m")) == (9, 9)


def test_a_row_of_an_open_interval_is_left_out() -> None:
    feed, opened = five_minutes()
    feed.rest(9, 5, age_s=1, interval="30m")
    assert feed.stored(opened, "30m") is None


def test_a_row_of_a_higher_interval_that_is_not_over_here_is_not_taken() -> None:
    feed = begun()
    feed.rest(9, 9, interval="5m", open_time=FIVE, age_s=1)
    assert feed.stored(FIVE, "5m") is None


# Folds of backfilled and changed minutes


def test_backfilled_minutes_fold_into_the_bars_above_them_once_they_are_all_there() -> None:
    feed = listed_long_ago()
    opened = FIVE - 6 * 5 * MINUTE
    first = (opened - START) // MINUTE
    for minute in range(first, first + 4):
        feed.rest(1, 1, minute=minute, age_s=1000)
    assert feed.stored(opened, "5m") is None
    feed.rest(1, 1, minute=first + 4, age_s=1000)
    row = feed.stored(opened, "5m")
    assert volumes(row) == (5, 5)
    assert (row["state"], row["flags"]) == (CONFIRMED, DERIVED)


def test_the_origin_lets_folds_do_without_minutes_that_never_were() -> None:
    feed = listed_long_ago()
    opened = FIVE - 6 * 5 * MINUTE
    first = (opened - START) // MINUTE
    for minute in range(first + 3, first + 5):
        feed.rest(1, 1, minute=minute, age_s=1000)
    assert feed.stored(opened, "5m") is None
    feed.apply(event(kind=ev.SYMBOL_ORIGIN, open_time=opened + 3 * MINUTE))
    feed.rest(2, 2, minute=first + 4, age_s=1000)
    feed.rest(2, 2, minute=first + 4, age_s=1001)
    row = feed.stored(opened, "5m")
    assert volumes(row) == (3, 3)
    assert (row["state"], row["flags"]) == (CONFIRMED, DERIVED)


def test_intervals_that_are_no_multiples_of_each_other_fold_from_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.core.feed.partition_layout", partial(partition_layout, kept=("1m", "3m", "5m")))
    feed = Feed(joined_s=None, start=FIVE // (15 * MINUTE) * (15 * MINUTE))
    feed.add()
    for minute in range(15):
        feed.trade(1 + minute, 10 + minute, 10 + minute, 1, minute * 60 + 1)
    feed.tick(15)
    feed.settle(15)
    assert [volumes(feed.bar(minute, "3m")) for minute in range(0, 15, 3)] == [(3, 3)] * 5
    assert [volumes(feed.bar(minute, "5m")) for minute in range(0, 15, 5)] == [(5, 5)] * 3
    feed.rest(2, 2, minute=4, age_s=700)
    assert [volumes(feed.bar(4, interval)) for interval in ("3m", "5m")] == [(4, 4), (6, 6)]
    feed.rest(7, 7, interval="3m", minute=3, age_s=900)
    assert [volumes(feed.bar(4, interval)) for interval in ("3m", "5m")] == [(7, 7), (6, 6)]


def test_a_settled_bar_that_is_only_less_provisional_is_shown_and_not_logged() -> None:
    feed = Feed(joined_s=None, start=FIVE)
    feed.add()
    feed.trade(1, 10, 10, 4, 1)
    feed.trade(2, 11, 14, 10, 241)
    feed.tick(5)
    feed.settle(5)
    assert feed.bar(4)["flags"] == PROVISIONAL
    assert feed.bar(4, "5m")["flags"] & PROVISIONAL
    feed.logged()
    feed.frame(14, 10, 4, first=11, minute=4)
    feed.assert_bar(10, 4, 4, state=CLOSED, flags=0)
    assert len(feed.logged()) == 0
    feed.tick(6)
    assert not [row for row in feed.logged() if row["open_time"] == feed.start + 4 * MINUTE]


def test_a_late_change_that_settling_does_not_alter_is_logged_when_it_settles() -> None:
    feed = Feed(joined_s=None, start=FIVE)
    feed.add()
    feed.trade(1, 10, 10, 4, 1)
    feed.trade(2, 11, 11, 1, 241)
    feed.tick(5)
    feed.logged()
    feed.trade(3, 12, 15, 10, 299.9, sent_s=300.1)  # it may reach over the end: provisional, settled or not
    assert len(feed.logged()) == 0
    feed.settle(5)
    assert [(int(row["interval"]), *volumes(row)) for row in feed.logged()] == [
        (feed.layout.interval_codes[0], 11, 5),
        (feed.layout.interval_codes[1], 15, 6),
    ]


@pytest.mark.parametrize(("final", "flag"), [(False, LATE), (True, CORRECTED)])
def test_a_fold_that_changes_after_it_settled_says_so(final: bool, flag: int) -> None:
    feed = Feed(joined_s=None, start=FIVE)
    feed.add()
    feed.trade(1, 10, 10, 4, 1)
    for minute in range(1, 6):
        feed.tick(minute)
        feed.settle(minute)
    assert feed.bar(0, "5m")["flags"] & (LATE | CORRECTED) == 0
    if final:
        for minute in range(5):
            feed.rest(5, 2, age_s=600, minute=minute)
    else:
        feed.trade(2, 11, 11, 1, 299)
    assert feed.bar(0, "5m")["state"] == (CONFIRMED if final else CLOSED)
    assert feed.bar(0, "5m")["flags"] & (LATE | CORRECTED) == flag


def test_a_fold_of_minutes_read_by_rest_is_in_the_log_before_the_worker_can_die() -> None:
    feed = Feed(joined_s=None, start=MONDAY)
    feed.at(40 * 60 + 20)
    feed.add()
    for minute in range(40):
        feed.rest(5, 2, age_s=120, minute=minute)
    logged = feed.logged()
    for name, length in (("5m", 5), ("30m", 30)):
        code = intervals.code_of(name)
        opened = [MONDAY + minute * MINUTE for minute in range(0, 40 // length * length, length)]
        assert all(feed.stored(open_time, name) is not None for open_time in opened)
        assert [int(row["open_time"]) for row in logged if row["interval"] == code] == opened
    feed.tick(41)
    assert not [row for row in feed.logged() if row["interval"] == intervals.code_of("5m")]


def test_a_minute_that_only_a_late_trade_tells_of_is_logged_at_once_and_once() -> None:
    feed = Feed()
    feed.tick(1)
    assert feed.stored(START) is None
    feed.trade(1, 10, 10, 4, 58.0, sent_s=60.4)
    feed.assert_bar(4, 1, state=CLOSED)
    assert [volumes(row) for row in feed.logged() if row["interval"] == 0] == [(4, 1)]
    feed.settle(1)
    assert len(feed.logged()) == 0
