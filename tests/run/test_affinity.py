"""Which core a worker is pinned to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.errors import ConfigError
from klshm.run import affinity
from klshm.run.affinity import pin, plan, usable_cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of four physical cores with two threads each; 8 and 9 say nothing of themselves."""
    for core in range(8):
        topology = tmp_path / f"cpu{core}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{core % 4},{core % 4 + 4}\n")
    monkeypatch.setattr(affinity, "_CPU", tmp_path)
    return tmp_path


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
    machine: Path, workers: int, allowed: list[int], cores: list[int]
) -> None:
    assert plan("auto", workers, allowed) == cores


@pytest.mark.parametrize(("workers", "warned"), [(3, False), (4, True), (9, True)])
def test_workers_that_share_are_told_so_once(
    machine: Path, caplog: pytest.LogCaptureFixture, workers: int, warned: bool
) -> None:
    plan("auto", workers, list(range(8)))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned


@pytest.mark.parametrize(
    ("isolated", "workers", "cores"),
    [
        ("", 2, [1, 2]),
        ("2-3,6-7", 1, [2]),
        ("2-3,6-7", 2, [2, 3]),
        ("2-3,6-7", 4, [2, 3, 6, 7]),  # threads of the isolated cores before cores of everybody
        ("3", 2, [3, 1]),  # one is isolated, the other leaves the first core to everything else
        ("3,7", 4, [3, 7, 1, 2]),
        ("0-7", 2, [1, 2]),  # nothing else is left: as if none were
        ("9-12", 2, [1, 2]),  # none of them may be used
    ],
)
def test_isolated_cores_are_preferred(machine: Path, isolated: str, workers: int, cores: list[int]) -> None:
    (machine / "isolated").write_text(isolated + "\n")
    assert plan("auto", workers, list(range(8))) == cores


def test_enough_isolated_cores_are_not_shared(machine: Path, caplog: pytest.LogCaptureFixture) -> None:
    (machine / "isolated").write_text("2-3\n")
    assert plan("auto", 2, [0, 2, 3]) == [2, 3]
    assert not caplog.records


@pytest.fixture
def two_cores(machine: Path) -> Iterator[list[int]]:
    """Two real cores, the second left out of this process's mask as `isolcpus=` does."""
    before = sorted(os.sched_getaffinity(0))
    if len(before) < 2:
        pytest.skip("one core")
    own, other = before[:2]
    (machine / "online").write_text(f"{own},{other}\n")
    (machine / "isolated").write_text(f"{other}\n")
    os.sched_setaffinity(0, {own})
    try:
        yield [own, other]
    finally:
        os.sched_setaffinity(0, before)


def test_an_isolated_core_is_asked_for(two_cores: list[int]) -> None:
    own, other = two_cores
    assert usable_cores() == [own, other]
    assert os.sched_getaffinity(0) == {own}
    assert plan("auto", 1) == plan(str(other), 1) == [other]
    assert pin(other)


def test_a_narrower_mask_is_kept(machine: Path, two_cores: list[int]) -> None:
    own, other = two_cores
    (machine / "online").write_text(f"{own},{other},9\n")
    assert usable_cores() == [own]
    assert plan("auto", 1) == [own]


def test_an_isolated_core_that_is_forbidden(machine: Path, two_cores: list[int]) -> None:
    own, other = two_cores
    (machine / "online").write_text(f"{own},{other},1000\n")
    (machine / "isolated").write_text(f"{other},1000\n")
    assert usable_cores() == [own, other]


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
