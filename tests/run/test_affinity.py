"""Which core a worker is pinned to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from klshm.errors import ConfigError
from klshm.run import affinity
from klshm.run.affinity import pin, plan


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of four physical cores with two threads each; 8 and 9 say nothing of themselves."""

    def topology(path: str) -> Path:
        core = int(path.split("/cpu/cpu")[1].split("/")[0])
        file = tmp_path / str(core)
        if core < 8:
            file.write_text(f"{core % 4},{core % 4 + 4}\n")
        return file

    monkeypatch.setattr(affinity, "Path", topology)


@pytest.mark.parametrize(
    ("workers", "allowed", "cores"),
    [
        (1, [0, 1, 2, 3], [1]),
        (2, list(range(8)), [1, 2]),
        (3, list(range(8)), [1, 2, 3]),
        (2, [0, 4, 1, 5], [0, 1]),
        (4, list(range(8)), [0, 1, 2, 3]),
        (5, list(range(8)), [1, 2, 3, 4, 5]),
        (3, [0, 4], [0, 4, 0]),
        (2, [7, 8, 9], [8, 9]),
        (0, [0, 1], []),
    ],
)
def test_one_physical_core_each_where_there_are_enough(
    machine: None, workers: int, allowed: list[int], cores: list[int]
) -> None:
    assert plan("auto", workers, allowed) == cores


@pytest.mark.parametrize(("workers", "warned"), [(3, False), (4, True), (9, True)])
def test_workers_that_share_are_told_so_once(
    machine: None, caplog: pytest.LogCaptureFixture, workers: int, warned: bool
) -> None:
    plan("auto", workers, list(range(8)))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned


def test_without_pinning() -> None:
    assert plan("none", 3) == [None, None, None]
    assert not pin(None)


def test_named_cores_go_round() -> None:
    assert plan("2,3,6", 5, [1, 2, 3, 6]) == [2, 3, 6, 2, 3]


def test_a_core_that_may_not_be_used() -> None:
    with pytest.raises(ConfigError, match="run.affinity names core 9, this process may use 1,2; name some of these"):
        plan("2,9", 1, [1, 2])


def test_the_real_machine() -> None:
    mine = os.sched_getaffinity(0)
    assert set(plan("auto", 1)) <= mine
    assert plan(str(min(mine)), 2) == [min(mine)] * 2


def test_pinning_and_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    before = os.sched_getaffinity(0)
    try:
        assert pin(min(before))
        assert os.sched_getaffinity(0) == {min(before)}
        assert not pin(1000)
        assert "not pinned core=1000 reason=Invalid argument" in caplog.text
    finally:
        os.sched_setaffinity(0, before)
