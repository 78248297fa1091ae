from __future__ import annotations

from decimal import Decimal

import pytest

from klshm.sim.bars import Fill, fold
from klshm.sim.frames import kline_row
from klshm.sim.intervals import INTERVALS, MINUTE_MS, next_open_ms, open_ms
from klshm.sim.market import LATE_FINAL_MS, Market, MarketOptions
from tests.sim.helpers import START_MS, aggs_of, frames_of, naive, nine, run, specs, trades_of


def test_same_seed_same_market_whatever_the_steps() -> None:
    _, once = run(seconds=20)
    market = Market(specs(), START_MS, MarketOptions())
    steps = [event for at_ms in range(START_MS, START_MS + 20_001, 37) for event in market.advance(at_ms)]
    steps += market.advance(START_MS + 20_000)
    assert [event.event_ms for event in steps] == [event.event_ms for event in once]
    assert trades_of(steps) == trades_of(once)
    other = Market(specs(), START_MS, MarketOptions(seed=2))
    assert trades_of(other.advance(START_MS + 20_000)) != trades_of(once)


def test_events_come_in_order() -> None:
    _, events = run(seconds=130)
    times = [event.event_ms for event in events]
    assert times == sorted(times)
    for fills in trades_of(events).values():
        assert all(a.time_ms <= b.time_ms and a.last_id < b.first_id for a, b in zip(fills, fills[1:], strict=False))


def test_rows_equal_a_naive_recomputation() -> None:
    market, events = run()
    for symbol, fills in trades_of(events).items():
        instrument = market.instruments[symbol]
        spec = instrument.spec
        by_minute: dict[int, list] = {}
        for fill in fills:
            by_minute.setdefault(fill.time_ms - fill.time_ms % MINUTE_MS, []).append(fill)
        opens = instrument.opens("1m", START_MS - START_MS % MINUTE_MS, None, 1500, market.now_ms)
        price = instrument.history.close_at_end()
        for opened, bar in zip(opens, instrument.bars("1m", opens, market.now_ms), strict=True):
            row = kline_row(spec, "1m", bar)
            assert row[0] == opened and row[6] == opened + MINUTE_MS - 1
            assert len(str(row[7]).partition(".")[2]) == spec.price_decimals + spec.quantity_decimals
            if opened in by_minute:
                assert nine(row) == naive(by_minute[opened], spec.price_decimals, spec.quantity_decimals)
            else:
                flat = Decimal(price).scaleb(-spec.price_decimals)
                assert nine(row) == (flat,) * 4 + (0,) * 5
            price = bar.close


def test_without_boundary_effect_and_gaps_agg_trades_give_the_official_rows() -> None:
    market, events = run(MarketOptions(boundary_effect=False, id_gaps=False))
    for symbol, aggs in aggs_of(events).items():
        by_minute: dict[int, list[Fill]] = {}
        for group in (agg.group for agg in aggs):
            count = group.last_id - group.first_id + 1
            fill = Fill(
                group.first_ms, group.first_id, group.last_id, count, group.price, group.quantity, 0, group.taker_buy, 0
            )
            by_minute.setdefault(group.first_ms - group.first_ms % MINUTE_MS, []).append(fill)
        instrument = market.instruments[symbol]
        for opened, fills in by_minute.items():
            if opened + 2 * MINUTE_MS <= market.now_ms:
                row = kline_row(instrument.spec, "1m", instrument.bars("1m", [opened], market.now_ms)[0])
                spec = instrument.spec
                assert nine(row) == naive(fills, spec.price_decimals, spec.quantity_decimals)


def test_live_price_continues_from_history() -> None:
    market, events = run(seconds=60)
    for symbol, fills in trades_of(events).items():
        close = market.instruments[symbol].history.close_at_end()
        assert abs(fills[0].price - close) <= max(close // 100, 5 * market.instruments[symbol].spec.tick)


@pytest.mark.parametrize("interval", sorted(INTERVALS))
def test_every_interval_is_the_fold_of_its_minutes(interval: str) -> None:
    market, _ = run(seconds=400, symbols=4)
    instrument = market.instruments["ETHUSDT"]
    opened = open_ms(interval, market.now_ms)
    row = instrument.bars(interval, [opened], market.now_ms)[0]
    minutes = instrument.opens("1m", opened, next_open_ms(interval, opened) - 1, 60_000, market.now_ms)
    whole = fold(opened, instrument.bars("1m", minutes, market.now_ms))
    assert row.cells() == whole.cells()


def test_a_lead_frame_holds_the_trades_through_its_last_id() -> None:
    _, events = run()
    trades = trades_of(events)
    cut = 0
    for symbol, frames in frames_of(events).items():
        spec = frames[0].instrument.spec
        sent: dict[int, int] = {}
        for frame in frames:
            bar = frame.bar
            fills = [f for f in trades[symbol] if bar.open_time <= f.time_ms and f.last_id <= bar.last_id]
            assert (bar.first_id, bar.last_id) == (fills[0].first_id, fills[-1].last_id)
            assert nine(kline_row(spec, "1m", bar)) == naive(fills, spec.price_decimals, spec.quantity_decimals)
            assert bar.open_time not in sent, "a frame came after the final one"
            if frame.final:
                sent[bar.open_time] = frame.event_ms
                later = [f for f in trades[symbol] if f.time_ms >= bar.open_time + MINUTE_MS]
                end_ms = bar.open_time + MINUTE_MS
                due_ms = min([later[0].time_ms, end_ms + LATE_FINAL_MS] if later else [end_ms + LATE_FINAL_MS])
                assert due_ms <= frame.event_ms <= due_ms + 7
            else:
                assert 0 <= frame.event_ms - fills[-1].time_ms <= 7
        moving = [frame.event_ms for frame in frames if not frame.final]
        assert all(b - a >= 245 for a, b in zip(moving, moving[1:], strict=False))
        cut += len(moving)
    assert cut > 100


def test_every_traded_minute_gets_one_final_frame() -> None:
    market, events = run(seconds=250)
    for symbol, fills in trades_of(events).items():
        finals = [frame.bar.open_time for frame in frames_of(events)[symbol] if frame.final]
        traded = sorted({fill.time_ms - fill.time_ms % MINUTE_MS for fill in fills})
        over = [opened for opened in traded if opened + MINUTE_MS + LATE_FINAL_MS + 7 <= market.now_ms]
        assert [opened for opened in finals if opened in over] == over
        assert len(finals) == len(set(finals))


@pytest.mark.parametrize(("mode", "final"), [("open", False), ("final", True)])
def test_frames_of_empty_minutes(mode: str, final: bool) -> None:
    _, events = run(MarketOptions(empty_frames=mode), seconds=200, symbols=16)
    empty = [frame for frames in frames_of(events).values() for frame in frames if frame.bar.count == 0]
    assert empty
    for frame in empty:
        assert frame.final is final
        assert (frame.bar.first_id, frame.bar.last_id) == (-1, -1)
        assert frame.bar.open == frame.bar.close


def test_by_default_empty_minutes_have_no_frame_and_quiet_symbols_are_quiet() -> None:
    market, events = run(seconds=600, symbols=40, rate=400.0)
    assert all(frame.bar.count for frames in frames_of(events).values() for frame in frames)
    traded = trades_of(events)
    quiet = [s for s, i in market.instruments.items() if i.status == "TRADING" and len(traded.get(s, [])) < 10]
    assert len(quiet) >= 3


def test_tick_mode_sends_the_whole_bar_every_250_ms() -> None:
    _, events = run(MarketOptions(frame_mode="tick"), seconds=130, symbols=2)
    trades = trades_of(events)["BTCUSDT"]
    for frame in frames_of(events)["BTCUSDT"]:
        end_ms = frame.bar.open_time + MINUTE_MS
        inside = [f for f in trades if frame.bar.open_time <= f.time_ms < min(end_ms, frame.event_ms)]
        assert frame.bar.count in (len(inside), len(inside) + sum(f.time_ms == frame.event_ms for f in trades))
        assert frame.final == (frame.event_ms >= end_ms)


def test_higher_series_agree_with_rest() -> None:
    market = Market(specs(4), START_MS, MarketOptions())
    market.advance(START_MS + 5_000)
    for interval in ("5m", "1h", "1w", "1M"):
        market.instruments["BTCUSDT"].activate(interval, market.now_ms)
    events = market.advance(START_MS + 320_000)
    for interval in ("5m", "1h", "1w", "1M"):
        last = frames_of(events, interval)["BTCUSDT"][-1]
        fills = [f for f in trades_of(events)["BTCUSDT"] if f.first_id > last.bar.last_id]
        instrument = market.instruments["BTCUSDT"]
        rest = instrument.bars(interval, [open_ms(interval, market.now_ms)], market.now_ms)[0]
        bar = last.bar.copy()
        for fill in fills:
            bar.add(fill)
        assert bar.cells() == rest.cells() and bar.first_id == rest.first_id
    finals = [frame for frame in frames_of(events, "5m")["BTCUSDT"] if frame.final]
    assert len(finals) == 1


def test_listing_and_delisting() -> None:
    market = Market(specs(3, 1.0), START_MS, MarketOptions())
    market.schedule_status(START_MS + 30_000, "SOONUSDT", "TRADING")
    market.schedule_status(START_MS + 60_000, "ETHUSDT", "SETTLING")
    assert market.instruments["SOONUSDT"].opens("1m", None, None, 10, market.now_ms) == []
    events = market.advance(START_MS + 7 * 3_600_000)
    soon = market.instruments["SOONUSDT"]
    first = trades_of(events)["SOONUSDT"][0]
    assert first.time_ms >= soon.spec.first_trade_ms
    assert soon.opens("1m", 0, None, 1, market.now_ms) == [first.time_ms - first.time_ms % MINUTE_MS]
    settled = market.instruments["ETHUSDT"]
    assert max(f.time_ms for f in trades_of(events)["ETHUSDT"]) <= START_MS + 60_000
    assert settled.opens("1m", None, None, 1, market.now_ms) == [open_ms("1m", START_MS + 60_000)]
