"""What a start finds: a segment that a crash left behind, open bars in the journal, bars in the archive.

A dead segment is never adopted in place. What it holds is put into the journal by its own
symbols table; then it may be removed. All of it may be repeated if it is killed: cursors are
committed with the rows, and a bar that comes twice changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm.errors import ArchiveError
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, ROW_BYTES, ROW_WORDS, SYMBOL
from klshm.shm.segment import Segment
from klshm.store import names
from klshm.store.archive_reader import ArchiveReader, has_archive
from klshm.store.batch import Batch
from klshm.store.journal import Journal
from klshm.store.remains import open_bars_at_rest
from klshm.store.segment_rows import OPEN, Namer, interval_names, log_name, walk_history
from klshm.store.state import State, are_sound


__all__ = [
    "Drained",
    "drain_segment",
    "entries_at_rest",
    "journal_state",
    "last_confirmed",
    "load_latest",
    "open_bars_at_rest",
]

log = logging.getLogger(__name__)

Rows = np.ndarray[Any, Any]

_HISTORIAN: Final = "historian"
_TOGETHER_MS: Final = 300_000
"""Open minutes of symbols that were carried lie no further apart: the clock opens them for all at once."""
_MOST_BLOCK_ROWS: Final = 500_000


@dataclass(frozen=True)
class Drained:
    """What was found in a dead segment and is durable now.

    Attributes:
        log_rows: Bars from the closed-bar logs.
        backfill_rows: Bars from the historian's log.
        walked_rows: Bars from history, because a log had been overrun.
        open_bars: Open bars.
        lost_entries: Log entries that were overwritten or torn (history was walked for them).
    """

    log_rows: int = 0
    backfill_rows: int = 0
    walked_rows: int = 0
    open_bars: int = 0
    lost_entries: int = 0


def drain_segment(segment: Segment, data_directory: Path) -> Drained:
    """Put everything that a dead segment holds and the disk lacks into the journal.

    Args:
        segment: Its segment; no process of its engine may be alive.
        data_directory: The directory of the instance.

    Raises:
        StoreError: If the journal cannot be opened or written.
    """
    journal = Journal(names.journal_path(data_directory))
    try:
        namer = Namer(segment, at_rest=True)
        parts = [_drain_log(segment, worker, journal, namer) for worker in range(segment.layout.workers)]
        backfill_rows = _drain_backfill(segment, data_directory, journal, namer)
        open_bars = namer.batch(open_bars_at_rest(segment), OPEN)
        journal.put_latest(open_bars, interval_names(segment))
    finally:
        journal.close()
    logged, walked, lost = (sum(column) for column in zip(*parts, strict=True))
    report = Drained(logged, backfill_rows, walked, len(open_bars), lost)
    log.info(
        "dead segment drained log_rows=%d backfill_rows=%d walked_rows=%d open_bars=%d lost_entries=%d",
        report.log_rows,
        report.backfill_rows,
        report.walked_rows,
        report.open_bars,
        report.lost_entries,
    )
    return report


def load_latest(data_directory: Path) -> dict[tuple[str, str], Any]:
    """Return the open bars of the last run, (symbol, interval) to a KLINE scalar; empty at a cold start.

    Raises:
        JournalError: If there is a journal and it cannot be read.
    """
    path = names.journal_path(data_directory)
    if not (path / "data.mdb").exists():
        return {}
    journal = Journal(path)
    try:
        found, damaged = journal.latest()
    finally:
        journal.close()
    if damaged:
        log.warning("damaged open bars are left out rows=%d", damaged)
    return found


def journal_state(data_directory: Path, *, closed: bool) -> State:
    """Return what the journal knows: the open bars of the last run, and closed ones not archived yet.

    Only symbols that were carried to its end are taken. Of these it knows the name and the decimals, and the
    archive the begin of their listing; one whose begin is not known is left to the exchange's own list.

    Args:
        data_directory: The directory of the instance.
        closed: Whether closed bars are wanted.

    Raises:
        StoreError: If there is a journal or an archive and it cannot be read.
    """
    latest = load_latest(data_directory)
    minutes = {symbol: int(row["open_time"]) for (symbol, interval), row in latest.items() if interval == "1m"}
    newest_ms = max(minutes.values(), default=0)
    onboard_ms = _onboard_ms(data_directory)
    carried = sorted(n for n, ms in minutes.items() if ms >= newest_ms - _TOGETHER_MS and onboard_ms.get(n))
    if not carried:
        return State.empty("journal")
    index = {name: at for at, name in enumerate(carried)}
    live = np.array([row for (name, _), row in latest.items() if name in index], dtype=KLINE)
    live["slot"] = [index[name] for name, _ in latest if name in index]
    live = live[are_sound(live, is_open=True)]
    symbols = np.zeros(len(carried), dtype=SYMBOL)
    symbols["name"] = [name.encode() for name in carried]
    symbols["pair"] = [name.partition("_")[0].encode() for name in carried]
    symbols["status"] = lay.SYMBOL_TRADING
    symbols["onboard_ms"] = [onboard_ms[name] for name in carried]
    for name in ("price_decimals", "quantity_decimals"):
        np.maximum.at(symbols[name], live["slot"], live[name])
    for name, at in index.items():
        symbols["trades_24h"][at] = latest[name, "1d"]["trade_count"] if (name, "1d") in latest else 0
    pieces = _journaled(data_directory, index) if closed else ()
    return State("journal", symbols, live, pieces, int(max(newest_ms, live["event_time"].max(initial=0))))


def last_confirmed(data_directory: Path) -> dict[tuple[str, str], int]:
    """Return the open time of every series' newest confirmed bar, UTC ms; empty at a cold start.

    Raises:
        ArchiveError: If there is an archive and it cannot be read.
    """
    path = names.archive_path(data_directory)
    if not has_archive(path):
        return {}
    reader = ArchiveReader(path)
    try:
        current = [(series.symbol, series.interval) for series in reader.series() if not series.retired]
        found = {key: reader.last_confirmed_ms(*key) for key in current}
    finally:
        reader.close()
    return {key: open_ms for key, open_ms in found.items() if open_ms is not None}


def entries_at_rest(ring: Rows, tail: int, cursor: int) -> tuple[Rows, int, int]:
    """Return a ring's entries from a cursor on, when nobody writes it any more.

    Whole entries beyond the tail are taken too: their producer was killed between writing and
    publishing them. The one it was writing is torn; the entry it was about to replace is lost.

    Args:
        ring: Shape (capacity * 16,), dtype int64.
        tail: The tail as it was left.
        cursor: Position to read next.

    Returns:
        Rows of dtype KLINE; the position after the last; how many between cursor and end are gone.
    """
    entries = ring.reshape(-1, ROW_WORDS)
    capacity = len(entries)
    end = tail
    while int(entries[end % capacity, 0]) == 2 * end + 2:
        end += 1
    first = max(cursor, end - capacity)
    positions = np.arange(first, end, dtype=np.int64)
    copied = entries[positions % capacity]
    whole = copied[:, 0] == 2 * positions + 2
    lost = max(first - cursor, 0) + int(np.count_nonzero(~whole))
    return copied[whole].view(KLINE).reshape(-1), max(end, cursor), lost


def _onboard_ms(data_directory: Path) -> dict[str, int]:
    """Return when the listings that the archive holds began, UTC ms."""
    path = names.archive_path(data_directory)
    if not has_archive(path):
        return {}
    reader = ArchiveReader(path)
    try:
        return {series.symbol: series.onboard_ms for series in reader.series() if not series.retired}
    finally:
        reader.close()


def _journaled(data_directory: Path, index: dict[str, int]) -> tuple[Rows, ...]:
    """Return the closed bars that the journal still holds, `slot` by name."""
    journal = Journal(names.journal_path(data_directory))
    try:
        blocks = [block for _, block in journal.read(0, _MOST_BLOCK_ROWS) if block is not None]
    finally:
        journal.close()
    pieces = []
    for block in blocks:
        places = np.array([index.get(listing.name, -1) for listing in block.listings], dtype=np.int64)
        owners = places[block.rows["slot"]]
        kept = (owners >= 0) & are_sound(block.rows, is_open=False)
        piece = block.rows[kept]
        piece["slot"] = owners[kept]
        pieces.append(piece)
    return tuple(pieces)


def _drain_log(segment: Segment, worker: int, journal: Journal, namer: Namer) -> tuple[int, int, int]:
    layout, uuid, name = segment.layout, segment.uuid, log_name(worker)
    ring = segment.region(layout.log_offset(worker), layout.log_rows * ROW_BYTES)
    tail = int(segment.block(layout.partition_offset(worker))[lay.B_TAIL])
    rows, end, lost = entries_at_rest(ring, tail, journal.cursor(uuid, name) or 0)
    walked = 0
    if lost or name in journal.owed_walks(uuid):
        for batch in _walked(segment, worker, namer):
            journal.append([batch])
            walked += len(batch)
        journal.walk_done(uuid, name)
    batch = namer.batch(rows)
    journal.append([batch], uuid, {name: end})
    return len(batch), walked, lost


def _walked(segment: Segment, worker: int, namer: Namer) -> Iterator[Batch]:
    return (namer.batch(piece) for piece in walk_history(segment, worker))


def _drain_backfill(segment: Segment, data_directory: Path, journal: Journal, namer: Namer) -> int:
    layout, uuid = segment.layout, segment.uuid
    cursor = max(journal.cursor(uuid, _HISTORIAN) or 0, _archived_backfill(data_directory, uuid))
    ring = segment.region(layout.historian_log_offset, layout.historian_log_rows * ROW_BYTES)
    tail = int(segment.block(layout.historian_offset)[lay.B_TAIL])
    rows, end, _ = entries_at_rest(ring, tail, cursor)
    batch = namer.batch(rows)
    journal.append([batch], uuid, {_HISTORIAN: end})
    return len(batch)


def _archived_backfill(data_directory: Path, segment_uuid: str) -> int:
    """Return up to where the historian's log is in the archive; 0 if that cannot be said."""
    path = names.archive_path(data_directory)
    try:
        if not has_archive(path):
            return 0
        reader = ArchiveReader(path)
        try:
            mark = reader.mark("historian_cursor")
        finally:
            reader.close()
    except ArchiveError as error:
        log.warning("archive not readable, the historian's log is taken whole error=%s", error)
        return 0
    return mark[1] if mark and mark[0] == segment_uuid else 0
