"""The writing side of a ring."""

from __future__ import annotations

import numpy as np
import pytest

from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, ROW_WORDS
from klshm.shm.ring import RingProducer, adopt_entries, load_word, publish_tail, write_entry
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView
from tests.shm.segments import Partition, bars


def test_an_entry_is_stamped_with_its_position() -> None:
    words = np.zeros(8 * ROW_WORDS, dtype=np.int64)
    image = np.arange(ROW_WORDS, dtype=np.int64)
    write_entry(words, ROW_WORDS, 4, 6, image, 0)
    at = ROW_WORDS + 2 * ROW_WORDS
    assert words[at : at + ROW_WORDS].tolist() == [14, *range(1, 16)]
    assert not words[:at].any() and not words[at + ROW_WORDS :].any()


def test_entries_are_invisible_until_published(segment: Segment) -> None:
    producer, log = Partition(segment).producer(), PartitionView(segment, 0).log()
    producer.append(bars([1, 2, 3]))
    assert len(log.take()) == 0 and log.tail == 0
    producer.publish()
    assert log.take()["open_time"].tolist() == [1, 2, 3]
    assert log.tail == producer.position == 3


def test_publishing_nothing_moves_nothing(segment: Segment) -> None:
    partition = Partition(segment)
    producer = partition.producer()
    producer.append(np.empty(0, dtype=KLINE))
    producer.publish()
    assert partition.words[partition.tail] == 0


def test_rows_of_any_kind_can_be_appended(segment: Segment) -> None:
    producer, log = Partition(segment).producer(), PartitionView(segment, 0).log()
    rows = bars(range(1, 9))
    read_only = np.frombuffer(rows.tobytes(), dtype=KLINE)
    producer.append(read_only[:2])
    producer.append(rows[2::2])
    producer.publish()
    assert log.take()["open_time"].tolist() == [1, 2, 3, 5, 7]


def test_room_is_what_the_consumer_has_left(segment: Segment) -> None:
    layout, words = segment.layout, segment.words
    cursor = layout.partition_offset(0) // 8 + lay.B_CURSOR
    inbox = RingProducer(
        words,
        layout.inbox_offset(0) // 8,
        layout.inbox_rows,
        layout.historian_offset // 8 + lay.B_INBOX_TAILS,
        cursor,
    )
    assert inbox.room() == 32
    inbox.append(bars(range(30)))
    assert inbox.room() == 2, "what is not published yet takes room already"
    words[cursor] = 25
    assert inbox.room() == 27
    assert Partition(segment).producer().room() == segment.layout.log_rows, "nobody is waited for"


def test_a_successor_adopts_whole_entries_beyond_the_tail(segment: Segment) -> None:
    partition = Partition(segment)
    first = partition.producer()
    first.append(bars(range(60)))
    first.publish()
    first.append(bars(range(60, 70)))  # killed before it could publish
    half = partition.ring + (70 & 63) * ROW_WORDS
    partition.words[half] = 2 * 70 + 1  # and in the middle of another entry
    second = partition.producer()
    assert second.position == 70
    assert second.adopt() == 0, "there is nothing left to adopt"
    log = PartitionView(segment, 0).log(60)
    assert len(log.take()) == 0
    second.publish()
    assert log.take()["open_time"].tolist() == list(range(60, 70))


def test_adoption_ends_after_one_lap() -> None:
    words = np.zeros(4 * ROW_WORDS + 1, dtype=np.int64)
    producer = RingProducer(words, 0, 4, 4 * ROW_WORDS)
    producer.append(bars(range(4)))
    assert adopt_entries(words, 0, 4, 0) == 4
    again = RingProducer(words, 0, 4, 4 * ROW_WORDS)
    assert again.position == 4


@pytest.mark.parametrize("value", [0, 5, 1 << 40])
def test_words_that_others_wait_for(value: int) -> None:
    words = np.zeros(3, dtype=np.int64)
    publish_tail(words, 1, value)
    assert words.tolist() == [0, value, 0]
    assert load_word(words, 1) == value
