"""A new archive from the pages of a broken one.

SQLite finds a bar through pages above it; if one of those is damaged, whole good pages are out
of its reach. Here every leaf is read by itself, in the file and in its write-ahead log, and every
bar says by its check to which series it belongs: checks begin with the series' seed, and a crc is
linear, so the difference to the check of its values alone names the series. A bar found twice is
the better of the two (`klshm.store.schema`). The broken file is kept under another name.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from klshm.config import StoreConfig
from klshm.fsck.archive import ABSENT, read_only
from klshm.intervals import code_of
from klshm.shm.layout import KLINE
from klshm.store import rows, schema
from klshm.store.archive import Archive, Mark
from klshm.store.batch import Batch, Listing
from klshm.store.series import SeriesTables


__all__ = ["Known", "known_series", "pages", "salvage", "stored_rows"]

Values = tuple[Any, ...]

_BATCH_ROWS: Final = 50_000
_LEAF: Final = 0x0D
_MAGIC: Final = b"SQLite format 3\0"
_FILE_HEAD: Final = 100
_WAL_HEAD: Final = 32
_FRAME_HEAD: Final = 24
_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_FLOAT, _ZERO, _ONE = 7, 8, 9
_PLAIN: Final = struct.Struct("<q8d5q")
_REALS: Final = range(1, 9)
_COLUMNS: Final = len(rows.COLUMNS)


class Known(NamedTuple):
    """A series that bars may belong to."""

    symbol: str
    interval: str
    onboard_ms: int
    price_decimals: int
    quantity_decimals: int
    retired: int = 0


def known_series(path: Path) -> list[Known]:
    """Return the series that a broken archive still names; none if that cannot be read."""
    with suppress(sqlite3.Error), closing(read_only(path)) as connection:
        found = [Known(*row) for row in connection.execute(f"SELECT {', '.join(Known._fields)} FROM series")]
        kinds = str, str, int, int, int, int
        return [one for one in found if all(isinstance(value, kind) for value, kind in zip(one, kinds, strict=True))]
    return []


def salvage(path: Path, store: StoreConfig, known: Iterable[Known], expected: Iterable[Known], aside: Path) -> int:
    """Put a new archive, made of every bar that can be found, in the place of a broken one.

    Args:
        path: The archive.
        store: Cache and limits.
        known: Series that its bars may belong to.
        expected: Series that get a table even if no bar of theirs is found.
        aside: What the broken one is called from now on; its write-ahead log likewise, with "-wal".

    Returns:
        Bars found, counting those found twice.
    """
    known = list(known)
    fresh = path.with_name(path.name + ".new")
    for leftover in (fresh, *_beside(fresh)):
        leftover.unlink(missing_ok=True)
    archive = Archive(fresh, store)
    try:
        found = _copy(path, archive, known)
        marks = _marks(path)
        nothing = Batch((), np.empty(0, dtype=KLINE))
        archive.write(nothing, watermark=marks.get("watermark"), historian_cursor=marks.get("historian_cursor"))
    finally:
        archive.close()
    _complete(path, fresh, store, expected)
    _put_in_place(path, fresh, aside)
    return found


def pages(path: Path) -> Iterator[bytes]:
    """Yield every page of an archive's file and of its write-ahead log, as they lie there."""
    with path.open("rb") as file:
        head = file.read(_FILE_HEAD)
        size = int.from_bytes(head[16:18], "big") if head.startswith(_MAGIC) else schema.PAGE_BYTES
        if size < 512 or size & (size - 1):
            size = schema.PAGE_BYTES
        file.seek(0)
        while page := file.read(size):
            yield page
    wal = Path(f"{path}-wal")
    if wal.exists():
        with wal.open("rb") as file:
            file.seek(_WAL_HEAD)
            while frame := file.read(_FRAME_HEAD + size):
                yield frame[_FRAME_HEAD:]


def stored_rows(page: bytes) -> Iterator[Values]:
    """Yield what may be rows of a series' table: fifteen numbers each, in the order of their columns."""
    if len(page) < 8 or page[0] != _LEAF:
        return
    count = int.from_bytes(page[3:5], "big")
    for at in range(8, min(8 + 2 * count, len(page) - 1), 2):
        try:
            row = _row(page, int.from_bytes(page[at : at + 2], "big"))
        except (IndexError, struct.error):
            continue
        if row is not None:
            yield row


def _row(page: bytes, at: int) -> Values | None:
    length, at = _varint(page, at)
    key, at = _varint(page, at)
    header, body_types = _varint(page, at)
    if header - (body_types - at) != _COLUMNS or at + length > len(page):
        return None  # every type of a number takes one byte
    types = page[body_types : at + header]
    at += header
    values: list[Any] = [key]
    for column, kind in enumerate(types[1:], 1):
        value: int | float
        if kind in _INTEGER_BYTES:
            size = _INTEGER_BYTES[kind]
            value = int.from_bytes(page[at : at + size], "big", signed=True)
            at += size
        elif kind == _FLOAT:
            (value,) = struct.unpack_from(">d", page, at)
            at += 8
        elif kind in (_ZERO, _ONE):
            value = kind - _ZERO
        else:
            return None
        values.append(float(value) if column in _REALS else value)
    return tuple(values)


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = page[at + index]
        if index == 8:
            value = value << 8 | byte
            break
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value - (1 << 64) if value >> 63 else value, at + index + 1


def _copy(path: Path, archive: Archive, known: list[Known]) -> int:
    """Store all bars; those of ended listings of a reused ticker first, so that their tables retire again."""
    by_mask: dict[int, Known] = {}
    onboards: dict[str, list[int]] = {}
    for one in known:
        by_mask.setdefault(rows.series_mask(rows.series_seed(one.symbol, one.interval)), one)
        onboards.setdefault(one.symbol, [])
        if one.onboard_ms not in onboards[one.symbol]:
            onboards[one.symbol].append(one.onboard_ms)
    total = 0
    for generation in range(max(map(len, onboards.values()), default=0)):
        waiting: dict[tuple[Known, int], list[Values]] = {}
        number = 0
        for row, one in _identified(path, by_mask):
            ages = sorted(onboards[one.symbol])
            mine = max((index for index, onboard_ms in enumerate(ages) if onboard_ms <= row[0]), default=0)
            if mine == generation:
                waiting.setdefault((one, ages[mine]), []).append(row)
                number += 1
                if number % _BATCH_ROWS == 0:
                    _store(archive, waiting)
        _store(archive, waiting)
        total += number
    return total


def _identified(path: Path, by_mask: dict[int, Known]) -> Iterator[tuple[Values, Known]]:
    for page in pages(path):
        for row in stored_rows(page):
            try:
                one = by_mask.get(zlib.crc32(_PLAIN.pack(*row[:-1])) ^ row[-1])
            except struct.error:
                continue
            if one is not None:
                yield row, one


def _store(archive: Archive, waiting: dict[tuple[Known, int], list[Values]]) -> None:
    for (one, onboard_ms), values in waiting.items():
        bars = rows.decode_rows(values, code_of(one.interval), one.price_decimals, one.quantity_decimals)
        bars["slot"] = 0
        archive.write(Batch((Listing(one.symbol, onboard_ms),), bars))
    waiting.clear()


def _marks(path: Path) -> dict[str, Mark | None]:
    """Return what the broken file says of its progress; unknown progress only repeats work."""
    found: dict[str, Mark | None] = {}
    with suppress(sqlite3.Error), closing(read_only(path)) as connection:
        for key, value in connection.execute("SELECT key, value FROM meta").fetchall():
            if key in ("watermark", "historian_cursor"):
                found[key] = schema.parse_mark(value)
    return found


def _complete(path: Path, fresh: Path, store: StoreConfig, expected: Iterable[Known]) -> None:
    """Give the new archive the tables that no bar was found for, and what is known to be absent."""
    absent: list[Values] = []
    with suppress(sqlite3.Error), closing(read_only(path)) as connection:
        absent = connection.execute("SELECT key, value FROM meta WHERE key LIKE ?", (f"{ABSENT}%",)).fetchall()
    with closing(schema.connect(fresh, store, 64)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        tables = SeriesTables(connection)
        tables.load()
        for one in expected:
            if not one.retired:
                listing = Listing(one.symbol, one.onboard_ms)
                tables.get(listing, one.interval, one.price_decimals, one.quantity_decimals)
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", absent)
        connection.execute("COMMIT")


def _put_in_place(path: Path, fresh: Path, aside: Path) -> None:
    # Its log first: SQLite would play it into the new file.
    for end in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{end}", f"{aside}{end}")
    os.link(path, aside)
    os.replace(fresh, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> tuple[Path, Path]:
    return Path(f"{path}-wal"), Path(f"{path}-shm")
