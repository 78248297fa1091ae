from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klshm.sim.bars import fold
from klshm.sim.history import BlockCache, History
from klshm.sim.intervals import DAY_MS, INTERVALS, MINUTE_MS, next_open_ms, open_ms
from tests.sim.helpers import START_MS, specs


LISTED = [spec for spec in specs(16, 100.0) if spec.status == "TRADING"]
MINUTE = START_MS - START_MS % MINUTE_MS
# What each interval is checked against: itself in 1m rows up to a day, days above.
FINE = {interval: "1m" if 0 < length <= DAY_MS else "1d" for interval, length in INTERVALS.items()}
PLACES = st.integers(0, len(LISTED) - 1)


def history(place: int, seed: int = 1) -> History:
    return History(LISTED[place], seed, MINUTE)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, len(LISTED) - 1), st.sampled_from(sorted(INTERVALS)), st.integers(0, 3), st.integers(0, 40 * DAY_MS)
)
def test_every_row_is_the_fold_of_finer_rows(place: int, interval: str, seed: int, age_ms: int) -> None:
    book = history(place, seed)
    at_ms = max(book.first_ms, MINUTE - 1 - age_ms)
    opened = open_ms(interval, at_ms)
    row = book.bars(interval, [opened])[0]
    fine = FINE[interval]
    stop_ms = min(next_open_ms(interval, opened), book.end_ms)
    opens = [open_ms(fine, max(opened, book.first_ms))]
    while next_open_ms(fine, opens[-1]) < stop_ms:
        opens.append(next_open_ms(fine, opens[-1]))
    if fine == "1m" or (opens[0] >= opened and next_open_ms(fine, opens[-1]) <= book.end_ms):
        assert fold(opened, book.bars(fine, opens)).cells() == row.cells()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, len(LISTED) - 1), st.integers(0, 20))
def test_rows_are_possible(place: int, days: int) -> None:
    book = history(place)
    first = max(book.first_ms, MINUTE - (days + 1) * DAY_MS)
    bars = book.bars("1m", list(range(first, min(first + 600 * MINUTE_MS, MINUTE), MINUTE_MS)))
    for before, bar in zip([bars[0], *bars], bars, strict=False):
        assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
        assert 0 <= bar.taker_volume <= bar.volume and 0 <= bar.taker_quote <= bar.quote
        assert bar.volume >= bar.count
        if bar.count == 0:
            assert bar.cells() == (before.close,) * 4 + (0,) * 5 if bar is not bars[0] else True
        if bar.count == 1:
            assert bar.open == bar.high == bar.low == bar.close
        if bar.count == 2:
            assert {bar.high, bar.low} == {max(bar.open, bar.close), min(bar.open, bar.close)}
        assert all(price % book.spec.tick == 0 for price in bar.cells()[:4])


def test_request_order_does_not_matter() -> None:
    opens = list(range(MINUTE - 3 * DAY_MS, MINUTE, 30 * MINUTE_MS))
    opens = [open_ms("30m", at) for at in opens]
    forward, small = history(0), History(LISTED[0], 1, MINUTE, BlockCache(limit_bytes=1))
    forward.bars("1w", [open_ms("1w", MINUTE)])
    backward = [small.bars("30m", [at])[0].cells() for at in reversed(opens)]
    assert [bar.cells() for bar in forward.bars("30m", opens)] == backward[::-1]
    assert history(0, seed=2).bars("30m", opens)[0].cells() != backward[-1]


def test_first_row_begins_at_the_bucket_of_the_first_trade() -> None:
    book = history(3)
    assert book.spec.onboard_ms < book.first_ms <= book.spec.onboard_ms + 16 * MINUTE_MS
    for interval in INTERVALS:
        row = book.bars(interval, [open_ms(interval, book.first_ms)])[0]
        assert row.open_time == open_ms(interval, book.first_ms)
    with pytest.raises(ValueError, match="no historic minute"):
        book.fold(0, book.first_ms - DAY_MS, book.first_ms)


def test_quiet_symbols_have_empty_minutes_and_prices_continue() -> None:
    book = history(min(range(len(LISTED)), key=lambda place: LISTED[place].trades_per_s))
    bars = book.bars("1m", list(range(MINUTE - DAY_MS // 2, MINUTE, MINUTE_MS)))
    assert sum(bar.count == 0 for bar in bars) > 100
    assert bars[-1].close == book.close_at_end()
    busy = history(0).bars("1m", list(range(MINUTE - DAY_MS, MINUTE, MINUTE_MS)))
    for before, bar in zip(busy, busy[1:], strict=False):
        assert abs(bar.open - before.close) < before.close // 200
