"""Dying on purpose: which life of which role dies where, and that it is at once."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import klshm
from klshm.config.crash_points import CRASH_POINTS
from klshm.shm.compile import kernel
from klshm.shm.crash import IN_KERNELS, TAIL_MOVED, Crash
from klshm.shm.crash_here import crash_here
from tests.support.processes import exit_code, fork


POINTS = ("worker.log_written", "persister.trimmed", "worker.waiters_woken")


@kernel("void(int64[::1], int64)", cache=False)
def pass_twice(words, at):
    crash_here(words, at, TAIL_MOVED)
    words[0] += 1
    crash_here(words, at, TAIL_MOVED)
    words[0] += 1


@pytest.mark.parametrize(
    ("role", "life", "point"),
    [
        ("worker", 1, "worker.log_written"),
        ("worker", 2, "worker.waiters_woken"),
        ("worker", 3, ""),
        ("worker", 0, ""),
        ("persister", 1, "persister.trimmed"),
        ("historian", 1, ""),
        ("work", 1, ""),
    ],
)
def test_the_nth_life_of_a_role_dies_at_the_nth_of_its_points(role: str, life: int, point: str) -> None:
    assert Crash(POINTS, role, life).point == point


def test_only_points_inside_kernels_have_a_word() -> None:
    assert Crash(POINTS, "worker", 1, after_n=5).word == IN_KERNELS["worker.log_written"] << 32 | 5
    assert Crash(POINTS, "worker", 2).word == 0
    assert Crash().word == 0


def test_a_process_dies_at_the_passing_that_was_asked_for() -> None:
    crash = Crash(POINTS, "persister", after_n=2)
    crash.passing("persister.blocks_read")
    crash.passing("persister.trimmed")  # the first time of two

    def pass_again() -> None:
        crash.passing("persister.blocks_read")
        crash.passing("persister.trimmed")

    assert exit_code(fork(pass_again)) == -signal.SIGKILL


@pytest.mark.parametrize(("word", "after"), [(0, 2), (TAIL_MOVED << 32 | 3, 2), (TAIL_MOVED + 1 << 32 | 1, 2)])
def test_a_kernel_lives_on(word: int, after: int) -> None:
    words = np.array([0, word], dtype=np.int64)
    pass_twice(words, 1)
    assert words[0] == after
    assert words[1] == (word - 2 if word >> 32 == TAIL_MOVED else word)


@pytest.mark.parametrize(("passes", "done"), [(1, 0), (2, 1)])
def test_a_kernel_dies_between_two_stores(passes: int, done: int, tmp_path: Path) -> None:
    words: Any = np.memmap(tmp_path / "words", dtype=np.int64, mode="w+", shape=2)
    words[1] = TAIL_MOVED << 32 | passes
    plain = np.frombuffer(words, dtype=np.int64)
    assert exit_code(fork(lambda: pass_twice(plain, 1))) == -signal.SIGKILL
    assert words[0] == done


def test_every_name_is_a_point_of_the_program_and_the_other_way_round() -> None:
    kernels = [name for name in CRASH_POINTS if name in IN_KERNELS]
    assert kernels == list(IN_KERNELS), "the order of the worker's work"
    assert len(set(IN_KERNELS.values())) == len(IN_KERNELS) and 0 not in IN_KERNELS.values()
    sources = {path: path.read_text() for path in Path(klshm.__file__).parent.rglob("*.py")}
    for name in CRASH_POINTS:
        call = name.partition(".")[2].upper() + ")" if name in IN_KERNELS else f'.passing("{name}")'
        assert sum(text.count(call) for text in sources.values()) == 1, call
