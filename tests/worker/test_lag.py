"""Quantiles of the lag, and what counts as a sample."""

from __future__ import annotations

import numpy as np

from klshm.core.events import EVENT, FRAME, TICKER, TRADE
from klshm.worker.lag import LagMeter


def event(kind: int, time_ms: int) -> np.ndarray:  # type: ignore[type-arg]
    row = np.zeros(1, dtype=EVENT)
    row["kind"], row["time"] = kind, time_ms
    return row


def test_without_samples_there_is_no_lag() -> None:
    meter = LagMeter()
    assert (meter.p50_us(), meter.p99_us(), meter.p99_ms()) == (0, 0, 0)


def test_quantiles_are_those_of_the_newest_frames() -> None:
    meter = LagMeter()
    for lag_ms in range(101):
        meter.add(1000.0 + lag_ms, event(TRADE if lag_ms % 2 else FRAME, 1000))
    assert (meter.p50_us(), meter.p99_us(), meter.p99_ms()) == (50_000, 99_000, 99)
    for _ in range(1024):
        meter.add(1007.0, event(TRADE, 1000))
    assert (meter.p50_us(), meter.p99_ms()) == (7_000, 7)


def test_only_the_newest_event_of_a_batch_counts_and_only_a_frame() -> None:
    meter = LagMeter()
    meter.add(1005.0, np.concatenate((event(TRADE, 0), event(FRAME, 1000))))
    assert meter.p50_us() == 5_000
    meter.add(9999.0, event(TICKER, 0))
    assert meter.p50_us() == 5_000


def test_a_settle_waits_a_second_at_most_and_never_less_than_nothing() -> None:
    meter = LagMeter()
    meter.add(9000.0, event(TRADE, 0))
    assert meter.p99_ms() == 1000
    early = LagMeter()
    early.add(0.0, event(TRADE, 30))  # the clocks' error may exceed the lag
    assert early.p99_ms() == 0
    assert early.p50_us() == -30_000


def test_an_absurd_event_time_is_no_absurd_lag() -> None:
    meter = LagMeter()
    meter.add(0.0, event(TRADE, 2**62))
    assert meter.p50_us() == -3_600_000_000
    other = LagMeter()
    other.add(2.0**62, event(TRADE, 0))
    assert other.p99_us() == 3_600_000_000
