from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from klshm.sim.bars import Fill
from klshm.sim.groups import WINDOW_MS, Group, Grouper
from klshm.sim.intervals import MINUTE_MS
from klshm.sim.market import MarketOptions
from tests.sim.helpers import aggs_of, run, trades_of


@st.composite
def tapes(draw: st.DrawFn) -> list[Fill]:
    at_ms, trade_id, tape = 59_700, 7, []
    for _ in range(draw(st.integers(1, 60))):
        at_ms += draw(st.sampled_from([0, 0, 1, 30, 69, 101, 400]))
        trade_id += draw(st.sampled_from([1, 1, 1, 2, 5]))
        price, buy = draw(st.sampled_from([100, 101])), draw(st.booleans())
        tape.append(Fill(at_ms, trade_id, trade_id, 1, price, draw(st.integers(1, 9)), 0, buy, -1))
    return tape


def groups_of(tape: list[Fill], cross: bool) -> list[Group]:
    grouper = Grouper(500, cross)
    found = [group for fill in tape if (group := grouper.add(fill)) is not None]
    last = grouper.flush()
    return found + ([last] if last else [])


@given(tapes(), st.booleans())
def test_groups_hold_every_trade_once(tape: list[Fill], cross: bool) -> None:
    groups = groups_of(tape, cross)
    assert [group.agg_id for group in groups] == list(range(500, 500 + len(groups)))
    assert sum(group.quantity for group in groups) == sum(fill.quantity for fill in tape)
    assert sum(group.quantity * group.price for group in groups) == sum(fill.quantity * fill.price for fill in tape)
    place = 0
    for group in groups:
        members = [fill for fill in tape if group.first_id <= fill.first_id <= group.last_id]
        assert members == tape[place : place + len(members)]
        place += len(members)
        assert {(fill.price, fill.taker_buy) for fill in members} == {(group.price, group.taker_buy)}
        assert group.first_ms == members[0].time_ms
        assert members[-1].time_ms - group.first_ms <= WINDOW_MS
        if not cross:
            assert len({fill.time_ms // MINUTE_MS for fill in members}) == 1
    assert place == len(tape)


def test_emission_follows_the_recordings() -> None:
    _, events = run()
    crossing = 0
    for symbol, aggs in aggs_of(events).items():
        times = {fill.first_id: fill.time_ms for fill in trades_of(events)[symbol]}
        for agg, following in zip(aggs, aggs[1:], strict=False):
            delay_ms = agg.event_ms - agg.group.first_ms
            assert 0 <= delay_ms <= 151
            assert delay_ms >= 150 or agg.event_ms == following.group.first_ms
            assert following.group.agg_id == agg.group.agg_id + 1
            assert times[agg.group.last_id] <= agg.event_ms
            crossing += times[agg.group.last_id] // MINUTE_MS != agg.group.first_ms // MINUTE_MS
    assert crossing >= 3


def test_without_the_boundary_effect_no_group_crosses() -> None:
    _, events = run(MarketOptions(boundary_effect=False, id_gaps=False), seconds=130)
    for symbol, aggs in aggs_of(events).items():
        times = {fill.first_id: fill.time_ms for fill in trades_of(events)[symbol]}
        for agg in aggs:
            assert times[agg.group.last_id] // MINUTE_MS == agg.group.first_ms // MINUTE_MS
        ids = [fill.first_id for fill in trades_of(events)[symbol]]
        assert ids == list(range(ids[0], ids[0] + len(ids)))


def test_some_ids_are_skipped_and_rpi_is_left_out() -> None:
    _, events = run()
    gaps = 0
    for fills in trades_of(events).values():
        gaps += sum(b.first_id - a.last_id > 1 for a, b in zip(fills, fills[1:], strict=False))
    assert gaps > 10
    assert any(agg.group.rpi_quantity for aggs in aggs_of(events).values() for agg in aggs)
