"""Rows under fire: nothing torn, nothing going back; and without its guard each promise is seen to break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from klshm.errors import RowBusy
from klshm.shm import layout as lay
from klshm.shm.compile import COMPILED
from klshm.shm.layout import ROW_WORDS
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView, SymbolTable, read_clock
from tests.shm.hammers import (
    BACK,
    BUSY,
    LAST_SEQUENCE,
    LAST_VALUE,
    READS,
    SEEN_WORDS,
    TORN,
    hammer_row,
    judge_row,
    run_batches,
    watch_row,
)
from tests.shm.rounds import shown, while_it_runs
from tests.shm.segments import MINUTE, START, Partition
from tests.support.processes import forked


pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(not COMPILED, reason="without the compiler nothing here is fast enough to collide"),
]

EVER = 1 << 60
PAUSE = 4000
ROUNDS_S = 0.4
TRIES = 5

Look = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], None]


def hammer(partition: Partition, at: int, open_time: int = -1, guarded: bool = True) -> Callable[[], None]:
    image = np.zeros(ROW_WORDS, dtype=np.int64)
    hammer_row(partition.words, at, image, open_time, 1, 2, 1, guarded)
    return lambda: hammer_row(partition.words, at, image, open_time, 2, EVER, PAUSE, guarded)


def watch(look: Look) -> list[int]:
    """Look at a row for a while and return what was seen."""
    row, seen = np.zeros(ROW_WORDS, dtype=np.int64), np.zeros(SEEN_WORDS, dtype=np.int64)
    for _ in while_it_runs(ROUNDS_S, lambda: min(seen[READS], seen[LAST_VALUE]) > 100):
        look(row, seen)
    found = seen.tolist()
    print("torn, back, busy, sequence, value, reads:", found)
    return found


def shows(look: Look, what: int, fault: str) -> None:
    shown((watch(look)[what] for _ in range(TRIES)), fault)


def by_kernel(partition: Partition, at: int, guarded: bool = True) -> Look:
    return lambda row, seen: watch_row(partition.words, at, row, 20_000, seen, guarded)


def by_view(view: PartitionView, read: Callable[[], bytes] | None = None) -> Look:
    """Read as every reader does: with NumPy alone."""

    def look(row: Any, seen: Any) -> None:
        for _ in range(500):
            try:
                row[:] = np.frombuffer(read() if read else view.live_bytes(0, 0), dtype=np.int64)
            except RowBusy:
                seen[BUSY] += 1
                continue
            judge_row(row, seen, row[0])

    return look


def check(found: list[int]) -> None:
    assert found[TORN] == 0
    assert found[BACK] == 0
    assert found[READS] > 100
    assert found[LAST_VALUE] > 100, "the writer was not seen to run: this proves nothing"
    assert found[LAST_SEQUENCE] == 2 * found[LAST_VALUE]


def test_compiled_readers_never_see_a_torn_row(segment: Segment) -> None:
    partition = Partition(segment)
    with forked(hammer(partition, partition.live)):
        check(watch(by_kernel(partition, partition.live)))


def test_numpy_readers_never_see_a_torn_row(segment: Segment) -> None:
    partition = Partition(segment)
    with forked(hammer(partition, partition.live)):
        check(watch(by_view(PartitionView(segment, 0))))


def test_several_readers_at_once(segment: Segment) -> None:
    partition = Partition(segment)
    with (
        forked(hammer(partition, partition.live)),
        forked(lambda: watch(by_kernel(partition, partition.live))),
        forked(lambda: watch(by_kernel(partition, partition.live))),
    ):
        check(watch(by_view(PartitionView(segment, 0))))


def test_a_writer_that_marks_nothing_is_seen_to_tear_rows(segment: Segment) -> None:
    partition = Partition(segment)
    with forked(hammer(partition, partition.live, guarded=False)):
        shows(by_kernel(partition, partition.live), TORN, "a torn row")
        shows(by_view(PartitionView(segment, 0)), TORN, "a torn row")


def test_a_reader_that_checks_nothing_is_seen_to_read_torn_rows(segment: Segment) -> None:
    partition = Partition(segment)
    live = segment.region(segment.layout.live_offset(0), lay.ROW_BYTES)
    with forked(hammer(partition, partition.live)):
        shows(by_kernel(partition, partition.live, guarded=False), TORN, "a torn row")
        shows(by_view(PartitionView(segment, 0), lambda: live.tobytes()), TORN, "a torn row")


def swapping(partition: Partition) -> Callable[[], None]:
    """Return a writer that changes row 0 and swaps, as fast as it can."""
    places = np.array(
        [partition.block, partition.live, *partition.halves, partition.rows, partition.cut], dtype=np.int64
    )
    image = np.zeros(ROW_WORDS, dtype=np.int64)
    run_batches(partition.words, places, partition.private, image, 0, 2, 1, True)
    return lambda: run_batches(partition.words, places, partition.private, image, 2, EVER, PAUSE, True)


def test_live_rows_never_go_back_across_swaps(segment: Segment) -> None:
    partition = Partition(segment)
    view = PartitionView(segment, 0)
    with forked(swapping(partition)):
        found = watch(by_view(view))
        generations = view.generation
    assert (found[TORN], found[BACK]) == (0, 0)
    assert found[READS] > 100 and found[LAST_VALUE] > 100 and generations > 100


def test_live_read_from_the_half_being_written_is_seen_to_go_back(segment: Segment) -> None:
    """The original idea: the newest state is in the half that is not published."""
    partition = Partition(segment)
    view = PartitionView(segment, 0)
    halves = [segment.region(segment.layout.half_offset(0, half), lay.ROW_BYTES) for half in (0, 1)]

    def newest() -> bytes:
        half = halves[(view.generation + 1) & 1]
        while True:
            sequence = int(half[0])
            data = half.tobytes()
            if not sequence & 1 and int(half[0]) == sequence:
                return data

    with forked(swapping(partition)):
        shows(by_view(view, newest), BACK, "a row that goes back")


def test_history_is_never_torn(segment: Segment) -> None:
    partition = Partition(segment)
    view = PartitionView(segment, 0)
    index = START // MINUTE % segment.layout.history_rows[0]
    reads = torn = back = last = 0

    def runs() -> bool:
        return min(reads, last) > 100

    with forked(hammer(partition, partition.history_row(0, 0, index), START)):
        for _ in while_it_runs(ROUNDS_S, runs):
            try:
                rows = view.history(0, 0, START - 20 * MINUTE, START + 20 * MINUTE)
            except RowBusy:
                continue
            (values,) = rows.view(np.int64).reshape(-1, ROW_WORDS)[:, 2:].tolist()
            torn += len(set(values)) > 1
            back += values[0] < last
            last = values[0]
            reads += 1
    print("torn, back, last, reads:", torn, back, last, reads)
    assert (torn, back) == (0, 0)
    assert reads > 100 and last > 100


def test_the_exchange_clock_is_never_torn(segment: Segment) -> None:
    partition = Partition(segment)
    line = segment.layout.historian_offset // 8
    reads = torn = back = last = 0

    def runs() -> bool:
        return min(reads, last) > 100

    with forked(hammer(partition, line)):
        for _ in while_it_runs(ROUNDS_S, runs):
            clock = read_clock(segment)
            if clock is not None:
                values = {clock.offset_ns, clock.error_ns, clock.synced_ns, clock.round_trip_ns}
                torn += len(values) > 1
                back += clock.synced_ns < last
                last = clock.synced_ns
                reads += 1
    print("torn, back, last, reads:", torn, back, last, reads)
    assert (torn, back) == (0, 0)
    assert reads > 100 and last > 100


def test_symbols_are_never_torn(segment: Segment) -> None:
    """The historian's own writer against every reader's own table."""
    from klshm.exchange.models import Listing
    from klshm.historian.symbols import Entry, SymbolBook

    assert Listing is not None
    book = SymbolBook(segment)

    def entry(number: int) -> Entry:
        name, pair = f"N{number:060d}", f"P{number:060d}"
        return Entry(0, name, lay.SYMBOL_TRADING, number, number, 2, 3, number, number, number, 1, pair, number)

    book.entries.append(entry(1))
    book.replace([entry(1)])
    segment.block(segment.layout.historian_offset)[lay.B_SYMBOL_COUNT] = 1

    def write() -> None:
        for number in range(2, EVER):
            book.replace([entry(number)])

    table = SymbolTable(segment)
    reads = torn = back = last = 0

    def runs() -> bool:
        return min(reads, last) > 100

    with forked(write):
        for _ in while_it_runs(ROUNDS_S, runs):
            try:
                (row,) = table.rows()
            except RowBusy:
                continue
            number = int(row["generation"])
            cells = [int(row[name]) for name in ("worker", "local_slot", "onboard_ms", "delivery_ms", "trades_24h")]
            torn += cells != [number] * 5
            torn += (row["name"], row["pair"]) != (f"N{number:060d}".encode(), f"P{number:060d}".encode())
            back += number < last
            last = number
            reads += 1
    print("torn, back, last, reads:", torn, back, last, reads)
    assert (torn, back) == (0, 0)
    assert reads > 100 and last > 100
