"""Quantiles of the lag, and what counts as a sample."""

from __future__ import annotations

import numpy as np

from klshm.core.events import EVENT, FRAME, TICKER, TRADE
from klshm.worker.lag import LagMeter


def add(meter: LagMeter, now_ms: float, *events: tuple[int, int]) -> None:
    """Measure a batch of events, each its kind and its time."""
    rows = np.zeros(len(events) + 1, dtype=EVENT)  # a batch has room for more than it holds
    rows["kind"], rows["time"] = TRADE, 999
    for row, (kind, time_ms) in zip(rows, events, strict=False):
        row["kind"], row["time"] = kind, time_ms
    meter.add(now_ms, rows.view(np.int64), len(events))
    meter.measure()


def test_without_samples_there_is_no_lag() -> None:
    meter = LagMeter()
    meter.measure()
    assert (meter.p50_us, meter.p99_us, meter.p99_ms) == (0, 0, 0)


def test_quantiles_are_those_of_the_newest_frames() -> None:
    meter = LagMeter()
    for lag_ms in range(101):
        add(meter, 1000.0 + lag_ms, (TRADE if lag_ms % 2 else FRAME, 1000))
    assert (meter.p50_us, meter.p99_us, meter.p99_ms) == (50_000, 99_000, 99)
    for _ in range(1024):
        add(meter, 1007.0, (TRADE, 1000))
    assert (meter.p50_us, meter.p99_ms) == (7_000, 7)


def test_only_the_newest_event_of_a_batch_counts_and_only_a_frame() -> None:
    meter = LagMeter()
    add(meter, 1005.0, (TRADE, 0), (FRAME, 1000))
    assert meter.p50_us == 5_000
    add(meter, 9999.0, (TICKER, 0))
    assert meter.p50_us == 5_000


def test_a_settle_waits_a_second_at_most_and_never_less_than_nothing() -> None:
    meter = LagMeter()
    add(meter, 9000.0, (TRADE, 0))
    assert meter.p99_ms == 1000
    early = LagMeter()
    add(early, 0.0, (TRADE, 30))  # the clocks' error may exceed the lag
    assert early.p99_ms == 0
    assert early.p50_us == -30_000


def test_an_absurd_event_time_is_no_absurd_lag() -> None:
    meter = LagMeter()
    add(meter, 0.0, (TRADE, 2**62))
    assert meter.p50_us == -3_600_000_000
    other = LagMeter()
    add(other, 2.0**62, (TRADE, 0))
    assert other.p99_us == 3_600_000_000
