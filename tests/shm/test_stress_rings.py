"""Rings under fire: every entry seen or counted as lost, none wrong, also over kill -9 of the producer."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from klshm.shm.compile import COMPILED
from klshm.shm.consumer import RingConsumer
from klshm.shm.layout import KLINE, ROW_WORDS
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView
from tests.shm.hammers import produce
from tests.shm.rounds import shown, while_it_runs
from tests.shm.segments import Partition
from tests.support.processes import forked, wait_for


pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(not COMPILED, reason="without the compiler nothing here is fast enough to collide"),
]

EVER = 1 << 60
FAST, SLOW = 6_000, 1_500_000
"""Pauses after a batch: one that laps every consumer, one that a consumer can follow."""
ROUND_S = 0.5
TRIES = 5
KILLS = 80


class Trusting(RingConsumer):
    """A consumer that takes what the tail promises, without a look at the stamps."""

    def take(self, limit: int = 65_536) -> Any:
        tail = self.tail
        self._skip_overrun(tail)
        count = min(tail - self.cursor, limit, self.capacity)
        if count <= 0:
            return np.empty(0, dtype=KLINE)
        copied = self._copy(self.cursor, count)
        self.cursor += count
        return copied.view(KLINE).reshape(count)


@dataclass
class Tally:
    """What one consumer made of a ring."""

    seen: int = 0
    wrong: int = 0
    takes: int = 0

    def add(self, first: int, rows: Any) -> None:
        """Judge rows that should be the entries from `first` on."""
        if len(rows) == 0:
            return
        words = rows.view(np.int64).reshape(-1, ROW_WORDS)
        positions = np.arange(first, first + len(rows))
        # Entry p carries the number p + 1 in every word.
        right = (words[:, 0] == 2 * positions + 2) & (words[:, 1:] == positions[:, None] + 1).all(axis=1)
        self.seen += len(rows)
        self.wrong += int((~right).sum())
        self.takes += 1


class Ring:
    """The log of a segment's first worker, and what its producers hand on to each other."""

    def __init__(
        self, make: Callable[..., Segment], longest: int = FAST, rows: int = 256, instance: str = "test"
    ) -> None:
        self.segment = make(instance, log_rows=rows)
        self.longest = longest
        self.partition = Partition(self.segment, 0)
        # Shared by the producers only: last number in history, adopted entries, seed.
        self.own = self.segment.region(self.segment.layout.needs_offset(0), 24)
        self.image = np.zeros(ROW_WORDS, dtype=np.int64)

    def produce(self, batches: int = EVER, adopt: bool = True) -> None:
        part = self.partition
        rows, longest = part.layout.log_rows, self.longest
        produce(part.words, part.ring, rows, part.tail, self.image, self.own, batches, longest, adopt)

    def consumer(self, kind: type[RingConsumer] = RingConsumer) -> RingConsumer:
        log = PartitionView(self.segment, 0).log(0)
        return kind(log._rows.reshape(-1), log._tail, 0)


def consume(consumer: RingConsumer, tally: Tally, seconds: float, longest: int = 65_536) -> None:
    for _ in while_it_runs(seconds, lambda: tally.seen > 100):
        rows = consumer.take(longest)
        tally.add(consumer.cursor - len(rows), rows)


def check(consumer: RingConsumer, tally: Tally) -> None:
    print(tally, "lost", consumer.lost, "cursor", consumer.cursor, "tail", consumer.tail)
    assert tally.wrong == 0
    assert tally.seen + consumer.lost == consumer.cursor
    assert consumer.cursor <= consumer.tail
    assert tally.seen > 100


@pytest.mark.parametrize("longest", [65_536, 7])
def test_every_entry_is_seen_or_counted(make: Callable[..., Segment], longest: int) -> None:
    ring, tally = Ring(make), Tally()
    consumer = ring.consumer()
    with forked(ring.produce):
        consume(consumer, tally, ROUND_S, longest)
        wait_for(lambda: consumer.tail > consumer.cursor + ring.partition.layout.log_rows)  # it laps this consumer
        consume(consumer, tally, ROUND_S / 2, longest)
    consume(consumer, tally, 0.01, longest)
    check(consumer, tally)
    assert consumer.cursor == consumer.tail
    assert consumer.lost, "the consumer was never overrun: this run proved nothing"


def test_who_keeps_up_sees_nearly_everything(make: Callable[..., Segment]) -> None:
    ring, tally = Ring(make, SLOW, rows=1 << 16), Tally()
    consumer = ring.consumer()
    with forked(ring.produce):
        consume(consumer, tally, ROUND_S)
    consume(consumer, tally, 0.01)
    check(consumer, tally)
    assert tally.seen > consumer.lost


def test_each_of_several_consumers_has_its_own_account(make: Callable[..., Segment]) -> None:
    ring, tally = Ring(make), Tally()

    def another() -> None:
        consumer, its_own = ring.consumer(), Tally()
        consume(consumer, its_own, ROUND_S)
        check(consumer, its_own)

    with forked(ring.produce), forked(another) as pid:
        consumer = ring.consumer()
        consume(consumer, tally, ROUND_S)
        check(consumer, tally)
        wait_for_success(pid)


def wait_for_success(pid: int) -> None:
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert status is not None and (status.si_code, status.si_status) == (os.CLD_EXITED, 0)


def test_a_consumer_that_trusts_the_tail_is_seen_to_take_wrong_entries(make: Callable[..., Segment]) -> None:
    def wrong(attempt: int) -> int:
        ring, tally = Ring(make, instance=f"try-{attempt}"), Tally()
        consumer = ring.consumer(Trusting)
        with forked(ring.produce):
            consume(consumer, tally, ROUND_S)
        print(tally)
        return tally.wrong

    shown(map(wrong, range(TRIES)), "a wrong entry")


def kill_in_a_loop(ring: Ring, seed: int, adopt: bool = True) -> tuple[RingConsumer, Tally]:
    print("seed", seed)
    chance = random.Random(seed)
    consumer, tally = ring.consumer(), Tally()
    ring.own[2] = seed
    for _ in range(KILLS):
        before, end_s = consumer.tail, time.monotonic() + 1
        with forked(lambda: ring.produce(adopt=adopt)):
            while consumer.tail == before and time.monotonic() < end_s:
                os.sched_yield()
            consume(consumer, tally, chance.uniform(0, 0.001))
    return consumer, tally


def test_nothing_is_wrong_or_unaccounted_after_kills(make: Callable[..., Segment]) -> None:
    ring = Ring(make, SLOW // 50)
    consumer, tally = kill_in_a_loop(ring, 20261120)
    ring.produce(batches=1)  # the last of them makes visible what the one before left
    consume(consumer, tally, 0.01)
    check(consumer, tally)
    assert consumer.cursor == consumer.tail == int(ring.own[0]), "an entry in history is not in the log"
    print("adopted", int(ring.own[1]))
    assert ring.own[1], "no kill fell between an entry and the tail: this run proved nothing"


def test_a_producer_that_adopts_nothing_is_seen_to_lose_entries(make: Callable[..., Segment]) -> None:
    def lost(seed: int) -> bool:
        ring = Ring(make, instance=f"try-{seed}")
        consumer, tally = kill_in_a_loop(ring, seed, adopt=False)
        return tally.wrong > 0 or consumer.tail < ring.own[0]

    shown(map(lost, range(TRIES)), "a lost entry")
