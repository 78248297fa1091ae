"""Whatever comes in whatever order: nothing is ever confirmed wrong, and in the end all is right.

Markets of the oracle, with groups across minute ends, ids that are skipped and minutes without
trades, run over the end of a week, so that all six intervals end.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from klshm import intervals
from klshm.core import events as ev
from klshm.core import state as st
from klshm.shm.compile import COMPILED
from tests.core.feed import CONFIRMED, FILLED, MINUTE, MONDAY, PARTIAL, PROVISIONAL, event
from tests.core.oracle import Frame, Group, Market, Taste
from tests.core.play import INTERVALS, Arrivals, Play, by_arrival, merged


RUNS = int(os.environ.get("KLSHM_TEST_RUNS", 20 if COMPILED else 4))
"""Random runs of each kind; set the variable for a longer search."""
SLOW = 20_000


def market_of(rng: random.Random, **changes: float) -> Market:
    taste = Taste(
        rate=rng.choice((0.05, 0.3, 1.0)),
        sweep=rng.random() * 0.7,
        deep=rng.random() * 0.6,
        crossing=rng.random(),
        quiet=rng.random() * 0.6,
        skip=rng.choice((0, 0.02, 0.2)),
    )
    for name, value in changes.items():
        setattr(taste, name, value)
    return Market.made(rng, MONDAY - 7 * MINUTE, 8, taste)


Streams = tuple[list[Group], list[Frame]]


def in_order(rng: random.Random, streams: Streams) -> Arrivals:
    return by_arrival(rng, streams[0], 10, 3) + by_arrival(rng, streams[1], 10, 3)


def late_finals(rng: random.Random, streams: Streams) -> Arrivals:
    finals = [frame for frame in streams[1] if frame.final]
    others = [frame for frame in streams[1] if not frame.final]
    late = [(frame.sent + rng.randint(0, 25_000), frame) for frame in finals]
    return [*in_order(rng, (streams[0], others)), *late]


def lost_finals(rng: random.Random, streams: Streams) -> Arrivals:
    return in_order(rng, (streams[0], [frame for frame in streams[1] if not frame.final or rng.random() < 0.5]))


def no_frames(rng: random.Random, streams: Streams) -> Arrivals:
    return by_arrival(rng, streams[0], 10, 3)


def two_connections(rng: random.Random, streams: Streams) -> Arrivals:
    second = [thing for stream in streams for thing in stream if rng.random() < 0.5]
    copies = by_arrival(rng, sorted(second, key=lambda thing: thing.sent), 200, 100)
    return [*in_order(rng, streams), *copies]


def delayed(rng: random.Random, streams: Streams) -> Arrivals:
    return [
        *by_arrival(rng, streams[0], rng.randint(0, 3_000), rng.randint(1, 400)),
        *by_arrival(rng, streams[1], rng.randint(0, 3_000), rng.randint(1, 400)),
    ]


def random_merge(rng: random.Random, streams: Streams) -> Arrivals:
    clock, arrivals = 0, []
    for thing in merged(rng, *streams):
        clock = max(clock, thing.sent + 5)
        arrivals.append((clock, thing))
    return arrivals


def shuffled(rng: random.Random, streams: Streams) -> Arrivals:
    return [(thing.sent + rng.randint(10, 310), thing) for stream in streams for thing in stream]


def dropped(rng: random.Random, streams: Streams) -> Arrivals:
    kept = tuple([thing for thing in stream if rng.random() > 0.1] for stream in streams)
    return in_order(rng, kept)


def dropped_then_filled(rng: random.Random, streams: Streams) -> Arrivals:
    frames = [frame for frame in streams[1] if rng.random() < 0.3]
    late = [(group.sent + 10 + (rng.randint(0, 90_000) if rng.random() < 0.15 else 0), group) for group in streams[0]]
    return [*late, *by_arrival(rng, frames, 10, 3)]


# Judged when they settle are only streams that lag no more than the engine was told, and lose
# nothing: a lost trade shows at the next one. A live volume may fall while trades come out of order.
CALM = [in_order, late_finals, lost_finals, no_frames, two_connections]
ROUGH = [delayed, random_merge, shuffled, dropped, dropped_then_filled]
FALLING = [shuffled, dropped_then_filled]


@pytest.mark.parametrize("order", CALM + ROUGH, ids=lambda order: order.__name__)
def test_in_the_end_every_bar_is_confirmed_and_equal(order: Callable[..., Arrivals]) -> None:
    for seed in range(RUNS):
        rng = random.Random(seed)
        market = market_of(rng)
        streams = market.groups(), market.frames(rng, empty_finals=rng.random() < 0.3)
        play = Play(market)
        play.run(order(rng, streams), then_ms=200_000)
        if order in ROUGH:
            play.wrong_settled.clear()
        if order in FALLING:
            play.falls.clear()
        play.assert_all_right()


@given(
    seed=some.integers(0, 1 << 32),
    rate=some.floats(0.02, 2.0),
    skip=some.floats(0, 0.5),
    crossing=some.floats(0, 1),
    lags=some.tuples(some.integers(0, 3_000), some.integers(0, 3_000)),
)
@settings(max_examples=RUNS, deadline=None)
def test_any_market_and_any_lag_ends_right(
    seed: int, rate: float, skip: float, crossing: float, lags: tuple[int, int]
) -> None:
    rng = random.Random(seed)
    market = market_of(rng, rate=rate, skip=skip, crossing=crossing)
    play = Play(market, lag_ms=max(lags))
    play.run(
        by_arrival(rng, market.groups(), lags[0], 2) + by_arrival(rng, market.frames(rng), lags[1], 2), then_ms=200_000
    )
    play.assert_all_right()


def test_outages_are_found_and_repaired() -> None:
    for seed in range(RUNS):
        rng = random.Random(seed)
        market = market_of(rng)
        play = Play(market)
        cuts = sorted(market.start + rng.randint(0, 8 * MINUTE) for _ in range(4))
        arrivals = in_order(rng, (market.groups(), market.frames(rng)))
        came = [pair for pair in arrivals if not (cuts[0] <= pair[0] < cuts[1] or cuts[2] <= pair[0] < cuts[3])]
        for moment, thing in sorted([*came, (cuts[0], None), (cuts[2], None)], key=lambda pair: pair[0]):
            play.at(moment, thing)
            if thing is None:
                play.apply(event(kind=ev.STREAM_DOWN, slot=0, time=moment - 200))
        play.at(market.start + 8 * MINUTE + 200_000)
        play.assert_all_right()


def test_an_engine_killed_again_and_again_ends_right() -> None:
    for seed in range(RUNS):
        rng = random.Random(seed)
        market = market_of(rng)
        play = Play(market)
        arrivals: list[tuple[int, Group | Frame | None]] = list(in_order(rng, (market.groups(), market.frames(rng))))
        known = arrivals[0][0] + 1_000
        for _ in range(3):
            killed = rng.randint(known, max(known, market.start + 8 * MINUTE))
            again = killed + rng.choice((0, 0, 300, 5_000, 100_000))
            arrivals = [pair for pair in arrivals if not killed <= pair[0] < again] + [(again, None)]
        for moment, thing in sorted(arrivals, key=lambda pair: pair[0]):
            if thing is None:
                play.restart(moment)
            else:
                play.at(moment, thing)
        play.at(market.start + 8 * MINUTE + 200_000)
        play.falls.clear()
        play.assert_all_right()


def test_a_burst_that_overruns_the_ring_stays_exact() -> None:
    for seed in range(3 if COMPILED else 1):
        rng = random.Random(seed)
        market = Market.made(rng, MONDAY - MINUTE, 2, Taste(rate=20, quiet=0))
        play = Play(market, lag_ms=100)
        play.run(
            by_arrival(rng, market.groups(), 10, 3) + by_arrival(rng, market.frames(rng), rng.choice((1_000, SLOW)), 3),
            then_ms=200_000,
        )
        assert play.feed.count("frames_skipped_total") > 0 or seed
        play.assert_all_right()


def test_fills_older_than_the_ring_leave_their_minute_partial_until_it_is_confirmed() -> None:
    for seed in range(3 if COMPILED else 1):
        rng = random.Random(seed)
        market = Market.made(rng, MONDAY - MINUTE, 2, Taste(rate=8, quiet=0))
        groups = [
            (group.sent + 10 + (rng.randint(20_000, 70_000) if rng.random() < 0.01 else 0), group)
            for group in market.groups()
        ]
        play = Play(market, lag_ms=100)
        play.run(groups, then_ms=200_000)
        play.assert_all_right()


def clean_run(seed: int) -> Play:
    rng = random.Random(seed)
    market = market_of(rng)
    play = Play(market)
    play.run(in_order(rng, (market.groups(), market.frames(rng))), then_ms=200_000)
    return play


def test_i1_every_trade_is_applied_once() -> None:
    rng = random.Random(1)
    market = market_of(rng, rate=1.0)
    streams = market.groups(), market.frames(rng)
    play = Play(market)
    arrivals = two_connections(rng, streams)
    play.run(arrivals)
    assert play.feed.count("trades_total") == len(streams[0])
    sent = sum(isinstance(thing, Group) for _, thing in arrivals)
    assert play.feed.count("duplicates_total") == sent - len(streams[0])


def test_i2_the_last_official_id_never_falls_and_final_stays_final() -> None:
    rng = random.Random(2)
    market = market_of(rng, rate=1.0)
    play = Play(market, rest=False)
    seen: dict[int, tuple[int, int]] = {}
    for moment, thing in sorted(shuffled(rng, (market.groups(), market.frames(rng))), key=lambda pair: pair[0]):
        play.at(moment, thing)
        for minute in range(market.start, market.start + 8 * MINUTE, MINUTE):
            record = play.feed.engine.record(0, minute)
            if record:
                now = record["M_BASE"], record["M_BASE_L"]
                assert now >= seen.get(minute, now)
                seen[minute] = now
    assert {base for base, _ in seen.values()} & {st.BASE_FINAL}


def test_i3_every_trade_is_in_one_minute() -> None:
    for seed in range(RUNS):
        play = clean_run(seed)
        minutes = [play.feed.stored(play.market.start + index * MINUTE) for index in range(8)]
        volume = sum(round(float(row["volume"]) * 1000) for row in minutes if row is not None)
        assert volume == sum(int(group.quantity * 1000) for group in play.market.groups())


def test_i4_all_clean_frames_of_a_minute_measure_the_same() -> None:
    for seed in range(RUNS):
        rng = random.Random(seed)
        market = market_of(rng, rate=1.0, sweep=0.0)
        play = Play(market, rest=False)
        offsets: dict[int, tuple[int, ...]] = {}
        for moment, thing in sorted(in_order(rng, (market.groups(), market.frames(rng))), key=lambda pair: pair[0]):
            play.at(moment, thing)
            memory, minute = play.feed.engine.memory, thing.sent // MINUTE * MINUTE
            record = play.feed.engine.record(0, minute)
            if record and record["M_HAS_OFF"] and record["M_OFF_EXACT"]:
                at = int(memory.state[st.C_RECORDS]) + ((minute // MINUTE) & 7) * st.M_WORDS + st.M_OFF
                now = tuple(int(word) for word in memory.state[at : at + 4])
                assert offsets.setdefault(minute, now) == now
        assert offsets


def test_i5_a_live_volume_never_falls_without_an_open_hole() -> None:
    for seed in range(RUNS):
        assert clean_run(seed).falls == []


def test_i6_what_a_frame_cuts_off_is_less_than_the_trade_it_cuts() -> None:
    cuts = unresolved = 0
    for seed in range(RUNS):
        play = clean_run(seed)
        cuts += play.feed.count("frames_cut_total")
        unresolved += play.feed.count("frames_cut_unresolved_total")
        assert play.feed.count("frames_cut_total") == play.feed.count("frames_cut_exact_total") + play.feed.count(
            "frames_cut_unresolved_total"
        )
    assert cuts > 3 * unresolved


def test_i7_without_the_exchange_only_emptiness_is_confirmed() -> None:
    for seed in range(RUNS):
        rng = random.Random(seed)
        market = market_of(rng)
        play = Play(market, rest=False)
        play.run(no_frames(rng, (market.groups(), [])), then_ms=200_000)
        play.assert_nothing_false()
        for interval, row in play.final_rows():
            if row["state"] == CONFIRMED:
                assert row["trade_count"] == 0 and row["flags"] & FILLED, interval


def test_i8_a_confirmed_bar_changes_only_by_an_old_official_row() -> None:
    for seed in range(RUNS):
        play = clean_run(seed)
        before = play.final_rows()
        rng = random.Random(seed)
        frames = play.market.frames(rng)
        wrong = [Frame(f.sent, play.official("1m", play.market.start) or f.bar, True) for f in frames[:1]]
        for thing in [*play.market.groups(), *frames, *wrong]:
            play.at(play.feed.now, thing)
        assert [row.tobytes() for _, row in before] == [row.tobytes() for _, row in play.final_rows()]


def test_i9_a_filled_bar_stands_at_the_close_before_it() -> None:
    for seed in range(RUNS):
        rng = random.Random(seed)
        market = market_of(rng, quiet=0.8)
        play = Play(market)
        for moment, thing in sorted(dropped(rng, (market.groups(), market.frames(rng))), key=lambda pair: pair[0]):
            play.at(moment, thing)
            for minute in range(market.start + MINUTE, play.ticked, MINUTE):
                row, before = play.feed.stored(minute), play.feed.stored(minute - MINUTE)
                if row is not None and before is not None and row["flags"] & FILLED:
                    assert row["close"] == row["open"] == before["close"]


def test_a_calm_bar_is_logged_at_most_three_times() -> None:
    for seed in range(RUNS):
        entries = clean_run(seed).entries
        assert entries and max(entries.values()) <= 3


def test_folds_of_folds_equal_direct_folds() -> None:
    play = clean_run(3)
    minutes = [play.feed.stored(play.market.start + index * MINUTE) for index in range(7)]
    traded = [row for row in minutes if row is not None and row["trade_count"] > 0]
    for interval in INTERVALS[1:]:
        ends = [row for row in traded if row["open_time"] < MONDAY]
        opened = intervals.open_time_of(interval, MONDAY - MINUTE)
        ends = [row for row in ends if row["open_time"] >= opened]
        row = play.feed.stored(opened, interval)
        assert row["trade_count"] == sum(int(child["trade_count"]) for child in ends)
        assert row["high"] == max(child["high"] for child in ends)
        assert row["low"] == min(child["low"] for child in ends)
        assert (row["open"], row["close"]) == (ends[0]["open"], ends[-1]["close"])


def test_a_loss_is_never_silent() -> None:
    for seed in range(RUNS):
        rng = random.Random(seed)
        market = market_of(rng, rate=1.0)
        groups = [group for group in market.groups() if rng.random() > 0.1]
        play = Play(market, rest=False)
        play.run(by_arrival(rng, groups, 10, 3), then_ms=10_000)
        told = groups[-1].fills[0].time  # what is lost after it shows in no id
        for interval, row in play.final_rows():
            if row["open_time"] + intervals.length_ms(interval) <= told and play.differs(row, interval):
                assert row["flags"] & (PARTIAL | PROVISIONAL)
        assert any(row["flags"] & PARTIAL for _, row in play.final_rows())
