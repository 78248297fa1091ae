"""Older bars than memory holds come from the archive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import klshm
from klshm.config import Config, DataConfig, StoreConfig
from klshm.shm import layout as lay
from tests.support.desk import MINUTE, START, Desk


@pytest.fixture
def deep(make_desk: Callable[..., Desk], tmp_path: Path) -> Desk:
    """An engine whose memory holds 94 bars, and an archive below it."""
    desk = make_desk(config=Config(instance="test", data=DataConfig(directory=str(tmp_path / "data"))))
    desk.list_symbol("BTCUSDT")
    for minute in range(1, 95):
        desk.keep("BTCUSDT", "1m", START - minute * MINUTE, volume=minute)
    desk.live("BTCUSDT", "1m", START)
    desk.publish(closed_through_ms=START)
    return desk


def archive(desk: Desk, first: int, last: int) -> None:
    pytest.importorskip("klshm.store.archive")
    from klshm.store.archive import Archive
    from klshm.store.batch import Batch, Listing
    from klshm.store.names import archive_path, data_directory

    with klshm.attach("test") as reader:
        path = archive_path(data_directory(reader.config))
    path.parent.mkdir(parents=True)
    rows = np.concatenate([desk.row("BTCUSDT", "1m", START - m * MINUTE, volume=m) for m in range(first, last, -1)])
    with closing(Archive(path, StoreConfig())) as writer:
        writer.write(Batch((Listing("BTCUSDT"),), rows))


def volumes(reader: klshm.Reader, limit: int) -> list[float]:
    return [float(volume) for volume in reader.history("BTCUSDT", "1m", limit)["volume"]]


def test_without_an_archive_memory_is_all_there_is(deep: Desk) -> None:
    with klshm.attach("test") as reader:
        assert volumes(reader, 500) == list(range(94, 0, -1))


def test_deep_history_joins_archive_and_memory(deep: Desk) -> None:
    archive(deep, 200, 50)
    with klshm.attach("test") as reader:
        assert volumes(reader, 94) == list(range(94, 0, -1))
        assert volumes(reader, 120) == list(range(120, 0, -1))
        rows = reader.history("BTCUSDT", "1m", 500)
        assert rows["volume"].tolist() == list(range(200, 0, -1))
        assert set(rows["slot"].tolist()) == {0} and rows.dtype == lay.KLINE


def test_since_replays_from_the_archive_too(deep: Desk) -> None:
    archive(deep, 200, 50)
    with klshm.attach("test") as reader:
        bars = reader.closed(intervals=["1m"], since=START - 150 * MINUTE, timeout_s=0)
        taken = [next(bars).volume for _ in range(150)]
        assert taken == list(range(150, 0, -1))
        deep.tick("BTCUSDT", "1m", START, volume=0)
        deep.publish()
        assert next(bars).open_time == START
