from __future__ import annotations

import re
from typing import Any

import pytest

import klshm.sim.faults as module
from klshm.sim.faults import PARAMETERS, Faults, UnknownFault, complete
from tests.sim.helpers import START_MS


MINUTE_MS = 60_000


def started(**parameters: Any) -> Faults:
    faults = Faults()
    faults.start(parameters, START_MS)
    return faults


def test_what_is_left_out_has_its_default() -> None:
    assert complete({"name": "drop", "seconds": 2}) == {"name": "drop", "seconds": 2, "probability": 0.1}
    assert complete({"name": "clear"}) == {"name": "clear"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "found fault None, expected one of close"),
        ({"name": "x"}, "found fault 'x', expected one of close"),
        ({"name": "mute"}, "without seconds"),
        ({"name": "freeze", "seconds": "long"}, "found seconds 'long' of fault freeze, expected a number"),
        ({"name": "freeze", "seconds": True}, "expected a number"),
        ({"name": "delay_x", "seconds": 1, "after_next": 1}, "expected true or false"),
        ({"name": "mute", "seconds": 1, "symbol": 7}, "expected a text"),
        ({"name": "close", "seconds": 1}, "found parameter 'seconds' of fault close, expected one of connection"),
        ({"name": "clear", "all": 1}, "expected one of none"),
    ],
)
def test_unusable_faults_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UnknownFault, match="found") as caught:
        Faults().start(parameters, START_MS)
    assert message in str(caught.value)


def test_faults_end_by_themselves_and_by_clear() -> None:
    faults = started(name="mute", stream="kline", symbol="BTCUSDT", seconds=5)
    assert faults.muted("kline", "BTCUSDT", START_MS + 4_999)
    assert not faults.muted("kline", "ETHUSDT", START_MS) and not faults.muted("aggTrade", "BTCUSDT", START_MS)
    assert faults.state(START_MS)["active"] == ["mute"]
    assert not faults.muted("kline", "BTCUSDT", START_MS + 5_000) and faults.state(START_MS + 5_000)["active"] == []
    for lasting in ({"name": "refuse", "seconds": 9}, {"name": "http_status"}, {"name": "bad_json"}):
        faults.start(lasting, START_MS)
    faults.start({"name": "clear"}, START_MS)
    assert faults.refusal(START_MS) is faults.http_status("/fapi/v1/time") is None
    assert faults.spoil("aggTrade", "{}") == "{}"


def test_http_answers_are_used_up() -> None:
    faults = started(name="http_status", status=418, count=2, path="klines")
    assert faults.http_status("/fapi/v1/time") is None
    assert [faults.http_status("/fapi/v1/klines") for _ in range(3)] == [418, 418, None]


def test_slow_answers_on_some_paths() -> None:
    faults = started(name="http_delay", delay_ms=250, path="klines", seconds=1)
    assert faults.http_delay_s("/fapi/v1/klines", START_MS) == 0.25
    assert faults.http_delay_s("/fapi/v1/time", START_MS) == 0.0
    assert faults.http_delay_s("/fapi/v1/klines", START_MS + 1_000) == 0.0


def test_frames_of_one_kind_are_cut_short() -> None:
    faults = started(name="bad_json", stream="kline", count=2)
    assert [faults.spoil(kind, "abcd") for kind in ("aggTrade", "kline", "kline", "kline")] == [
        "abcd", "ab", "ab", "abcd",
    ]  # fmt: skip


def test_a_gap_lies_where_it_was_when_the_fault_began() -> None:
    faults = started(name="gap", symbol="BTCUSDT", ago_minutes=3, minutes=2, seconds=600)
    minute_ms = START_MS - START_MS % MINUTE_MS
    spans = [(minute_ms - 3 * MINUTE_MS, minute_ms - MINUTE_MS)]
    assert faults.gaps("BTCUSDT", START_MS) == faults.gaps("BTCUSDT", START_MS + 500_000) == spans
    assert faults.gaps("ETHUSDT", START_MS) == faults.gaps("BTCUSDT", START_MS + 600_000) == []


def test_planned_faults_start_in_time() -> None:
    faults = Faults()
    faults.plan([(1.5, {"name": "refuse", "seconds": 2, "status": 429})], START_MS)
    faults.run_due(START_MS + 1_499)
    assert faults.refusal(START_MS + 1_499) is None
    faults.run_due(START_MS + 1_500)
    assert faults.refusal(START_MS + 3_499) == 429 and faults.refusal(START_MS + 3_500) is None


def test_every_fault_and_parameter_is_documented() -> None:
    assert module.__doc__ is not None
    # An entry begins in the fifth column, and its text goes on further right.
    entries = dict(re.findall(r"^    (\w+) +(.*(?:\n {8}.*)*)", module.__doc__, re.MULTILINE))
    assert set(entries) == set(PARAMETERS)
    for name, parameters in PARAMETERS.items():
        assert all(key in entries[name] for key in parameters), f"{name}: expected {list(parameters)} in its text"
