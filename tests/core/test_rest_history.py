"""Official rows of minutes that have no record: history, backfill, and what late trades do to it."""

from __future__ import annotations

from klshm.core import events as ev
from klshm.shm.layout import NEED_DOUBT, NEED_EMPTY, NEED_UNCONFIRMED
from tests.core.feed import (
    CLOSED,
    CONFIRMED,
    CORRECTED,
    FILLED,
    LIVE,
    MINUTE,
    PARTIAL,
    PROVISIONAL,
    START,
    Feed,
    begun,
    event,
    listed_long_ago,
    quiet,
    volumes,
)


HIGHER = (101, 101, 101, 101)


# Backfill


def test_backfill_is_stored_without_a_log_entry() -> None:
    feed = listed_long_ago()
    feed.rest(7, 2, minute=-20, age_s=100)
    row = feed.bar(-20)
    assert volumes(row) == (7, 2)
    assert (row["state"], row["flags"], row["revision"]) == (CONFIRMED, 0, 1)
    assert len(feed.logged()) == 0
    feed.rest(7, 2, minute=-20, age_s=200)
    assert feed.bar(-20)["revision"] == 1
    feed.rest(0, 0, minute=-21, age_s=900)
    feed.assert_bar(0, 0, -21, state=CONFIRMED, flags=FILLED)


def test_backfill_that_history_cannot_hold_is_left_alone() -> None:
    feed = listed_long_ago()
    feed.rest(7, 2, minute=-127, age_s=100)
    assert feed.stored(START - 127 * MINUTE) is None
    feed.rest(7, 2, minute=-126, age_s=100)
    assert feed.stored(START - 126 * MINUTE) is not None


def test_backfill_that_history_cannot_hold_overwrites_nothing() -> None:
    feed = quiet(history_rows=32)
    held = feed.bar()
    feed.rest(8, 2, age_s=3_000, minute=-32)
    assert feed.bar().tobytes() == held.tobytes()
    assert feed.stored(START - 32 * MINUTE) is None


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
    feed.check()
    assert feed.need()["from_ms"] != START - 20 * MINUTE


def test_a_row_that_was_asked_for_is_logged() -> None:
    feed = listed_long_ago()
    feed.rest(7, 2, minute=-20, age_s=5)
    feed.logged()
    feed.rest(3, 1, minute=-18, age_s=40)
    assert [int(row["open_time"]) for row in feed.logged()] == [START - 18 * MINUTE]


def test_a_row_asked_for_because_nothing_was_known_is_logged() -> None:
    feed = Feed()
    for minute in range(1, 12):
        feed.tick(minute)  # nothing is known, so there is no bar; but it is asked for
    feed.check()
    assert feed.need()["from_ms"] == START and feed.need()["reason"] & NEED_UNCONFIRMED
    feed.rest(8, 2, age_s=600)
    assert [int(row["open_time"]) for row in feed.logged() if row["interval"] == 0] == [START]
    feed.check()
    assert feed.need()["from_ms"] == START + MINUTE


def test_minutes_of_a_symbol_that_has_not_traded_since_it_joined_are_in_no_hurry() -> None:
    feed = Feed(joined_s=None)
    feed.at(49)
    feed.add(0, origin=START - MINUTE)
    feed.rest(7, 2, minute=-1, age_s=100)
    for minute in range(1, 4):
        feed.tick(minute)
    feed.check()
    assert feed.bar(0)["flags"] & FILLED and feed.bar(0)["flags"] & PARTIAL
    assert (feed.need()["from_ms"], feed.need()["reason"]) == (START, NEED_EMPTY)
    feed.trade(1, 10, 10, 1, 185)
    feed.tick(4)
    feed.check()  # the minute it joined in has traded, and what came before that is not known
    assert feed.need()["reason"] == NEED_EMPTY | NEED_UNCONFIRMED
    feed.down(250)
    feed.check()
    assert feed.need()["reason"] & NEED_DOUBT


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


def test_rows_of_before_the_symbol_joined_make_no_bars_but_their_own() -> None:
    feed = Feed(joined_s=None)
    feed.at(5 * 60 + 49)
    feed.add(origin=START - 100 * MINUTE)
    for minute in (2, 0, 3):
        feed.rest(8, 2, age_s=200, minute=minute)
        assert feed.stored(START + (minute + 1) * MINUTE) is None or minute == 0
    for minute in (1, 4):
        feed.rest(9, 2, age_s=61, minute=minute)
    for minute in range(5):
        assert feed.bar(minute)["revision"] == 1
        assert feed.bar(minute)["flags"] == 0
    assert feed.count("corrected_total") == 0


def test_the_close_of_the_newest_row_fills_the_open_minute() -> None:
    feed = Feed()
    feed.tick(1)
    feed.rest(8, 2, age_s=2, prices=(100, 107, 100, 107), quote=830)
    assert feed.live()["close"] == 107
    assert feed.live()["flags"] == FILLED | PARTIAL


# Bars that were closed here


def test_an_old_equal_row_confirms_without_a_correction() -> None:
    feed = quiet(11)
    feed.rest(4, 1, age_s=700)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    before = int(feed.bar()["revision"])
    feed.rest(4, 1, age_s=705)
    assert feed.bar()["revision"] == before


def test_a_corrected_close_moves_the_empty_minutes_behind_it_with_records_and_without() -> None:
    feed = quiet(8)
    feed.rest(4, 1, age_s=600, prices=HIGHER, quote=404)
    assert [float(feed.bar(minute)["close"]) for minute in range(9)] == [101] * 9
    assert [float(feed.bar(minute)["open"]) for minute in range(1, 9)] == [101] * 8
    feed.assert_bar(4, 1, state=CONFIRMED, flags=CORRECTED)
    assert [int(feed.bar(minute)["state"]) for minute in range(9)] == [CONFIRMED] + [CLOSED] * 7 + [LIVE]
    minutes = [int(row["open_time"] - START) // MINUTE for row in feed.logged() if row["interval"] == 0]
    assert sorted(set(minutes)) == list(range(8))


def test_an_old_filled_bar_that_traded_ends_the_correction_of_those_behind_it() -> None:
    feed = quiet(11)
    feed.rest(1, 1, age_s=600, minute=2, prices=(105, 105, 105, 105), quote=105)
    feed.assert_bar(1, 1, 2, state=CONFIRMED, flags=CORRECTED)
    assert feed.bar(1)["close"] == 100
    assert feed.bar(3)["close"] == feed.bar(10)["close"] == feed.live()["close"] == 105
    feed.rest(4, 1, age_s=700, prices=(100, 101, 99, 101))
    assert feed.bar(1)["close"] == 101
    assert feed.bar(3)["close"] == 105


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


def test_a_corrected_close_stops_at_a_record_with_trades_where_history_ends_without() -> None:
    feed = quiet(3)
    feed.trade(2, 11, 11, 1, 181)
    for minute in range(4, 9):
        feed.tick(minute)
        feed.settle(minute)
    feed.rest(4, 1, age_s=600, prices=HIGHER, quote=404)
    assert [float(feed.bar(minute)["close"]) for minute in range(5)] == [101] * 3 + [100] * 2


def test_an_equal_close_moves_nothing() -> None:
    feed = quiet(8)
    feed.rest(5, 2, age_s=600)
    feed.assert_bar(5, 2, state=CONFIRMED, flags=CORRECTED)
    assert [int(row["open_time"]) for row in feed.logged() if row["interval"] == 0] == [START]


def test_a_filled_bar_that_nothing_moves_is_left_alone() -> None:
    feed = quiet(11)
    feed.rest(4, 1, age_s=700)
    assert feed.bar(1)["revision"] == feed.bar(2)["revision"]
    revisions = [int(feed.bar(minute)["revision"]) for minute in range(1, 5)]
    feed.rest(0, 0, age_s=600, minute=1)
    assert [int(feed.bar(minute)["revision"]) for minute in range(2, 5)] == revisions[1:]


def test_without_amending_every_closed_minute_lies_in_history_alone() -> None:
    feed = Feed(amend_minutes=0)
    feed.trade(1, 10, 10, 4, 50.0)
    for minute in (1, 2, 3):
        feed.tick(minute)
    feed.rest(4, 1, age_s=600, prices=HIGHER, quote=404)
    assert [float(feed.bar(minute)["close"]) for minute in range(3)] == [101] * 3


# Late trades, and trades after a silence


def test_a_trade_too_late_for_its_record_leaves_its_bar_partial_until_the_exchange_says_it() -> None:
    feed = quiet(8)
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
    feed = quiet(8)
    feed.rest(4, 1, age_s=600)
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.trade(2, 11, 11, 5, 59.9, sent_s=700)
    feed.assert_bar(4, 1, state=CONFIRMED)


def test_a_contiguous_trade_confirms_the_empty_minutes_that_have_no_record_any_more() -> None:
    feed = quiet(8)
    feed.trade(2, 11, 11, 1, 485)
    assert [int(feed.bar(minute)["state"]) for minute in range(1, 8)] == [CONFIRMED] * 7
    assert [int(feed.bar(minute)["flags"]) for minute in range(1, 8)] == [FILLED] * 7
    assert feed.count("confirmed_empty_total") == 7


def test_a_contiguous_trade_leaves_a_stored_official_bar_alone() -> None:
    feed = quiet(8)
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


def test_a_bar_with_official_trades_is_not_confirmed_empty_whatever_the_ids_say() -> None:
    feed = begun()
    feed.frame(11, 3, 1, first=11, minute=1, sent_s=65)
    for minute in range(1, 15):
        feed.tick(minute)
        feed.settle(minute)
    feed.trade(2, 12, 12, 1, 845)
    feed.assert_bar(3, 1, 1, state=CLOSED)
    assert feed.bar(2)["state"] == CONFIRMED


# Minutes that the exchange has no row of


def no_row(feed: Feed, minute: int) -> None:
    feed.apply(event(kind=ev.NO_ROW, slot=0, open_time=feed.start + minute * MINUTE))


def test_a_minute_the_exchange_has_no_row_of_stays_partial() -> None:
    feed = quiet(20)
    feed.assert_bar(0, 0, 3, state=CLOSED, flags=FILLED)
    feed.logged()
    no_row(feed, 3)
    feed.assert_bar(0, 0, 3, state=CLOSED, flags=FILLED | PARTIAL)
    assert feed.count("no_row_total") == 1
    assert feed.start + 3 * MINUTE in feed.logged()["open_time"]


def test_where_there_is_no_bar_at_all_a_filled_one_stands_in() -> None:
    feed = listed_long_ago()
    for minute in range(1, 20):
        feed.tick(minute)
    no_row(feed, -30)
    assert feed.bar(-30) is None, "without a bar before it there is no price"
    feed.rest(8, 2, age_s=3_000, minute=-31)
    no_row(feed, -30)
    feed.assert_bar(0, 0, -30, state=CLOSED, flags=FILLED | PARTIAL)
    assert float(feed.bar(-30)["open"]) == 100
    feed.rest(7, 1, age_s=3_000, minute=-30)
    feed.assert_bar(7, 1, -30, state=CONFIRMED)


def test_no_row_of_a_young_or_a_confirmed_or_an_unaligned_minute_changes_nothing() -> None:
    feed = quiet(20)
    feed.rest(4, 1, age_s=600)
    held = [feed.bar(minute).tobytes() for minute in (0, 18, 20)]
    for minute in (0, 18, 20, 500, -500):
        no_row(feed, minute)
    feed.apply(event(kind=ev.NO_ROW, slot=0, open_time=feed.start + 3 * MINUTE + 1))
    assert [feed.bar(minute).tobytes() for minute in (0, 18, 20)] == held
    feed.assert_bar(0, 0, 3, state=CLOSED, flags=FILLED)
