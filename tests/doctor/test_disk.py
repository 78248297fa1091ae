from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm.config import Config, DataConfig, SegmentConfig, StoreConfig
from klshm.doctor import disk
from klshm.doctor.disk import Growth, Stored, days_until_full
from klshm.shm import compile as compile_module
from klshm.store.archive import Archive
from klshm.store.batch import Batch, Listing
from tests.store.engine import MINUTE, START, bars
from tests.support.desk import Desk
from tests.support.desk import make_desk as make_desk


def config(directory: Path, **store: Any) -> Config:
    return Config(data=DataConfig(directory=str(directory)), store=StoreConfig(**store))


def verdicts(lines: list[Any]) -> list[tuple[str, str]]:
    return [(line.topic, line.verdict) for line in lines]


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    assert verdicts(disk.shared_memory(Config())) == [("shared memory", "ok")]
    (line,) = disk.shared_memory(Config(segment=SegmentConfig(max_symbols=65_000, history={"1m": 1_000_000})))
    assert line.verdict == "bad" and "--shm-size" in line.advice
    (tmp_path / "klshm.main").write_bytes(b"?")
    (line,) = disk.shared_memory(Config())
    assert line.verdict == "warn" and "sets it aside" in line.advice
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path / "none"))
    assert verdicts(disk.shared_memory(Config())) == [("shared memory", "bad")]


def test_a_segment_that_is_there(make_desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk: Desk = make_desk()
    (line,) = disk.shared_memory(Config(instance="test"))
    assert line.verdict == "ok" and line.found.endswith("it runs")
    monkeypatch.setattr(type(desk.segment), "is_locked", lambda segment: False)
    (line,) = disk.shared_memory(Config(instance="test"))
    assert line.verdict == "warn" and "takes over" in line.advice


def test_kernel_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compile_module, "cache_directory", lambda: tmp_path)
    assert "empty" in disk.kernel_cache()[0].found
    (tmp_path / "x.nbc").touch()
    assert disk.kernel_cache()[0].found.endswith("compiled")
    monkeypatch.setattr(compile_module, "cache_directory", lambda: None)
    assert verdicts(disk.kernel_cache()) == [("kernel cache", "warn")]
    monkeypatch.setattr(disk.importlib.util, "find_spec", lambda name: None)
    assert disk.kernel_cache() == []


def space(free_bytes: int, inodes: int = 1 << 20) -> Any:
    return os.statvfs_result((4096, 4096, 1 << 30, free_bytes >> 12, free_bytes >> 12, 1 << 21, inodes, inodes, 0, 255))


def test_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdicts(disk.data(config(tmp_path / "not" / "yet")))[0] == ("data", "ok")
    assert not (tmp_path / "not").exists()
    for kind, verdict in (("nfs4", "bad"), ("tmpfs", "warn"), ("ext4", "ok"), ("", "ok")):
        monkeypatch.setattr(disk, "_file_system", lambda path, kind=kind: kind)
        assert verdicts(disk.data(config(tmp_path)))[0] == ("data", verdict)
    for free, verdict in ((1 << 40, "ok"), (1 << 29, "warn"), (1 << 20, "bad")):
        monkeypatch.setattr(os, "statvfs", lambda path, free=free: space(free))
        assert verdicts(disk.data(config(tmp_path)))[1] == ("disk", verdict)
    monkeypatch.setattr(os, "statvfs", lambda path: space(1 << 40, inodes=7))
    assert verdicts(disk.data(config(tmp_path)))[2] == ("disk", "bad")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert verdicts(disk.data(config(tmp_path))) == [("data", "bad")]


def test_file_systems() -> None:
    assert disk._file_system(Path("/proc/self")) == "proc"
    assert disk._file_system(Path("/")) != ""


# -- growth ---------------------------------------------------------------------------------------


def test_days_until_a_disk_is_full() -> None:
    minutes = Stored("1m", 10, 30.0)  # 14,400 bars a day
    hours = Stored("4h", 10, 30.0)  # 60 bars a day
    found = Growth(100.0, 0, [minutes, hours])
    per_day = 100.0 * (14_400 + 60)
    assert days_until_full(found, {}, int(50 * per_day)) == pytest.approx(50)
    assert days_until_full(found._replace(free_bytes=int(10 * per_day)), {}, int(50 * per_day)) == pytest.approx(60)
    # Minutes are kept 40 days: ten more days of growth, then the hours' alone.
    room = 10 * per_day + 7 * 6000
    assert days_until_full(found, {"1m": 40.0}, int(room)) == pytest.approx(17)
    assert days_until_full(found, {"1m": 20.0}, 6000) == pytest.approx(1)
    assert days_until_full(found, {"1m": 40.0}, int(5 * per_day)) == pytest.approx(5)
    assert days_until_full(found, {"1m": 20.0, "4h": 10.0}, 1) is None


def test_growth_of_a_real_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = config(tmp_path)
    assert disk.growth(there) == []
    path = tmp_path / "main" / "klines.db"
    with closing(Archive(path, there.store)) as archive:
        assert disk.growth(there) == []
        listings = (Listing("BTCUSDT"), Listing("ETHUSDT"))
        archive.write(Batch(listings, bars(np.repeat(START + np.arange(3) * MINUTE, 2), slot=[0, 1] * 3)))
        assert disk.measure(path).row_bytes == disk._ROW_BYTES  # too few to tell
        before = path.stat().st_size + archive.wal_bytes
        archive.write(Batch(listings, bars(np.repeat(START + np.arange(5000) * MINUTE, 2), slot=[0, 1] * 5000)))
    found = disk.measure(path)
    assert found.stored == [Stored("1m", 2, pytest.approx(5000 / 1440))]
    assert found.row_bytes == pytest.approx((path.stat().st_size - before) / 10_000, rel=0.2)
    for days, verdict in ((5, "bad"), (50, "warn"), (5000, "ok")):
        free = int(days * 2 * 1440 * found.row_bytes)
        monkeypatch.setattr(os, "statvfs", lambda path, free=free: space(free))
        (line,) = disk.growth(there)
        assert line.verdict == verdict and bool(line.advice) == (verdict != "ok")
        assert time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * 86_400))[:7] in line.found or days == 5000
    (line,) = disk.growth(config(tmp_path, retention_days={"1m": 2}))
    assert line.verdict == "ok" and "does not fill" in line.found
    path.write_bytes(b"no database" * 100)
    assert verdicts(disk.growth(there)) == [("growth", "warn")]
