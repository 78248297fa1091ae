"""What the launcher says of a running engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.config import Config
from klshm.run.status import live_block, status_line
from klshm.shm import layout as lay
from klshm.shm.counters import HISTORIAN, PERSISTER, WORKER, Counters
from klshm.shm.layout import Layout
from klshm.shm.segment import Segment, create_segment


@pytest.fixture
def segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Segment]:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    segment = create_segment("desk", Layout(8, 2, 8, (0, 2), (32, 32), 8192, 32, 32, 50), b"{}")
    yield segment
    segment.close()


def count(segment: Segment, worker: int, **values: int) -> None:
    block = segment.block(segment.layout.partition_offset(worker))
    for name, value in values.items():
        Counters(block, WORKER).set(name, value)


def test_the_block_names_what_one_needs_next(segment: Segment) -> None:
    count(segment, 0, symbols=300)
    count(segment, 1, symbols=312)
    text = live_block(Config(instance="desk"), segment)
    lines = text.splitlines()
    assert lines[0] == "klshm desk is live: 612 symbols, 2 workers, 2 intervals"
    assert str(segment.path) in text and "  2 MiB" in text and "https://fapi.binance.com" in text
    commands = [line.strip() for line in lines if line.strip().startswith("python -m klshm ")]
    assert len(commands) == 3 and all(command.endswith("--instance desk") for command in commands)
    assert "Ctrl-C" in lines[-1]


def test_the_line_adds_up_the_workers_and_takes_the_worst_lag(segment: Segment) -> None:
    layout = segment.layout
    count(segment, 0, symbols=3, messages_total=10, closed_total=5, holes_total=1, lag_p99_us=4_400)
    count(segment, 1, symbols=4, messages_total=20, closed_total=6, lag_p99_us=12_600)
    count(segment, 0, confirmed_by_rest_total=2, confirmed_by_final_frame_total=3)
    count(segment, 1, confirmed_empty_total=4)
    segment.block(layout.partition_offset(0))[lay.B_ROLE_STATE] = lay.ROLE_LIVE
    segment.block(layout.partition_offset(1))[lay.B_ROLE_STATE] = lay.ROLE_CONNECTING
    Counters(segment.block(layout.historian_offset), HISTORIAN).set("weight_used", 40)
    persister = Counters(segment.block(layout.persister_offset), PERSISTER)
    persister.set("journal_behind_rows", 7)
    persister.set("archive_rows_total", 99)
    assert status_line(segment) == (
        "status workers=live,connecting symbols=7 messages=30 closed=11 confirmed=9 holes=1 lag_p99_ms=13 weight=40 "
        "journal_behind=7 archived=99"
    )
    del persister
