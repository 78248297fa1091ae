"""What is known goes into a fresh segment by name and open time, whatever the old one looked like."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm import intervals
from klshm.shm import layout as lay
from klshm.shm.exact import POWERS, nearest, residual, split
from klshm.shm.layout import KLINE
from klshm.shm.view import Clock, PartitionView, read_clock, take_cuts
from klshm.store.remains import remains
from klshm.store.restore import most_minutes
from klshm.store.state import State
from tests.store.engine import MINUTE, Engine, bars
from tests.store.fresh import FIVE, NAMES, OPEN, Fresh, anonymous, fill, layout, old, table


@pytest.fixture
def fresh(engine: Engine) -> Any:
    made: list[Fresh] = []

    def make(symbols: Any, **changes: Any) -> Fresh:
        for earlier in made:
            earlier.segment.unlink()
        made.append(Fresh(symbols, **changes))
        return made[-1]

    yield make
    made[-1].segment.unlink()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("names", [NAMES, tuple(reversed(NAMES))])
def test_every_bar_comes_back_in_other_slots_and_workers(
    engine: Engine, fresh: Any, workers: int, names: tuple[str, ...]
) -> None:
    fill(engine)
    made = fresh(table(*names, workers=workers), workers=workers)
    made.seed(remains(engine.segment, whole=True))
    for name in NAMES:
        for interval in (0, 1):
            history, live = old(engine, name, interval)
            assert len(history) == (90, 20)[interval]
            assert anonymous(made.history(name, interval)) == anonymous(history)
            assert anonymous(made.live(name, interval)) == anonymous(live)
            assert set(made.history(name, interval)["slot"]) == {made.place(name)[2]} == {made.live(name)["slot"]}
    report = made.seeding.report
    assert (report.symbols, report.live_rows, report.closed_rows) == (4, 8, 4 * 110)
    assert (report.not_resumed, report.gaps_minutes) == (0, [0, 0, 0, 0])


def test_the_half_that_readers_find_first_is_seeded_too(engine: Engine, fresh: Any) -> None:
    fill(engine)
    made = fresh(table(*NAMES))
    made.seed(remains(engine.segment, whole=True))
    for view, cut in zip(made.views, take_cuts(made.views), strict=True):
        local = [made.place(name)[1] for name in NAMES if made.place(name)[0] is view]
        assert (cut.rows["state"][local] == lay.STATE_LIVE).all()


def test_a_shorter_history_keeps_the_newest_bars(engine: Engine, fresh: Any) -> None:
    fill(engine)
    made = fresh(table(*NAMES), history_rows=(32, 32))
    made.seed(remains(engine.segment, whole=True))
    history, _ = old(engine, "ETHUSDT")
    assert anonymous(made.history("ETHUSDT")) == anonymous(history[-29:])  # and a place for the open minute


def test_a_longer_history_has_room_for_all(engine: Engine, fresh: Any) -> None:
    fill(engine)
    made = fresh(table(*NAMES), history_rows=(192, 64))
    made.seed(remains(engine.segment, whole=True))
    assert anonymous(made.history("ETHUSDT")) == anonymous(old(engine, "ETHUSDT")[0])


def test_other_intervals_take_what_they_share(engine: Engine, fresh: Any) -> None:
    fill(engine)
    made = fresh(table(*NAMES), interval_codes=tuple(map(intervals.code_of, ("1m", "15m"))))
    made.seed(remains(engine.segment, whole=True))
    assert anonymous(made.history("ETHUSDT")) == anonymous(old(engine, "ETHUSDT")[0])
    assert made.seeding.report.live_rows == 4
    view, local, _ = made.place("ETHUSDT")
    assert view.live_row(local, 1)["open_time"] == 0


def test_a_symbol_that_is_not_taken_leaves_no_row(engine: Engine, fresh: Any) -> None:
    fill(engine)
    made = fresh(table("ETHUSDT", "NEWUSDT"))
    made.seed(remains(engine.segment, whole=True))
    assert made.seeding.report.closed_rows == 110
    assert len(made.history("NEWUSDT")) == 0
    assert made.live("NEWUSDT")["state"] == lay.STATE_EMPTY
    assert made.seeding.report.not_resumed == 1


def test_bars_of_an_earlier_listing_are_not_this_ones(engine: Engine, fresh: Any) -> None:
    fill(engine)
    made = fresh(table("ETHUSDT", "BTCUSDT", onboard_ms=(OPEN - 10 * MINUTE, OPEN + MINUTE)))
    made.seed(remains(engine.segment, whole=True))
    assert (made.history("ETHUSDT")["open_time"] >= OPEN - 10 * MINUTE).all()
    assert len(made.history("ETHUSDT")) == 10
    assert (len(made.history("BTCUSDT")), made.live("BTCUSDT")["state"]) == (0, lay.STATE_EMPTY)


def test_torn_rows(engine: Engine, fresh: Any) -> None:
    """An open bar is taken from the half, partial; a closed one is left to the archive."""
    fill(engine)
    engine.words[engine.live_word(1, "1m")] += 1
    engine.words[engine.live_word(1, "1m") + lay.W_CLOSE] = -1
    view = PartitionView(engine.segment, 1)
    index = view.layout.history_row(0, 0) + (OPEN - MINUTE) // MINUTE % 96
    engine.words[view.layout.history_offset(1) // 8 + index * lay.ROW_WORDS] += 1
    made = fresh(table(*NAMES))
    made.seed(remains(engine.segment, whole=True))
    assert made.live("ETHUSDT")["flags"] == lay.FLAG_PARTIAL
    assert made.live("ETHUSDT")["close"] == made.live("BTCUSDT")["close"]
    assert int(made.history("ETHUSDT")["open_time"][-1]) == OPEN - 2 * MINUTE
    assert len(made.history("ETHUSDT")) == 89


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (lay.W_OPEN_TIME, OPEN - 94 * MINUTE),  # another time than this place is for
        (lay.W_OPEN_TIME, 0),
        (lay.W_REVISION_SLOT, 7 << 32 | 2 << 56),  # another symbol
        (lay.W_REVISION_SLOT, 1 << 32 | 3 << 48 | 2 << 56),  # another interval
        (lay.W_REVISION_SLOT, 1 << 32 | 1 << 56),  # not closed
        (lay.W_FLAGS, 200 << 16),  # decimals
        (lay.W_VOLUME, -1),  # no number
    ],
)
def test_closed_rows_that_cannot_be_are_left(engine: Engine, fresh: Any, word: int, value: int) -> None:
    fill(engine)
    view = PartitionView(engine.segment, 1)
    index = view.layout.history_row(0, 0) + (OPEN - MINUTE) // MINUTE % 96
    engine.words[view.layout.history_offset(1) // 8 + index * lay.ROW_WORDS + word] = value
    made = fresh(table(*NAMES))
    made.seed(remains(engine.segment, whole=True))
    assert made.seeding.report.closed_rows == 4 * 110 - 1
    assert int(made.history("ETHUSDT")["open_time"][-1]) == OPEN - 2 * MINUTE


def test_what_a_snapshot_needs_is_a_part_of_the_whole(engine: Engine, fresh: Any) -> None:
    fill(engine)
    part = remains(engine.segment, whole=False)
    assert part.closed_rows == 4 * (8 + 8)
    made = fresh(table(*NAMES))
    made.seed(part)
    assert anonymous(made.history("ETHUSDT")) == anonymous(old(engine, "ETHUSDT")[0][-8:])
    assert made.seeding.lacking() == []


# Several sources


def known(name: str = "ETHUSDT", *, live: Any = None, closed: Any = None, origin: str = "journal") -> State:
    nothing = np.empty(0, dtype=KLINE)
    return State(origin, table(name), nothing if live is None else live, () if closed is None else (closed,), OPEN)


def test_the_newest_open_bar_wins_and_of_equal_ones_the_first(fresh: Any) -> None:
    made = fresh(table("ETHUSDT"))
    one, two, three = (
        known(live=bars([OPEN + late * MINUTE], state=lay.STATE_LIVE, event_time=event, last_agg_id=a))
        for late, event, a in ((-1, 99, 1), (0, 5, 2), (0, 5, 3))
    )
    made.seed(one, two, three)
    assert made.live("ETHUSDT")["last_agg_id"] == 2
    made = fresh(table("ETHUSDT"))
    newer = known(live=bars([OPEN], state=lay.STATE_LIVE, event_time=6, last_agg_id=4))
    made.seed(one, two, newer)
    assert made.live("ETHUSDT")["last_agg_id"] == 4


WORTH = [
    {"state": lay.STATE_CLOSED, "flags": lay.FLAG_PARTIAL, "revision": 9},
    {"state": lay.STATE_CLOSED, "flags": 0, "revision": 1},
    {"state": lay.STATE_CLOSED, "flags": 0, "revision": 2},
    {"state": lay.STATE_CONFIRMED, "flags": 0, "revision": 1},
    {"state": lay.STATE_CONFIRMED, "flags": 0, "revision": 2},
]


@given(st.lists(st.integers(0, 4), min_size=1, unique=True), st.booleans())
def test_the_best_closed_bar_wins_in_any_order(order: list[int], together: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KLSHM_SHM_DIRECTORY", directory)
        made = Fresh(table("ETHUSDT"))
        rows = np.concatenate([bars([OPEN - MINUTE], **WORTH[number]) for number in order])
        pieces = [rows] if together else [rows[at : at + 1] for at in range(len(rows))]
        made.seed(*(known(closed=piece) for piece in pieces))
        found = made.history("ETHUSDT")
        best = WORTH[max(order)]
        assert {name: int(found[name][0]) for name in best} == best
        made.segment.unlink()


def test_of_two_bars_for_one_place_the_newer_stands(fresh: Any) -> None:
    for times in ([OPEN - 97 * MINUTE, OPEN - MINUTE], [OPEN - MINUTE, OPEN - 97 * MINUTE]):
        made = fresh(table("ETHUSDT"))
        made.seed(*(known(closed=bars([time], state=lay.STATE_CONFIRMED)) for time in times))
        assert made.history("ETHUSDT")["open_time"].tolist() == [OPEN - MINUTE]
    made = fresh(table("ETHUSDT"))
    made.seed(known(closed=bars(times)))
    assert made.history("ETHUSDT")["open_time"].tolist() == [OPEN - MINUTE]


def test_what_is_lacking_is_named_and_can_be_put(fresh: Any) -> None:
    made = fresh(table("ETHUSDT", "NEWUSDT", onboard_ms=(0, OPEN - 2 * MINUTE)))
    made.seed(known(live=bars([OPEN], state=lay.STATE_LIVE), closed=bars([OPEN - 2 * MINUTE])))
    assert made.seeding.lacking() == [
        (0, 0, OPEN - 3 * MINUTE, OPEN - MINUTE),
        (1, 0, OPEN - 2 * MINUTE, OPEN - MINUTE),
        (0, 1, OPEN // FIVE * FIVE - FIVE, OPEN // FIVE * FIVE - FIVE),
    ]
    assert made.seeding.put_rows(1, bars([OPEN - 2 * MINUTE, OPEN - MINUTE], slot=0xFFFF)) == 2
    assert [slot for slot, *_ in made.seeding.lacking()] == [0, 0]
    assert set(made.history("NEWUSDT")["slot"]) == {1}


# Time that has passed


@pytest.mark.parametrize(
    ("minutes", "resumed"), [(0, True), (3, True), (20, True), (-1, True), (-2, False), (600, False), (30240, False)]
)
def test_an_open_minute_that_is_too_old_is_left_out_its_history_is_not(
    engine: Engine, fresh: Any, minutes: int, resumed: bool
) -> None:
    fill(engine)
    made = fresh(table(*NAMES))
    made.seed(remains(engine.segment, whole=True), now_ms=OPEN + minutes * MINUTE + 1)
    assert made.live("ETHUSDT")["open_time"] == (OPEN if resumed else 0)
    assert made.live("ETHUSDT", 1)["open_time"] == (OPEN // FIVE * FIVE if resumed else 0)
    assert len(made.history("ETHUSDT")) == 90
    assert made.seeding.report.gaps_minutes == ([max(minutes, 0)] * 4 if resumed else [])


@pytest.mark.parametrize(
    ("later", "resumed"),
    [((), True), ((0,), True), ((0, 1, 2), True), ((1,), False), ((0, 2), False), ((7, 8), False), ((95,), False)],
)
def test_an_open_minute_behind_later_closed_ones_is_left_out(fresh: Any, later: tuple[int, ...], resumed: bool) -> None:
    """As after a stop and a backfill: the clock would close flat minutes over confirmed ones."""
    made = fresh(table("ETHUSDT", "BTCUSDT"))
    live, closed = bars([OPEN], state=lay.STATE_LIVE), bars([OPEN - MINUTE, *(OPEN + each * MINUTE for each in later)])
    other = known("BTCUSDT", live=live, closed=closed[:1])
    made.seed(known(live=live, closed=closed), other, now_ms=OPEN + 96 * MINUTE)
    assert made.live("ETHUSDT")["open_time"] == (OPEN if resumed else 0)
    assert made.live("BTCUSDT")["open_time"] == OPEN
    assert made.seeding.report.not_resumed == (not resumed)


def test_closing_a_gap_leaves_the_log_room() -> None:
    codes = tuple(map(intervals.code_of, ("1m", "5m", "30m", "4h", "1d", "1w")))
    large = layout(log_rows=65536, interval_codes=codes, history_rows=(96,) * 6)
    assert most_minutes(large, 300) * 300 * 1.24 <= 65536 / 4
    assert 40 <= most_minutes(large, 300) <= 44
    assert most_minutes(large, 1) == 499
    assert most_minutes(layout(log_rows=64), 300) == 5
    assert most_minutes(large, 0) == 499


def test_an_open_bar_of_a_higher_interval_goes_with_its_minute(fresh: Any) -> None:
    made = fresh(table("ETHUSDT"))
    five = bars([OPEN // FIVE * FIVE - FIVE], state=lay.STATE_LIVE, interval="5m")
    made.seed(known(live=bars([OPEN], state=lay.STATE_LIVE)), known(live=five))
    assert made.seeding.report.live_rows == 1


# The clock


def test_the_exchanges_clock_goes_on_with_a_growing_error(fresh: Any) -> None:
    made = fresh(table("ETHUSDT"))
    synced_ns = time.monotonic_ns() - 20_000_000_000
    made.seeding.put_clock(Clock(123, 1000, synced_ns, 77))
    found = read_clock(made.segment)
    assert found is not None
    assert (found.offset_ns, found.synced_ns, found.round_trip_ns) == (123, synced_ns, 77)
    assert found.error_ns >= 1_000_000


@pytest.mark.parametrize("clock", [None, Clock(123, 1000, 1 << 62, 77)])
def test_a_clock_of_another_boot_is_none(fresh: Any, clock: Clock | None) -> None:
    made = fresh(table("ETHUSDT"))
    made.seeding.put_clock(clock)
    assert read_clock(made.segment) is None


# Exact sums


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60), st.integers(0, 4), st.integers(0, 5))
def test_sums_restored_are_sums_stored(quote: int, taker: int, price_decimals: int, quantity_decimals: int) -> None:
    import tempfile

    scale = int(POWERS[price_decimals + quantity_decimals])
    values = [float(nearest(units, scale)) for units in (quote, taker)]
    row = bars([OPEN], state=lay.STATE_LIVE, price_decimals=price_decimals, quantity_decimals=quantity_decimals)
    row["quote_volume"], row["taker_buy_quote_volume"] = values
    row["quote_residual"], row["taker_quote_residual"] = (
        residual(units, value, scale) for units, value in zip((quote, taker), values, strict=True)
    )
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KLSHM_SHM_DIRECTORY", directory)
        made = Fresh(table("ETHUSDT"))
        made.seed(known(live=row))
        found = made.live("ETHUSDT")
        made.segment.unlink()
    units = POWERS[int(found["price_decimals"]) + int(found["quantity_decimals"])]
    assert split(float(found["quote_volume"]), int(units)) + int(found["quote_residual"]) == quote
    assert split(float(found["taker_buy_quote_volume"]), int(units)) + int(found["taker_quote_residual"]) == taker


# Nothing


def test_an_empty_state_is_no_trouble(make_engine: Callable[..., Engine], fresh: Any) -> None:
    nothing = remains(make_engine(symbols=(), instance="none").segment, whole=True)
    assert (len(nothing.symbols), len(nothing.live), nothing.closed_rows) == (0, 0, 0)
    made = fresh(table())
    made.seed(nothing, State.empty("journal"))
    assert made.seeding.report.symbols == 0
    assert made.seeding.lacking() == []
