"""What official rows do to bars: young, old, repeated, of higher intervals, and of minutes long gone."""

from __future__ import annotations

from functools import partial

import pytest

from klshm.core import events as ev
from klshm.core.engine import partition_layout
from tests.core.feed import (
    CLOSED,
    CONFIRMED,
    CORRECTED,
    DERIVED,
    FILLED,
    LATE,
    LIVE,
    MINUTE,
    PARTIAL,
    PROVISIONAL,
    START,
    Feed,
    event,
    volumes,
)


HIGHER = (101, 101, 101, 101)
FIVE = START // (5 * MINUTE) * (5 * MINUTE)


def begun() -> Feed:
    """Minute 0 has a trade of 4 at 100 that an official frame has measured."""
    feed = Feed()
    feed.trade(1, 10, 10, 4, 50.0)
    feed.frame(10, 4, 1)
    return feed


def quiet(minute: int = 8) -> Feed:
    """The same, and nothing but the clock since; minutes that ended more than five ago have no record."""
    feed = begun()
    for each in range(1, minute + 1):
        feed.tick(each)
        feed.settle(each)
    feed.logged()
    return feed


def listed_long_ago() -> Feed:
    """A symbol that is older than its history here, which is empty."""
    feed = Feed(joined_s=None)
    feed.at(49)
    feed.add(0, origin=START - 1000 * MINUTE)
    feed.trade(1, 10, 10, 4, 50.0)
    feed.logged()
    return feed


# Minutes with a record


def test_a_row_of_a_minute_that_is_not_over_is_not_taken() -> None:
    feed = begun()
    feed.rest(9, 2, age_s=-5)
    feed.rest(9, 2, age_s=1)  # over for the exchange, but the clock here has not closed it
    feed.assert_bar(4, 1, state=LIVE)
    assert feed.count("rest_rows_total") == 2
    assert feed.count("rest_adopted_total") == 0


@pytest.mark.parametrize(
    "fields", [{"interval": -1}, {"interval": 6}, {"open_time": 0}, {"open_time": START + 1}, {"open_time": -MINUTE}]
)
def test_a_row_of_no_kept_bar_is_refused(fields: dict[str, int]) -> None:
    feed = quiet()
    there = {"slot": 0, "time": feed.now, "open_time": START, "interval": 0} | fields
    feed.apply(feed.bar_event(ev.REST_ROW, 9, 2, (100, 100, 100, 100), None, **there))
    assert feed.count("refused_total") == 1
    assert feed.count("rest_rows_total") == 0


def test_a_confirmed_minute_changes_when_an_old_row_says_so_twice() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60.1)
    feed.rest(5, 2, age_s=59)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.rest(5, 2, age_s=61)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.rest(6, 2, age_s=62)  # a third opinion is not a repetition
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.rest(5, 2, age_s=70)
    feed.assert_bar(5, 2, state=CONFIRMED, flags=CORRECTED)
    assert feed.count("rest_differs_from_final_total") == 4
    assert feed.count("corrected_total") == 1
    feed.rest(5, 2, age_s=80)
    assert feed.count("rest_differs_from_final_total") == 4


def test_a_young_row_that_differs_is_adopted_and_an_old_one_confirms_at_once() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.rest(9, 2, age_s=5)
    feed.assert_bar(9, 2, state=CLOSED)
    feed.rest(9, 2, age_s=10)  # repeated, but not old enough
    feed.assert_bar(9, 2, state=CLOSED)
    feed.rest(11, 3, age_s=61)
    feed.assert_bar(11, 3, state=CONFIRMED)
    assert feed.count("confirmed_by_rest_total") == 1


def test_a_row_that_lacks_what_a_frame_had_is_stale_until_it_is_the_last_word() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.rest(3, 1, age_s=31)
    feed.assert_bar(4, 1, state=CLOSED)
    assert feed.count("rest_stale_total") == 1
    feed.rest(3, 1, age_s=60)
    feed.assert_bar(3, 1, state=CONFIRMED)


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
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.rest(4, 1, age_s=3)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.trade(2, 11, 11, 5, 59.999, sent_s=63.5)  # beyond it: it cannot belong there
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.assert_bar(5, 1, 1)


def test_an_empty_row_confirms_an_empty_minute_when_it_is_old() -> None:
    feed = quiet(3)
    feed.rest(0, 0, minute=1, age_s=10)
    feed.assert_bar(0, 0, 1, state=CLOSED)
    feed.rest(0, 0, minute=1, age_s=31)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)


def test_the_final_frame_after_an_adopted_row_wins_if_it_holds_more() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.rest(9, 2, age_s=5)
    feed.frame(12, 10, 3, final=True)
    feed.assert_bar(10, 3, state=CONFIRMED)
    assert feed.count("contradictions_total") == 1


def test_the_final_frame_after_an_adopted_row_loses_if_it_holds_less() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.rest(9, 3, age_s=5)
    feed.frame(11, 8, 2, final=True)
    feed.assert_bar(9, 3, state=CLOSED)
    assert feed.count("contradictions_total") == 1
    feed.rest(9, 3, age_s=60)
    feed.assert_bar(9, 3, state=CONFIRMED)


def test_the_final_frame_that_repeats_an_adopted_row_confirms_it() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.rest(9, 2, age_s=5)
    feed.frame(11, 9, 2, final=True)
    feed.assert_bar(9, 2, state=CONFIRMED)
    assert feed.count("contradictions_total") == 0


def test_the_final_frame_tells_a_confirmed_row_its_last_id() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.rest(9, 2, age_s=61)
    feed.assert_bar(9, 2, state=CONFIRMED)
    feed.frame(11, 9, 2, final=True)
    feed.trade(2, 11, 14, 8, 59.9, sent_s=122)
    feed.assert_bar(9, 2, state=CONFIRMED)
    assert volumes(feed.bar(1))[1] == 3  # its tail


def test_a_final_frame_without_trades_agrees_with_an_adopted_empty_row() -> None:
    feed = quiet(2)
    feed.rest(0, 0, minute=1, age_s=5)
    feed.frame(-1, 0, 0, first=-1, minute=1, final=True)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)
    assert feed.count("contradictions_total") == 0


# Minutes without a record


def test_backfill_is_stored_without_a_log_entry() -> None:
    feed = listed_long_ago()
    feed.rest(7, 2, minute=-20, age_s=100)
    row = feed.bar(-20)
    assert volumes(row) == (7, 2)
    assert (row["state"], row["flags"], row["revision"]) == (CONFIRMED, 0, 1)
    assert len(feed.logged()) == 0
    feed.rest(7, 2, minute=-20, age_s=200)
    assert feed.bar(-20)["revision"] == 1


def test_backfill_that_history_cannot_hold_is_left_alone() -> None:
    feed = listed_long_ago()
    feed.rest(7, 2, minute=-127, age_s=100)
    assert feed.stored(START - 127 * MINUTE) is None
    feed.rest(7, 2, minute=-126, age_s=100)
    assert feed.stored(START - 126 * MINUTE) is not None


def test_young_backfill_is_provisional_and_asked_for_again() -> None:
    feed = listed_long_ago()
    feed.rest(7, 2, minute=-20, age_s=5)
    assert (feed.bar(-20)["state"], feed.bar(-20)["flags"]) == (CLOSED, PROVISIONAL)
    feed.check()
    assert feed.need()["from_ms"] == START - 20 * MINUTE
    feed.rest(8, 2, minute=-20, age_s=10)  # it may still move, and so may this one
    assert volumes(feed.bar(-20)) == (7, 2)
    feed.rest(7, 2, minute=-20, age_s=31)
    assert (feed.bar(-20)["state"], feed.bar(-20)["flags"], feed.bar(-20)["revision"]) == (CONFIRMED, 0, 2)


def test_a_row_that_was_asked_for_is_logged() -> None:
    feed = listed_long_ago()
    feed.rest(7, 2, minute=-20, age_s=5)
    feed.logged()
    feed.rest(3, 1, minute=-18, age_s=40)
    assert [int(row["open_time"]) for row in feed.logged()] == [START - 18 * MINUTE]


def test_a_stored_bar_that_the_exchange_confirmed_changes_only_by_an_old_row_twice() -> None:
    feed = listed_long_ago()
    feed.rest(7, 2, minute=-20, age_s=100)
    feed.rest(8, 2, minute=-20, age_s=59)
    feed.rest(8, 2, minute=-20, age_s=61)
    assert volumes(feed.bar(-20)) == (7, 2)
    assert feed.count("rest_differs_from_final_total") == 2
    feed.rest(8, 2, minute=-20, age_s=62)
    assert volumes(feed.bar(-20)) == (8, 2)
    assert (feed.bar(-20)["state"], feed.bar(-20)["flags"]) == (CONFIRMED, CORRECTED)
    assert feed.count("corrected_total") == 1
    assert [volumes(row) for row in feed.logged()] == [(8, 2)]


def test_a_corrected_close_moves_the_empty_minutes_behind_it_with_records_and_without() -> None:
    feed = quiet()
    feed.rest(4, 1, age_s=600, prices=HIGHER, quote=404)
    assert [float(feed.bar(minute)["close"]) for minute in range(9)] == [101] * 9
    assert [int(feed.bar(minute)["state"]) for minute in range(9)] == [CONFIRMED] + [CLOSED] * 7 + [LIVE]
    minutes = [int(row["open_time"] - START) // MINUTE for row in feed.logged() if row["interval"] == 0]
    assert sorted(set(minutes)) == list(range(8))


def test_a_corrected_close_moves_nothing_behind_a_minute_with_trades() -> None:
    feed = quiet(2)
    feed.trade(2, 11, 11, 1, 120.5)
    for minute in range(3, 10):
        feed.tick(minute)
        feed.settle(minute)
    feed.rest(4, 1, age_s=600, prices=HIGHER, quote=404)
    assert [float(feed.bar(minute)["close"]) for minute in range(4)] == [101, 101, 100, 100]


def test_a_corrected_close_stops_at_the_first_record_that_holds_trades() -> None:
    feed = quiet(5)
    feed.trade(2, 11, 11, 1, 301)
    for minute in range(6, 9):
        feed.tick(minute)
        feed.settle(minute)
    feed.rest(4, 1, age_s=600, prices=HIGHER, quote=404)
    assert [float(feed.bar(minute)["close"]) for minute in range(7)] == [101] * 5 + [100] * 2


def test_an_equal_close_moves_nothing() -> None:
    feed = quiet()
    feed.rest(5, 2, age_s=600)
    feed.assert_bar(5, 2, state=CONFIRMED, flags=CORRECTED)
    assert [int(row["open_time"]) for row in feed.logged() if row["interval"] == 0] == [START]


def test_without_amending_every_closed_minute_lies_in_history_alone() -> None:
    feed = Feed(amend_minutes=0)
    feed.trade(1, 10, 10, 4, 50.0)
    for minute in (1, 2, 3):
        feed.tick(minute)
    feed.rest(4, 1, age_s=600, prices=HIGHER, quote=404)
    assert [float(feed.bar(minute)["close"]) for minute in range(3)] == [101] * 3


def test_a_trade_too_late_for_its_record_leaves_its_bar_partial_until_the_exchange_says_it() -> None:
    feed = quiet()
    feed.trade(2, 11, 11, 5, 59.9, sent_s=485)
    feed.assert_bar(4, 1, state=CLOSED)
    assert feed.bar(0)["flags"] & PARTIAL
    revision = feed.bar(0)["revision"]
    feed.trade(3, 12, 12, 5, 59.95, sent_s=485.5)
    assert feed.bar(0)["revision"] == revision
    feed.check()
    assert feed.need()["from_ms"] == START
    feed.rest(14, 3, age_s=600)
    feed.assert_bar(14, 3, state=CONFIRMED, flags=CORRECTED)


def test_a_trade_too_late_changes_no_confirmed_bar() -> None:
    feed = quiet()
    feed.rest(4, 1, age_s=600)
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.trade(2, 11, 11, 5, 59.9, sent_s=700)
    feed.assert_bar(4, 1, state=CONFIRMED)


def test_a_contiguous_trade_confirms_the_empty_minutes_that_have_no_record_any_more() -> None:
    feed = quiet()
    feed.trade(2, 11, 11, 1, 485)
    assert [int(feed.bar(minute)["state"]) for minute in range(1, 8)] == [CONFIRMED] * 7
    assert [int(feed.bar(minute)["flags"]) for minute in range(1, 8)] == [FILLED] * 7
    assert feed.count("confirmed_empty_total") == 7


def test_a_contiguous_trade_leaves_a_stored_official_bar_alone() -> None:
    feed = quiet()
    feed.rest(2, 1, minute=2, age_s=300)
    feed.trade(2, 11, 11, 1, 485)
    feed.assert_bar(2, 1, 2, state=CONFIRMED)


def test_a_contiguous_trade_confirms_the_empty_minutes_of_a_long_silence() -> None:
    feed = quiet(14)
    feed.rest(0, 0, minute=1, age_s=400)
    feed.rest(2, 1, minute=2, age_s=400)
    known = [feed.bar(minute) for minute in (1, 2)]
    feed.trade(2, 11, 11, 1, 845)
    assert [feed.bar(minute) for minute in (1, 2)] == known
    assert [int(feed.bar(minute)["state"]) for minute in range(3, 6)] == [CONFIRMED] * 3
    assert [int(feed.bar(minute)["flags"]) for minute in range(3, 6)] == [FILLED] * 3
    feed.check()
    assert feed.need()["from_ms"] == START


def test_a_contiguous_trade_makes_no_bars_of_minutes_that_never_had_a_price() -> None:
    feed = Feed(joined_s=None)
    feed.at(49)
    feed.add(0, origin=START)
    feed.trade(1, 10, 10, 4, -600)
    feed.tick(7)
    feed.trade(2, 11, 11, 1, 425)
    assert [feed.bar(minute) for minute in range(-10, 7)] == [None] * 17
    feed.assert_bar(1, 1, 7, state=LIVE)


# Higher intervals


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


def test_an_official_row_of_a_higher_interval_corrects_a_fold_that_differs() -> None:
    feed = folded()
    feed.rest(6, 6, interval="5m", age_s=31)
    row = feed.bar(0, "5m")
    assert volumes(row) == (6, 6)
    assert (row["state"], row["flags"]) == (CONFIRMED, CORRECTED)
    assert (feed.count("folds_compared_total"), feed.count("folds_equal_total")) == (1, 0)


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
    assert feed.stored(opened, "5m")["state"] == CONFIRMED


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


def test_a_row_of_a_higher_interval_that_is_not_over_here_is_not_taken() -> None:
    feed = begun()
    feed.rest(9, 9, interval="5m", open_time=FIVE, age_s=1)
    assert feed.stored(FIVE, "5m") is None


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


def test_an_official_row_that_cannot_be_is_refused() -> None:
    feed = quiet()
    there = {"slot": 0, "time": feed.now, "open_time": START, "interval": 0}
    feed.apply(feed.bar_event(ev.REST_ROW, 9, 2, (100, 99, 100, 100), None, **there))
    assert (feed.count("refused_total"), feed.count("rest_rows_total")) == (1, 0)


def test_a_corrected_close_stops_at_a_record_with_trades_where_history_ends_without() -> None:
    feed = quiet(3)
    feed.trade(2, 11, 11, 1, 181)
    for minute in range(4, 9):
        feed.tick(minute)
        feed.settle(minute)
    feed.rest(4, 1, age_s=600, prices=HIGHER, quote=404)
    assert [float(feed.bar(minute)["close"]) for minute in range(5)] == [101] * 3 + [100] * 2


def test_a_bar_with_official_trades_is_not_confirmed_empty_whatever_the_ids_say() -> None:
    feed = begun()
    feed.frame(11, 3, 1, first=11, minute=1, sent_s=65)
    for minute in range(1, 15):
        feed.tick(minute)
        feed.settle(minute)
    feed.trade(2, 12, 12, 1, 845)
    feed.assert_bar(3, 1, 1, state=CLOSED)
    assert feed.bar(2)["state"] == CONFIRMED


def test_a_bar_whose_minutes_are_gone_is_not_folded_anew() -> None:
    feed = listed_long_ago()
    oldest = START - 126 * MINUTE
    opened = oldest // (5 * MINUTE) * (5 * MINUTE)
    assert opened < oldest
    feed.rest(9, 9, interval="5m", open_time=opened, age_s=5)
    feed.rest(1, 1, minute=-126, age_s=600)
    assert volumes(feed.stored(opened, "5m")) == (9, 9)


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
