"""The journal: LMDB, durable within a millisecond or so, emptied as the archive catches up.

Three databases::

    blocks   journal sequence (8 bytes, big-endian)     -> block of at most 512 rows (klshm.store.batch)
    latest   symbol, NUL, interval                      -> crc32 of both (older: of the bar), open bar of 128 bytes
    meta     format, uuid, next                         -> next: sequence of the next block, never reused
             cursor/<segment uuid>/<ring>               -> position up to which that ring was journaled
             walk/<segment uuid>/<ring>                 -> that ring was overrun; history is owed to the archive

Rows, cursors and `next` change in one transaction, so a ring entry is journaled exactly once
whenever the process is killed. A block is deleted only after the archive's commit.

Open it only in the process and thread that uses it: LMDB does not notice a fork.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb
import numpy as np

from klshm.errors import JournalError
from klshm.intervals import INTERVALS
from klshm.shm.layout import KLINE, ROW_BYTES
from klshm.store import journal_file
from klshm.store.batch import BLOCK_ROWS, Batch, blocks_of, decode, encode
from klshm.store.names import is_legal_symbol


__all__ = ["Journal", "is_whole"]

Rows = np.ndarray[Any, Any]
T = TypeVar("T")

_RING: Final = re.compile(r"log/[0-9]+")
_FIRST_MAP_BYTES: Final = 64 * 1024 * 1024
_MAX_MAP_BYTES: Final = 64 * 1024 * 1024 * 1024


class Journal:
    """One journal, open for writing.

    Args:
        directory: Its directory, created where there is none.
        map_bytes: Size of the map to begin with; it grows when it is full.
        is_rescue: Whatever `meta` says, only `read` and `latest` are called.

    Attributes:
        uuid: Identity of this journal, new for every new file.
        next_sequence: Sequence that the next block will get.

    Raises:
        JournalError: If it cannot be opened; one line says why and what to do.
    """

    def __init__(self, directory: Path, *, map_bytes: int = _FIRST_MAP_BYTES, is_rescue: bool = False) -> None:
        self.directory = directory
        self.uuid = ""
        self.next_sequence = 0
        self._environment = journal_file.open_environment(directory, map_bytes)
        try:
            self._blocks, self._latest, self._meta = (
                self._environment.open_db(name) for name in (b"blocks", b"latest", b"meta")
            )
            if not is_rescue:
                self.uuid, self.next_sequence = self._commit(self._begin_file)
        except lmdb.Error as error:
            self._environment.close()
            raise journal_file.described(self.directory, error) from error
        except JournalError:
            self._environment.close()
            raise

    def close(self) -> None:
        """Close the files."""
        self._environment.close()

    # Called with what the rings hold

    def cursor(self, segment_uuid: str, ring: str) -> int | None:
        """Return up to which position a ring was journaled; None: nothing of that segment."""
        with self._reading() as transaction:
            value = transaction.get(_cursor_key(segment_uuid, ring), db=self._meta)
        if value is not None and len(value) != 8:
            raise journal_file.damaged(self.directory, f"its cursor of {ring} is {bytes(value)!r}, expected 8 bytes")
        return None if value is None else int.from_bytes(value, "big")

    def append(
        self,
        batches: Iterable[Batch],
        segment_uuid: str = "",
        cursors: Mapping[str, int] | None = None,
        owed_walks: Iterable[str] = (),
    ) -> int:
        """Store rows and cursors in one transaction, durable on return.

        Args:
            batches: Rows, in the order they were made.
            segment_uuid: Segment the cursors belong to.
            cursors: Ring to position up to which these rows cover it.
            owed_walks: Rings that were overrun before these rows.

        Returns:
            Sequence of the newest block.

        Raises:
            JournalError: If nothing was stored.
        """
        blocks = [encode(block) for batch in batches for block in blocks_of(batch)]
        first = self.next_sequence

        def work(transaction: Any) -> None:
            for sequence, block in enumerate(blocks, first):
                if not transaction.put(sequence.to_bytes(8, "big"), block, db=self._blocks, append=True):
                    raise journal_file.damaged(self.directory, f"its next sequence is {sequence}, not past its blocks")
            for ring, position in (cursors or {}).items():
                transaction.put(_cursor_key(segment_uuid, ring), position.to_bytes(8, "big"), db=self._meta)
            for ring in owed_walks:
                transaction.put(_walk_key(segment_uuid, ring), b"", db=self._meta)
            transaction.put(b"next", (first + len(blocks)).to_bytes(8, "big"), db=self._meta)

        self._commit(work)
        self.next_sequence = first + len(blocks)
        return self.next_sequence - 1

    def owed_walks(self, segment_uuid: str) -> list[str]:
        """Return the rings whose history the archive still has to get."""
        prefix = _walk_key(segment_uuid, "")
        with self._reading() as transaction:
            rings = [key[len(prefix) :].decode(errors="replace") for key in _keys(transaction, self._meta, prefix)]
        if strange := [ring for ring in rings if not _RING.fullmatch(ring)]:
            raise journal_file.damaged(self.directory, f"history is owed of ring {strange[0]!r}, expected log/N")
        return rings

    def walk_done(self, segment_uuid: str, ring: str) -> None:
        """Forget that a ring's history is owed; call it after the archive's commit."""
        self._commit(lambda transaction: transaction.delete(_walk_key(segment_uuid, ring), db=self._meta))

    def forget_segments(self, keep_uuid: str) -> None:
        """Drop the cursors and debts of every segment but one; the others are gone for good."""

        def work(transaction: Any) -> None:
            for prefix in (b"cursor/", b"walk/"):
                kept = prefix + keep_uuid.encode()
                for key in [k for k in _keys(transaction, self._meta, prefix) if not k.startswith(kept)]:
                    transaction.delete(key, db=self._meta)

        self._commit(work)

    # Called with the open bars

    def put_latest(self, batch: Batch, interval_names: Mapping[int, str]) -> None:
        """Store open bars over the earlier ones of their series, durable on return.

        Args:
            batch: One open bar per series.
            interval_names: Name of every interval code.
        """
        items = []
        for row in batch.rows:
            data = row.tobytes()
            key = _latest_key(batch.listings[row["slot"]].name, interval_names[int(row["interval"])])
            items.append((key, zlib.crc32(key + data).to_bytes(4, "little") + data))
        items.sort()
        self._commit(lambda transaction: transaction.cursor(db=self._latest).putmulti(items))

    def latest(self) -> tuple[dict[tuple[str, str], Any], int]:
        """Return the open bars, (symbol, interval) to a KLINE scalar, and how many are damaged."""
        found: dict[tuple[str, str], Any] = {}
        damaged = 0
        with self._reading() as transaction:
            for key, value in transaction.cursor(db=self._latest):
                series = _series_of(key)
                if series is None or not is_whole(key, value):
                    damaged += 1
                else:
                    found[series] = np.frombuffer(value, dtype=KLINE, offset=4)[0]
        return found, damaged

    # Called on behalf of the archive

    def read(self, after: int, limit_rows: int) -> list[tuple[int, Batch | None]]:
        """Return the blocks beyond a sequence, oldest first: sequence and rows, None where damaged."""
        result: list[tuple[int, Batch | None]] = []
        rows = 0
        with self._reading() as transaction:
            cursor = transaction.cursor(db=self._blocks)
            if not cursor.set_range((after + 1).to_bytes(8, "big")):
                return result
            for key, value in cursor:
                sequence = int.from_bytes(key, "big")
                if sequence <= after:
                    continue  # pages that were swapped lead back; whoever reads on from here must get on
                after = sequence
                try:
                    block = decode(value)
                except JournalError:
                    block = None
                result.append((sequence, block))
                rows += BLOCK_ROWS if block is None else len(block)
                if rows >= limit_rows:
                    break
        return result

    def trim(self, through: int) -> int:
        """Delete the blocks up to a sequence; call it after the archive's commit. Return how many."""

        def work(transaction: Any) -> int:
            deleted = 0
            cursor = transaction.cursor(db=self._blocks)
            while cursor.first() and int.from_bytes(cursor.key(), "big") <= through:
                cursor.delete()
                deleted += 1
            return deleted

        return self._commit(work)

    @property
    def blocks(self) -> int:
        """Number of blocks that are not yet trimmed."""
        with self._reading() as transaction:
            return int(transaction.stat(self._blocks)["entries"])

    # Transactions

    def _begin_file(self, transaction: Any) -> tuple[str, int]:
        databases = self._blocks, self._latest, self._meta
        is_new = not any(transaction.stat(database)["entries"] for database in databases)
        return journal_file.identity(transaction, self._meta, self.directory, is_new=is_new)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with self._environment.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise journal_file.described(self.directory, error) from error

    def _commit(self, work: Callable[[Any], T]) -> T:
        try:
            while True:
                try:
                    with self._environment.begin(write=True) as transaction:
                        return work(transaction)
                except lmdb.MapFullError:
                    self._grow()
        except lmdb.Error as error:
            raise journal_file.described(self.directory, error) from error

    def _grow(self) -> None:
        if self._environment.reader_check():
            return  # what a dead process was reading may be used again, and may be room enough
        size = 2 * self._environment.info()["map_size"]
        if size > _MAX_MAP_BYTES:
            raise JournalError(
                f"{self.directory} has grown to {size // 2} bytes, expected less: the archive has not kept up for "
                "long; see what stops it"
            )
        self._environment.set_mapsize(size)


def is_whole(key: bytes, value: bytes) -> bool:
    """Return whether an open bar and its name are as they were stored."""
    data = value[4:]
    checks = zlib.crc32(key + data), zlib.crc32(data)  # the second is that of older files
    return len(data) == ROW_BYTES and int.from_bytes(value[:4], "little") in checks


def _cursor_key(segment_uuid: str, ring: str) -> bytes:
    return f"cursor/{segment_uuid}/{ring}".encode()


def _walk_key(segment_uuid: str, ring: str) -> bytes:
    return f"walk/{segment_uuid}/{ring}".encode()


def _latest_key(symbol: str, interval: str) -> bytes:
    return f"{symbol}\0{interval}".encode()


def _series_of(key: bytes) -> tuple[str, str] | None:
    symbol, _, interval = key.decode(errors="replace").partition("\0")
    return (symbol, interval) if is_legal_symbol(symbol) and interval in INTERVALS else None


def _keys(transaction: Any, database: Any, prefix: bytes) -> Iterable[bytes]:
    cursor = transaction.cursor(db=database)
    if not cursor.set_range(prefix):
        return []
    keys = []
    for key in cursor.iternext(keys=True, values=False):
        if not key.startswith(prefix):
            break
        keys.append(bytes(key))
    return keys
