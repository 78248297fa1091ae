"""What every reader reads with: rows, cuts, history, symbols, the clock."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

from klshm.errors import RowBusy, SnapshotBusy
from klshm.shm import layout as lay
from klshm.shm.halves import mark_row
from klshm.shm.layout import KLINE
from klshm.shm.rows import write_row
from klshm.shm.segment import Segment
from klshm.shm.view import (
    PartitionView,
    SymbolTable,
    exchange_now_ms,
    read_clock,
    take_cuts,
    wait_for_tail,
)
from tests.shm.segments import MINUTE, START, Partition, bars
from tests.support.processes import exit_code, fork


def put(partition: Partition, at: int, **fields: Any) -> None:
    write_row(partition.words, at, bars([1], **fields).view(np.int64), 0)


# -- live rows ----------------------------------------------------------------------------------------


def test_the_live_row_of_a_slot_and_interval(segment: Segment) -> None:
    partition, view = Partition(segment, 1), PartitionView(segment, 1)
    put(partition, partition.live_row(2 * 3 + 1), close=13.551, trade_count=7, quote_residual=-3)
    row = view.live_row(3, 1)
    assert (row["close"], row["trade_count"], row["quote_residual"], row["sequence"]) == (13.551, 7, -3, 2)
    assert view.live_row(3, 0)["sequence"] == 0
    assert PartitionView(segment, 0).live_row(3, 1)["sequence"] == 0, "another worker's row"


def test_what_is_returned_is_a_copy(segment: Segment) -> None:
    partition, view = Partition(segment), PartitionView(segment, 0)
    put(partition, partition.live, close=1.0)
    row, cut, history = view.live_row(0, 0), view.cut(), view.history(0, 0, 0, START)
    put(partition, partition.live, close=2.0)
    assert row["close"] == 1.0
    assert not np.shares_memory(cut.rows, segment.words) and not np.shares_memory(history, segment.words)


def test_a_row_that_stays_half_written_names_its_writer(segment: Segment) -> None:
    partition, view = Partition(segment, 1), PartitionView(segment, 1)
    put(partition, partition.live)
    partition.words[partition.live] |= 1
    partition.words[partition.block + lay.B_PID] = 4711
    partition.words[partition.block + lay.B_HEARTBEAT_NS] = time.monotonic_ns() - 2_500_000_000
    with pytest.raises(RowBusy, match=r"slot 0 .* 64 looks; worker 1 \(pid 4711\) last showed life 2\.\d s ago"):
        view.live_row(0, 0)
    put(partition, partition.live, close=3.0)
    assert view.live_row(0, 0)["close"] == 3.0


class Moving:
    """The words of the live table, with a writer that is faster than the first two looks."""

    def __init__(self, words: Any) -> None:
        self.words = words
        self.looks = 0

    def __getitem__(self, index: int) -> int:
        self.looks += 1
        return int(self.words[index]) - max(0, 2 * (3 - self.looks))


def test_a_row_that_changes_while_it_is_copied_is_copied_again(segment: Segment) -> None:
    partition, view = Partition(segment), PartitionView(segment, 0)
    for _ in range(4):
        put(partition, partition.live)
    moving = view._live_words = Moving(view._live_words)  # type: ignore[assignment]
    assert view.live_row(0, 0)["sequence"] == 8
    assert moving.looks == 4


def test_where_the_worker_stands(segment: Segment) -> None:
    partition, view = Partition(segment), PartitionView(segment, 0)
    partition.words[partition.block + lay.B_SETTLED_THROUGH_MS] = START
    partition.words[partition.block + lay.B_HEARTBEAT_NS] = 99
    assert (view.settled_through_ms, view.heartbeat_ns, view.generation) == (START, 99, 0)


# -- cuts ---------------------------------------------------------------------------------------------


def publish(partition: Partition, batch: int) -> None:
    for row in range(partition.rows):
        put(partition, partition.live_row(row), close=float(batch))
        mark_row(partition.private, 0, partition.rows, row)
    partition.swap(batch)


def test_the_needs_of_a_worker_are_one_row_per_slot(segment: Segment) -> None:
    at = segment.layout.needs_offset(1) // 8 + 3 * lay.ROW_WORDS
    segment.words[at + 4 : at + 6] = (START, START + MINUTE)
    needs = PartitionView(segment, 1).needs()
    assert len(needs) == segment.layout.slots
    assert (needs[3]["from_ms"], needs[3]["to_ms"]) == (START, START + MINUTE)
    assert not PartitionView(segment, 0).needs()["from_ms"].any()
    del needs


def test_a_cut_is_of_the_newest_generation(segment: Segment) -> None:
    partition, view = Partition(segment), PartitionView(segment, 0)
    for batch in (1, 2, 3):
        publish(partition, batch)
        cut = view.cut()
        assert cut.rows.shape == (8, 2) and cut.rows.dtype == KLINE
        assert (cut.generation, cut.batch) == (batch, batch)
        assert (cut.rows["close"] == batch).all()


class Overtaken(PartitionView):
    """A view whose worker publishes while it copies, so many times."""

    def __init__(self, segment: Segment, worker: int, batches: list[list[int]]) -> None:
        super().__init__(segment, worker)
        self.partition = Partition(segment, worker)
        self.batches = batches
        self.copies = 0

    def _copy_half(self, generation: int) -> Any:
        self.copies += 1
        batches = self.batches.pop(0) if self.batches else []
        for batch in batches:
            publish(self.partition, batch)
        return super()._copy_half(generation)


def test_one_publication_meanwhile_does_no_harm(segment: Segment) -> None:
    view = Overtaken(segment, 0, [[1]])
    assert view.cut().generation == 0 and view.copies == 1


def test_two_publications_meanwhile_ask_for_another_copy(segment: Segment) -> None:
    view = Overtaken(segment, 0, [[1, 2]])
    cut = view.cut()
    assert (cut.generation, cut.batch) == (2, 2) and view.copies == 2
    assert (cut.rows["close"] == 2).all()


def test_a_half_that_is_being_rewritten_is_not_taken(segment: Segment) -> None:
    """The swap that builds generation + 2 has begun but not ended."""
    view = PartitionView(segment, 0)
    view.block[lay.B_INTENT] = view.generation + 2
    with pytest.raises(SnapshotBusy, match="worker 0 published faster than this process could copy, 8 times"):
        view.cut()
    view.block[lay.B_INTENT] = view.generation + 1
    assert view.cut().generation == 0


def test_only_the_workers_that_were_overtaken_are_copied_again(segment: Segment) -> None:
    quiet, busy = Overtaken(segment, 0, []), Overtaken(segment, 1, [[1, 2], [3, 4]])
    cuts = take_cuts([quiet, busy])
    assert [cut.generation for cut in cuts] == [0, 4]
    assert (quiet.copies, busy.copies) == (1, 3)


# -- history ------------------------------------------------------------------------------------------


def keep(partition: Partition, minute: int, **fields: Any) -> None:
    rows = partition.layout.history_rows[0]
    open_time = START + minute * MINUTE
    put(partition, partition.history_row(0, 0, open_time // MINUTE % rows), open_time=open_time, **fields)


def minutes(rows: Any) -> list[int]:
    return [(time - START) // MINUTE for time in rows["open_time"].tolist()]


def test_history_is_oldest_first_and_leaves_out_what_is_not_there(segment: Segment) -> None:
    partition, view = Partition(segment), PartitionView(segment, 0)
    for minute in (0, 1, 3):
        keep(partition, minute, close=float(minute))
    rows = view.history(0, 0, START - 2 * MINUTE, START + 5 * MINUTE)
    assert minutes(rows) == [0, 1, 3] and rows["close"].tolist() == [0.0, 1.0, 3.0]
    assert len(view.history(0, 0, START + MINUTE, START)) == 0
    assert len(view.history(1, 0, START, START + MINUTE)) == 0, "another symbol"
    assert len(view.history(0, 1, START, START + 5 * MINUTE)) == 0, "another interval"


def test_at_most_two_less_than_the_rows_are_taken(segment: Segment) -> None:
    partition, view = Partition(segment), PartitionView(segment, 0)
    for minute in range(96):
        keep(partition, minute)
    assert minutes(view.history(0, 0, START, START + 95 * MINUTE)) == list(range(2, 96))
    keep(partition, 96)  # in the place of minute 0
    assert minutes(view.history(0, 0, START, START + 5 * MINUTE)) == [1, 2, 3, 4, 5]


def test_weeks_lie_by_their_mondays(make: Any) -> None:
    from klshm.intervals import code_of, length_ms, open_time_of

    segment = make(interval_codes=(code_of("1m"), code_of("1w")))
    partition, view = Partition(segment), PartitionView(segment, 0)
    week, monday = length_ms("1w"), open_time_of("1w", START)
    for n in range(3):
        index = ((monday + n * week) - 4 * 86_400_000) // week % 32
        put(partition, partition.history_row(0, 1, index), open_time=monday + n * week)
    assert view.history(0, 1, monday, monday + 2 * week)["open_time"].tolist() == [monday + n * week for n in range(3)]


def test_history_that_is_being_rewritten_for_ever_is_given_up(segment: Segment) -> None:
    partition, view = Partition(segment), PartitionView(segment, 0)
    keep(partition, 0)
    partition.words[partition.history_row(0, 0, START // MINUTE % 96)] |= 1
    with pytest.raises(RowBusy, match="history of slot 0 was rewritten over 64 looks"):
        view.history(0, 0, START, START + MINUTE)
    assert len(view.history(0, 0, START + MINUTE, START + 2 * MINUTE)) == 0, "the others can be read"


# -- logs ---------------------------------------------------------------------------------------------


def test_a_log_is_followed_from_its_tail_or_from_a_position(segment: Segment) -> None:
    partition, view = Partition(segment, 1), PartitionView(segment, 1)
    producer = partition.producer()
    producer.append(bars([1, 2, 3]))
    producer.publish()
    newest, from_one = view.log(), view.log(1)
    assert newest.take()["open_time"].tolist() == []
    assert from_one.take()["open_time"].tolist() == [2, 3]


def test_waiting_for_a_log_to_grow(segment: Segment) -> None:
    partition = Partition(segment)
    tails = [segment.layout.partition_offset(worker) // 8 + lay.B_TAIL for worker in (0, 1)]
    assert not wait_for_tail(segment, tails, [0, 0], 0.01)

    def write() -> None:
        producer = partition.producer()
        producer.append(bars([1]))
        producer.publish()

    pid = fork(write)
    assert wait_for_tail(segment, tails, [0, 0], 30)
    assert exit_code(pid) == 0
    assert wait_for_tail(segment, tails, [0, 0], 30), "it has grown already"


# -- symbols ------------------------------------------------------------------------------------------


def enlist(segment: Segment, slot: int, name: str, status: int = lay.SYMBOL_TRADING, sequence: int = 2) -> None:
    row = np.zeros(1, dtype=lay.SYMBOL)
    row["name"], row["status"], row["sequence"] = name.encode(), status, sequence
    at = segment.layout.symbols_offset // 8 + slot * lay.SYMBOL_WORDS
    segment.words[at : at + lay.SYMBOL_WORDS] = row.view(np.int64)
    block = segment.block(segment.layout.historian_offset)
    block[lay.B_SYMBOL_COUNT] = max(int(block[lay.B_SYMBOL_COUNT]), slot + 1)
    block[lay.B_SYMBOLS_VERSION] += 1


def test_symbols_are_found_by_name(segment: Segment) -> None:
    table = SymbolTable(segment)
    assert (table.version, table.count, len(table.rows()), table.find("BTCUSDT")) == (0, 0, 0, -1)
    enlist(segment, 0, "BTCUSDT")
    enlist(segment, 1, "币安人生USDT")
    assert (table.version, table.count) == (2, 2)
    assert [table.find(name) for name in ("BTCUSDT", "币安人生USDT", "ETHUSDT")] == [0, 1, -1]
    assert [table.name(slot) for slot in (0, 1)] == ["BTCUSDT", "币安人生USDT"]
    assert table.row(1)["status"] == lay.SYMBOL_TRADING


def test_a_tombstone_is_found_only_if_nothing_else_has_the_name(segment: Segment) -> None:
    table = SymbolTable(segment)
    enlist(segment, 0, "LUNAUSDT", lay.SYMBOL_DELISTED)
    assert table.find("LUNAUSDT") == 0
    enlist(segment, 1, "LUNAUSDT")
    assert table.find("LUNAUSDT") == 1
    enlist(segment, 2, "LUNAUSDT", lay.SYMBOL_DELISTED)
    assert table.find("LUNAUSDT") == 1


def test_a_change_is_seen_with_the_version(segment: Segment) -> None:
    table = SymbolTable(segment)
    enlist(segment, 0, "OLDUSDT")
    assert table.find("NEWUSDT") == -1
    enlist(segment, 0, "NEWUSDT", sequence=4)
    assert table.find("NEWUSDT") == 0 and table.find("OLDUSDT") == -1


def test_a_table_that_stays_half_written_is_given_up(segment: Segment) -> None:
    enlist(segment, 0, "BTCUSDT", sequence=3)
    with pytest.raises(RowBusy, match="symbols table was being written at every look"):
        SymbolTable(segment).rows()


# -- the clock ----------------------------------------------------------------------------------------


def set_clock(segment: Segment, *values: int) -> None:
    image = np.zeros(lay.ROW_WORDS, dtype=np.int64)
    image[1:5] = values
    write_row(segment.words, segment.layout.historian_offset // 8, image, 0)


def test_the_exchange_clock(segment: Segment) -> None:
    assert read_clock(segment) is None, "never measured"
    own_ms = time.time_ns() // 1_000_000
    assert abs(exchange_now_ms(segment) - own_ms) < 60_000, "this machine's own while there is no other"
    now_ns = time.monotonic_ns()
    set_clock(segment, START * 1_000_000 - now_ns, 2_000_000, now_ns, 5_000_000)
    clock = read_clock(segment)
    assert clock is not None
    assert (clock.error_ns, clock.synced_ns, clock.round_trip_ns) == (2_000_000, now_ns, 5_000_000)
    assert START <= clock.now_ms() < START + 60_000
    assert START <= exchange_now_ms(segment) < START + 60_000


def test_a_clock_whose_writer_was_killed_is_no_clock(segment: Segment) -> None:
    set_clock(segment, 1, 2, 3, 4)
    segment.block(segment.layout.historian_offset)[lay.B_CLOCK_SEQUENCE] |= 1
    assert read_clock(segment) is None
    set_clock(segment, 5, 6, 7, 8)
    clock = read_clock(segment)
    assert clock is not None and clock.offset_ns == 5


def test_reading_needs_no_compiler() -> None:
    import subprocess
    import sys

    code = "import sys, klshm.shm.view; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "False\n"
