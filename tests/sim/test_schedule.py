from __future__ import annotations

import pytest

from klshm.sim.faults import PARAMETERS, Faults, UnknownFault
from klshm.sim.schedule import SCHEDULES, parse_schedule, schedule_start_ms
from klshm.sim.server import Settings, Simulator
from tests.sim.helpers import START_MS


def test_the_standard_schedule_runs_completely() -> None:
    faults, called = Faults(), []
    for name in ("close", "list_symbol", "delist_symbol"):
        faults.hooks[name] = lambda parameters, now_ms: called.append((parameters["name"], now_ms))
    faults.plan(parse_schedule("standard"), START_MS)
    for at_ms in range(START_MS, START_MS + 260_000, 500):
        faults.run_due(at_ms)
    assert sum(faults.counts.values()) == len(SCHEDULES["standard"])
    assert [name for name, _ in called] == ["close", "list_symbol", "delist_symbol"]
    assert 5_000 <= called[0][1] % 60_000 < 55_500
    assert set(faults.counts) <= set(PARAMETERS)


def test_the_standard_schedule_starts_before_a_week_boundary() -> None:
    monday_ms = 1_795_392_000_000
    assert schedule_start_ms("standard", monday_ms - 7 * 86_400_000) == monday_ms - 100_000
    assert schedule_start_ms("standard", monday_ms - 1) == monday_ms - 100_000
    assert schedule_start_ms("", monday_ms) is None
    settings = {"symbols": 1, "history_days": 2}
    assert (Simulator(Settings(faults="standard", **settings)).clock.start_ms + 100_000 - monday_ms) % 604_800_000 == 0
    assert Simulator(Settings(faults="standard", start_ms=START_MS, **settings)).clock.start_ms == START_MS


def test_a_schedule_may_be_given_as_json() -> None:
    text = '[{"at_s": 1.5, "name": "refuse", "seconds": 2}]'
    assert parse_schedule(text) == [(1.5, {"name": "refuse", "seconds": 2})]


@pytest.mark.parametrize(
    "text",
    ["other", '[{"name": "close"}]', '[{"at_s": 1, "name": "x"}]', '[{"at_s": 1, "name": "mute"}]', "[1]", "{", "7"],
)
def test_unusable_schedules_are_refused(text: str) -> None:
    with pytest.raises(UnknownFault, match="found .*expected"):
        parse_schedule(text)
