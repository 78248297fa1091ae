"""The reading side of a ring: everything is seen or counted, nothing twice, nothing wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.shm.consumer import RingConsumer
from klshm.shm.layout import ROW_WORDS
from klshm.shm.ring import RingProducer, write_entry
from tests.shm.segments import bars


CAPACITY = 16


class Ring:
    """A ring in private memory; entry p says p."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.words = np.zeros(capacity * ROW_WORDS + 1, dtype=np.int64)
        self.producer = RingProducer(self.words, 0, capacity, capacity * ROW_WORDS)

    def write(self, count: int, publish: bool = True) -> None:
        for _ in range(count):
            self.producer.append(bars([self.producer.position]))
        if publish:
            self.producer.publish()

    def consumer(self, cursor: int = 0) -> RingConsumer:
        return RingConsumer(self.words[:-1], self.words[-1:], cursor)


def values(rows: Any) -> list[int]:
    return rows["open_time"].tolist()


def test_entries_come_in_order_and_once() -> None:
    ring = Ring()
    consumer = ring.consumer()
    assert values(consumer.take()) == [] and consumer.behind == 0
    ring.write(5)
    assert consumer.behind == 5
    assert values(consumer.take(limit=2)) == [0, 1]
    assert values(consumer.take()) == [2, 3, 4]
    assert values(consumer.take()) == []
    assert (consumer.lost, consumer.cursor) == (0, 5)


def test_entries_across_the_end_of_the_ring_come_in_order() -> None:
    ring = Ring()
    consumer = ring.consumer()
    ring.write(12)
    consumer.take()
    ring.write(10)
    rows = consumer.take()
    assert values(rows) == list(range(12, 22))
    assert rows["sequence"].tolist() == [2 * p + 2 for p in range(12, 22)]


def test_what_was_taken_is_a_copy() -> None:
    ring = Ring()
    ring.write(1)
    rows = ring.consumer().take()
    ring.write(CAPACITY)
    assert values(rows) == [0]


def test_a_full_ring_can_be_taken_whole() -> None:
    ring = Ring()
    ring.write(CAPACITY)
    consumer = ring.consumer()
    assert values(consumer.take()) == list(range(CAPACITY))
    assert consumer.lost == 0


def test_an_overrun_is_counted_and_leaves_a_margin() -> None:
    ring = Ring()
    consumer = ring.consumer()
    ring.write(CAPACITY + 1)
    assert values(consumer.take()) == list(range(3, 17)), "an eighth of the ring is left to the producer"
    assert consumer.lost == 3


@pytest.mark.parametrize("laps", [2, 7])
def test_two_waves_over_a_sleeping_consumer(laps: int) -> None:
    ring = Ring()
    consumer = ring.consumer()
    for _ in range(laps):
        ring.write(CAPACITY)
    rows = values(consumer.take())
    assert rows == list(range((laps - 1) * CAPACITY + 2, laps * CAPACITY))
    assert consumer.lost + len(rows) == consumer.cursor == laps * CAPACITY


def test_a_wave_larger_than_the_ring() -> None:
    ring = Ring()
    consumer = ring.consumer()
    ring.write(3 * CAPACITY)
    rows = values(consumer.take())
    assert rows[-1] == 3 * CAPACITY - 1 and consumer.lost + len(rows) == 3 * CAPACITY


def test_entries_overwritten_before_the_tail_moved_are_lost_not_wrong() -> None:
    """The producer is in the middle of a wave: the ring holds what the tail does not speak of yet."""
    ring = Ring()
    consumer = ring.consumer()
    ring.write(CAPACITY)
    ring.write(3, publish=False)
    rows = values(consumer.take())
    assert rows == list(range(4, 16)), "in steps of an eighth past what is gone"
    assert consumer.lost == 4
    ring.producer.publish()
    assert values(consumer.take()) == [16, 17, 18]
    assert consumer.lost == 4


def test_a_wave_over_the_whole_ring_before_the_tail_moved() -> None:
    ring = Ring()
    consumer = ring.consumer()
    ring.write(CAPACITY)
    ring.write(CAPACITY, publish=False)
    assert values(consumer.take()) == []
    assert consumer.lost == consumer.cursor == CAPACITY, "all sixteen are gone, each counted once"
    ring.producer.publish()
    assert values(consumer.take()) == list(range(16, 32))


def test_an_entry_that_is_being_written_is_not_taken() -> None:
    ring = Ring()
    consumer = ring.consumer()
    ring.write(CAPACITY)
    ring.words[0] = 2 * CAPACITY + 1  # the oldest is being replaced right now
    assert values(consumer.take()) == list(range(2, CAPACITY))
    assert consumer.lost == 2


def test_the_smallest_ring_moves_on_by_one() -> None:
    ring = Ring(4)
    consumer = ring.consumer()
    ring.write(4)
    ring.write(1, publish=False)
    assert values(consumer.take()) == [1, 2, 3]
    assert consumer.lost == 1


class Racing(RingConsumer):
    """A consumer whose producer writes more while it copies: a thread of events, made certain."""

    ring: Ring
    plan: list[tuple[int, bool]]

    def _copy(self, position: int, count: int) -> Any:
        copied = super()._copy(position, count)
        if self.plan:
            self.ring.write(*self.plan.pop(0))
        return copied


def racing(ring: Ring, plan: list[tuple[int, bool]]) -> Racing:
    consumer = Racing(ring.words[:-1], ring.words[-1:])
    consumer.ring, consumer.plan = ring, plan
    return consumer


def test_an_overrun_during_the_copy_is_noticed() -> None:
    ring = Ring()
    ring.write(CAPACITY)
    consumer = racing(ring, [(5, True)])
    assert values(consumer.take()) == list(range(7, 21))
    assert consumer.lost == 7


def test_a_consumer_that_is_always_too_slow_gives_up_for_now() -> None:
    ring = Ring()
    ring.write(CAPACITY)
    consumer = racing(ring, [(CAPACITY, True)] * 8)
    assert values(consumer.take()) == []
    behind = consumer.behind
    assert behind > 0, "there is more; the next call goes on"
    rows = values(consumer.take())
    assert rows[-1] == 9 * CAPACITY - 1
    assert consumer.lost + len(rows) == consumer.cursor == 9 * CAPACITY


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 40), st.booleans()),
        st.tuples(
            st.just("take"), st.integers(1, 40), st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=3)
        ),
    ),
    max_size=25,
)


@given(steps, st.sampled_from([4, 16, 32]))
def test_seen_and_lost_are_all_there_ever_was(history: list[Any], capacity: int) -> None:
    ring = Ring(capacity)
    consumer = racing(ring, [])
    seen: list[int] = []
    for what, count, more in history:
        if what == "write":
            ring.write(count, more)
            continue
        consumer.plan = list(more)
        rows = consumer.take(count)
        got = values(rows)
        assert got == list(range(consumer.cursor - len(got), consumer.cursor)), "an entry is wrong or out of order"
        assert rows["sequence"].tolist() == [2 * p + 2 for p in got]
        seen += got
        assert len(seen) + consumer.lost == consumer.cursor <= consumer.tail
    consumer.plan = []
    ring.producer.publish()
    while consumer.behind:
        seen += values(consumer.take())
    assert len(set(seen)) == len(seen)
    assert len(seen) + consumer.lost == ring.producer.position


def test_the_ring_is_written_by_the_kernel_that_workers_use() -> None:
    ring = Ring()
    write_entry(ring.words, 0, CAPACITY, 0, bars([41]).view(np.int64), 0)
    ring.words[-1] = 1
    assert values(ring.consumer().take()) == [41]
