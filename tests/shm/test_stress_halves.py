"""Cuts under fire: one batch over all rows of a worker, quiet rows constant, whole after kill -9."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Callable

import numpy as np
import pytest

from klshm.errors import SnapshotBusy
from klshm.shm import layout as lay
from klshm.shm.compile import COMPILED
from klshm.shm.halves import mark_all
from klshm.shm.layout import ROW_WORDS
from klshm.shm.segment import Segment
from klshm.shm.view import Cut, PartitionView, take_cuts
from tests.shm.hammers import due, run_batches, write_live
from tests.shm.rounds import shown, while_it_runs
from tests.shm.segments import Partition
from tests.support.processes import forked


pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(not COMPILED, reason="without the compiler nothing here is fast enough to collide"),
]

EVER = 1 << 60
PAUSE = 60_000
ROUNDS_S = 0.6
TRIES = 5
KILLS = 60


class Worker:
    """Writes the rows that are due and swaps, batch after batch, as fast as it can."""

    def __init__(self, segment: Segment, worker: int = 0, carry: bool = True) -> None:
        self.partition = part = Partition(segment, worker)
        self.carry = carry
        self.places = np.array([part.block, part.live, *part.halves, part.rows, part.cut], dtype=np.int64)
        self.image = np.zeros(ROW_WORDS, dtype=np.int64)
        self.run(0, 3)

    def run(self, first: int, last: int = EVER) -> None:
        part = self.partition
        run_batches(part.words, self.places, part.private, self.image, first, last, PAUSE, self.carry)

    def resume(self, guarded: bool = True) -> None:
        """Go on where a killed worker stopped: make every live row what it should be, then the next batch."""
        part = self.partition
        part.words[part.block + lay.B_PID] = os.getpid()
        part.private[:] = 0
        rows = part.words[part.live : part.live + part.rows * ROW_WORDS].reshape(-1, ROW_WORDS)
        batch = int(rows[:, 2].max())
        for row in range(part.rows):
            write_live(part.words, part.live, self.image, row, due(row, batch))
        if guarded:
            mark_all(part.private, 0, part.rows)
        self.run(batch + 1)


def faults(cut: Cut) -> int:
    """Return how many rows are not what they should be in the batch that the cut says it is of."""
    rows = np.ascontiguousarray(cut.rows).view(np.int64).reshape(-1, ROW_WORDS)
    numbers = np.arange(len(rows))
    wanted = np.where(numbers % 8 == 7, 0, cut.batch - cut.batch % (numbers % 8 + 1))
    wrong = np.any(rows[:, 1:] != wanted[:, None], axis=1)
    said = {cut.batch, cut.mono_ns, cut.exchange_ms, cut.closed_through_ms}
    return int(wrong.sum()) + (len(said) > 1)


def watch(take: Callable[[], list[Cut]]) -> dict[str, int]:
    """Take cuts for a while and count what is wrong with them."""
    found = {"cuts": 0, "faults": 0, "back": 0, "busy": 0, "batch": 0}
    for _ in while_it_runs(ROUNDS_S, lambda: min(found["cuts"], found["batch"]) > 100):
        try:
            cuts = take()
        except SnapshotBusy:
            found["busy"] += 1
            continue
        found["cuts"] += 1
        found["faults"] += sum(map(faults, cuts))
        found["back"] += cuts[0].batch < found["batch"]
        found["batch"] = cuts[0].batch
    print(found)
    return found


def shows(take: Callable[[], list[Cut]]) -> None:
    shown((watch(take)["faults"] for _ in range(TRIES)), "a cut of more than one batch")


@pytest.fixture
def big(make: Callable[..., Segment]) -> Segment:
    return make(slots=64, interval_codes=(0, 2, 4, 7, 11, 12), history_rows=(32,) * 6)


def test_a_cut_has_one_batch_over_all_rows(big: Segment) -> None:
    view = PartitionView(big, 0)
    with forked(lambda: Worker(big).run(3)):
        found = watch(lambda: [view.cut()])
    assert (found["faults"], found["back"]) == (0, 0)
    assert found["cuts"] > 100 and found["batch"] > 100


def test_cuts_of_several_workers_are_each_exact(big: Segment) -> None:
    views = [PartitionView(big, worker) for worker in (0, 1)]
    with forked(lambda: Worker(big, 0).run(3)), forked(lambda: Worker(big, 1).run(3)):
        found = watch(lambda: take_cuts(views))
    assert (found["faults"], found["back"]) == (0, 0)
    assert found["cuts"] > 30 and found["batch"] > 100


def test_a_reader_that_does_not_look_at_the_intent_is_seen_to_mix_batches(big: Segment) -> None:
    view = PartitionView(big, 0)
    with forked(lambda: Worker(big).run(3)):
        shows(lambda: [view._copy_half(view.generation)])


def test_a_reader_of_the_other_half_is_seen_to_mix_batches(big: Segment) -> None:
    view = PartitionView(big, 0)

    def other() -> list[Cut]:
        generation = view.generation
        return [dataclasses.replace(view._copy_half(generation + 1), generation=generation)]

    with forked(lambda: Worker(big).run(3)):
        shows(other)


def test_a_swap_that_carries_nothing_forward_is_seen_to_lose_rows(big: Segment) -> None:
    """The original's double buffer: a quiet symbol flips between its bar and a stale one."""
    view = PartitionView(big, 0)
    with forked(lambda: Worker(big, carry=False).run(3)):
        shows(lambda: [view.cut()])


def kill_in_a_loop(big: Segment, seed: int, guarded: bool) -> dict[str, int]:
    """Kill the worker at random instants; look at the half it leaves and at those its successor makes."""
    print("seed", seed)
    chance = random.Random(seed)
    view, worker = PartitionView(big, 0), Worker(big)
    found = {"left": 0, "made": 0, "building": 0, "odd": 0, "batch": 0}
    for _ in range(KILLS):
        with forked(lambda: worker.resume(guarded)) as pid:
            while int(view.block[lay.B_PID]) != pid:
                os.sched_yield()
            end_s = time.monotonic() + chance.uniform(0.001, 0.006)
            while time.monotonic() < end_s:
                try:
                    found["made"] += faults(view.cut())
                except SnapshotBusy:
                    continue
        cut = view.cut()
        found["left"] += faults(cut)
        found["building"] += int(view.block[lay.B_INTENT]) != cut.generation
        found["odd"] += int((view._live.reshape(-1, ROW_WORDS)[:, 0] & 1).sum())
        assert cut.batch >= found["batch"]
        found["batch"] = cut.batch
    print(found)
    return found


def test_the_readable_half_is_whole_after_every_kill(big: Segment) -> None:
    found = kill_in_a_loop(big, 20261120, guarded=True)
    assert (found["left"], found["made"]) == (0, 0)
    assert found["batch"] > KILLS
    assert found["building"], "no kill fell into a swap: this run proved nothing"


def test_a_successor_that_does_not_count_all_rows_as_changed_is_seen_to_lose_rows(big: Segment) -> None:
    found = (kill_in_a_loop(big, seed, guarded=False) for seed in range(TRIES))
    shown((each["left"] + each["made"] for each in found), "a stale row")
