"""From the configuration to the sizes of the segment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from klshm.config import Config, RunConfig, settings
from klshm.run.sizes import layout_of


DEMO = Path(__file__).parents[2] / "configs" / "demo.toml"


def of(workers: int, **segment: Any) -> Any:
    config = dataclasses.replace(Config(), run=RunConfig(workers=workers))
    return layout_of(dataclasses.replace(config, segment=dataclasses.replace(config.segment, **segment)))


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_the_default_stays_below_512_mib(workers: int) -> None:
    layout = of(workers)
    assert layout.total_bytes < 512 << 20
    assert (layout.workers, layout.max_symbols) == (max(1, workers), 1024)


def test_the_demo_stays_below_64_mib() -> None:
    config = settings.load(DEMO, ["run.workers=4"], write_default=False)
    assert layout_of(config).total_bytes < 64 << 20


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 64])
def test_every_symbol_finds_a_slot_with_some_room_to_spare(workers: int) -> None:
    layout = of(workers, max_symbols=600)
    assert layout.slots * workers >= 600
    assert layout.slots <= 600
    if workers > 1:
        assert layout.slots * workers * 8 >= 600 * 9, "dealt by load, not by number"
        assert layout.slots - 1 < 600 * 9 / 8 / workers


def test_more_workers_than_symbols() -> None:
    assert of(8, max_symbols=2).slots == 1


def test_history_holds_what_was_asked_for_and_two_rows_more() -> None:
    """Two rows are not for readers: the one being written, and the next."""
    layout = of(1, history={"1m": 1000, "5m": 30, "30m": 31, "4h": 62, "1d": 63})
    assert layout.history_rows == (1024, 32, 64, 64, 96, 512), "the last: nothing was said about 1w"
    assert all(rows % 32 == 0 for rows in layout.history_rows)


def test_a_log_holds_eight_waves_of_every_series() -> None:
    for workers in (1, 2, 4):
        layout = of(workers)
        assert layout.log_rows >= 8 * layout.slots * layout.intervals


def test_rings_and_times_come_from_the_configuration() -> None:
    layout = of(2, log_rows=4096, swap_interval_ms=20)
    assert (layout.log_rows, layout.historian_log_rows, layout.inbox_rows) == (4096, 4096, 4096)
    assert layout.swap_interval_ms == 20
    assert of(2).inbox_rows == 8192
    assert len(layout.interval_codes) == len(Config().klines.intervals)
