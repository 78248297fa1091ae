from __future__ import annotations

import pytest

from klshm.sim.events import AggEvent, Event, KlineEvent
from klshm.sim.faults import SCHEDULES, Faults, UnknownFault, schedule_start_ms
from klshm.sim.server import Settings, Simulator
from tests.sim.helpers import START_MS, run


def events() -> list[Event]:
    return run(seconds=70, symbols=3)[1]


def test_nothing_wrong_nothing_changed() -> None:
    sent = events()
    assert Faults().apply(sent, START_MS) is sent


def test_mute_drop_duplicate() -> None:
    sent = events()
    faults = Faults()
    faults.start({"name": "mute", "stream": "aggTrade", "symbol": "BTCUSDT", "seconds": 5}, START_MS)
    left = faults.apply(sent, START_MS)
    assert not any(isinstance(e, AggEvent) and e.instrument.spec.symbol == "BTCUSDT" for e in left)
    assert any(isinstance(e, AggEvent) for e in left) and any(isinstance(e, KlineEvent) for e in left)
    assert len(faults.apply(sent, START_MS + 5_000)) == len(sent)
    aggs = sum(isinstance(e, AggEvent) for e in sent)
    faults.start({"name": "drop", "probability": 1.0, "seconds": 5}, START_MS)
    assert len(faults.apply(sent, START_MS)) == len(sent) - aggs
    faults.start({"name": "clear"}, START_MS)
    faults.start({"name": "duplicate", "probability": 1.0, "seconds": 5}, START_MS)
    assert len(faults.apply(sent, START_MS)) == len(sent) + aggs


def test_final_frames_late_or_missing_and_klines_reordered() -> None:
    sent = events()
    finals = sum(isinstance(e, KlineEvent) and e.final for e in sent)
    assert finals
    faults = Faults()
    faults.start({"name": "delay_x", "delay_ms": 3000, "seconds": 1}, START_MS)
    assert len(faults.apply(sent, START_MS)) == len(sent) - finals
    assert len(faults.apply([], START_MS + 2_999)) == 0
    assert len(faults.apply([], START_MS + 3_000)) == finals
    faults.start({"name": "delay_x", "probability": 1.0, "seconds": 1}, START_MS)
    assert len(faults.apply(sent, START_MS)) == len(sent) - finals
    assert faults.apply([], START_MS + 60_000) == []
    faults.start({"name": "reorder", "delay_ms": 400, "seconds": 1}, START_MS)
    assert not any(isinstance(e, KlineEvent) for e in faults.apply(sent, START_MS))
    assert any(isinstance(e, KlineEvent) for e in faults.apply([], START_MS + 400))


def test_http_answers_are_used_up() -> None:
    faults = Faults()
    faults.start({"name": "http_status", "status": 418, "count": 2, "path": "klines"}, START_MS)
    assert faults.http_status("/fapi/v1/time") is None
    assert [faults.http_status("/fapi/v1/klines") for _ in range(3)] == [418, 418, None]


@pytest.mark.parametrize("parameters", [{}, {"name": "x"}, {"name": "mute"}, {"name": "freeze", "seconds": "long"}])
def test_unusable_faults_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(UnknownFault, match="found"):
        Faults().start(parameters, START_MS)
    with pytest.raises(UnknownFault, match="expected one of standard"):
        Faults().plan("other", START_MS)


def test_the_standard_schedule_runs_completely() -> None:
    faults, called = Faults(), []
    for name in ("close", "list_symbol", "delist_symbol"):
        faults.hooks[name] = lambda parameters, now_ms: called.append((parameters["name"], now_ms))
    faults.plan("standard", START_MS)
    for at_ms in range(START_MS, START_MS + 260_000, 500):
        faults.run_due(at_ms)
    assert sum(faults.counts.values()) == len(SCHEDULES["standard"])
    assert [name for name, _ in called] == ["close", "list_symbol", "delist_symbol"]
    assert 5_000 <= called[0][1] % 60_000 < 55_500
    assert set(faults.counts) <= set(Faults.NAMES)


def test_the_standard_schedule_starts_before_a_week_boundary() -> None:
    monday_ms = 1_795_392_000_000
    assert schedule_start_ms("standard", monday_ms - 7 * 86_400_000) == monday_ms - 100_000
    assert schedule_start_ms("standard", monday_ms - 1) == monday_ms - 100_000
    assert schedule_start_ms("", monday_ms) is None
    settings = {"symbols": 1, "history_days": 2}
    assert (Simulator(Settings(faults="standard", **settings)).clock.start_ms + 100_000 - monday_ms) % 604_800_000 == 0
    assert Simulator(Settings(faults="standard", start_ms=START_MS, **settings)).clock.start_ms == START_MS


def test_a_schedule_may_be_given_as_json() -> None:
    faults = Faults()
    faults.plan('[{"at_s": 1.5, "name": "refuse", "seconds": 2}]', START_MS)
    faults.run_due(START_MS + 1_499)
    assert not faults.refuses(START_MS + 1_499)
    faults.run_due(START_MS + 1_500)
    assert faults.refuses(START_MS + 3_499) and not faults.refuses(START_MS + 3_500)
    for wrong in ('[{"name": "close"}]', '[{"at_s": 1, "name": "x"}]', "[1]", "{"):
        with pytest.raises(UnknownFault, match="found"):
            faults.plan(wrong, START_MS)


def test_slow_answers_on_some_paths() -> None:
    faults = Faults()
    faults.start({"name": "http_delay", "delay_ms": 250, "path": "klines", "seconds": 1}, START_MS)
    assert faults.http_delay_s("/fapi/v1/klines", START_MS) == 0.25
    assert faults.http_delay_s("/fapi/v1/time", START_MS) == 0.0
    assert faults.http_delay_s("/fapi/v1/klines", START_MS + 1_000) == 0.0


def test_every_fault_is_documented() -> None:
    import klshm.sim.faults as module

    assert module.__doc__ is not None
    assert all(f"    {name}" in module.__doc__ for name in Faults.NAMES)
