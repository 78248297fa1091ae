"""Reading a journal that may be damaged, in a process that may die of it.

LMDB maps its file and trusts it: a flipped bit in a page of its tree is an access outside of the
map, and the end of the process. So this runs as a process of its own (`python -m
klshm.fsck.journal_child DIRECTORY`), opens the files read-only, and prints one JSON document.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

import lmdb
import numpy as np

from klshm import intervals
from klshm.errors import JournalError
from klshm.fsck.bars import impossible
from klshm.shm.layout import KLINE
from klshm.store import journal_file
from klshm.store.batch import Batch, decode
from klshm.store.journal import is_whole
from klshm.store.names import is_legal_symbol


__all__ = ["FORMAT", "look"]

FORMAT: Final = b"1"
"""Format of journals that this klshm writes (`klshm.store.journal`)."""

_DATABASES: Final = (b"blocks", b"latest", b"meta")
_MAP_BYTES: Final = 64 * 1024 * 1024
_KEPT: Final = 100
_MOST_NEXT: Final = 1 << 48


def look(directory: Path) -> dict[str, Any]:
    """Return what is in a journal.

    Args:
        directory: The LMDB directory.

    Returns:
        uuid, next, first (sequence of the oldest block, or next), blocks, rows, latest, digest (of all that
        can be read), cursors; problems: [subject, problem, detail], at most 100.

    Raises:
        JournalError: If it cannot be opened, or another klshm wrote it.
    """
    environment = _open(directory)
    try:
        with environment.begin() as transaction:
            return _look(environment, transaction, directory)
    except lmdb.Error as error:
        raise journal_file.described(directory, error) from error
    finally:
        environment.close()


def _open(directory: Path) -> Any:
    size = (directory / "data.mdb").stat().st_size
    options: dict[str, Any] = {"map_size": max(_MAP_BYTES, 2 * size), "max_dbs": 4, "readonly": True}
    try:
        try:
            environment = lmdb.Environment(str(directory), create=False, **options)
        except lmdb.ReadonlyError:  # a file system that cannot be written: nobody else writes it either
            environment = lmdb.Environment(str(directory), create=False, lock=False, **options)
    except lmdb.Error as error:
        raise journal_file.described(directory, error) from error
    # LMDB would read beyond the end of a shortened file.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < needed:
        environment.close()
        raise JournalError(f"{directory / 'data.mdb'} has {size} bytes, expected at least {needed}: it was cut short")
    return environment


def _look(environment: Any, transaction: Any, directory: Path) -> dict[str, Any]:
    problems: list[tuple[str, str, str]] = []
    try:
        blocks, latest, meta = (
            environment.open_db(name, txn=transaction, create=False) for name in _DATABASES
        )
    except (lmdb.NotFoundError, lmdb.IncompatibleError) as error:
        return {"problems": [("meta", "format", f"a database of a journal is not there: {error}")]}
    found: dict[str, Any] = {"cursors": {}, "digest": ""}
    digest = hashlib.sha256()
    _look_at_meta(transaction, meta, directory, found, problems)
    _look_at_blocks(transaction, blocks, found, problems, digest)
    _look_at_latest(transaction, latest, found, problems, digest)
    return {**found, "digest": digest.hexdigest(), "problems": problems[:_KEPT], "problems_total": len(problems)}


def _look_at_meta(
    transaction: Any, meta: Any, directory: Path, found: dict[str, Any], problems: list[tuple[str, str, str]]
) -> None:
    values = {bytes(key): bytes(value) for key, value in transaction.cursor(db=meta)}
    version = values.pop(b"format", None)
    if version != FORMAT and version is not None and version.isdigit():
        raise JournalError(
            f"{directory} has journal format {version.decode()}, expected {FORMAT.decode()}; "
            "use the klshm that wrote it, or move the directory away"
        )
    if version != FORMAT:
        problems.append(("meta", "format", f"format = {version!r}"))
    uuid = values.pop(b"uuid", b"").decode(errors="replace")
    if not re.fullmatch(r"[0-9a-f]{32}", uuid):
        problems.append(("meta", "progress", f"uuid = {uuid!r}, expected 32 hexadecimal digits"))
    number = values.pop(b"next", b"")
    found["uuid"], found["next"] = uuid, int.from_bytes(number, "big")
    if len(number) != 8 or not 0 < found["next"] < _MOST_NEXT:
        problems.append(("meta", "progress", f"next = {number!r}, expected a sequence of 8 bytes"))
    for key, value in values.items():
        text = key.decode(errors="replace")
        if re.fullmatch(r"cursor/[0-9a-f]{32}/[a-z]+(/\d+)?", text) and len(value) == 8:
            found["cursors"][text.removeprefix("cursor/")] = int.from_bytes(value, "big")
        elif not re.fullmatch(r"walk/[0-9a-f]{32}/[a-z]+(/\d+)?", text):
            problems.append(("meta", "progress", f"key {text!r} with {len(value)} bytes"))


def _look_at_blocks(
    transaction: Any, blocks: Any, found: dict[str, Any], problems: list[tuple[str, str, str]], digest: Any
) -> None:
    count = rows = 0
    first = found["next"]
    before = 0
    for key, value in transaction.cursor(db=blocks):
        sequence = int.from_bytes(key, "big")
        first = sequence if count == 0 else first
        count += 1
        subject = f"block {sequence}"
        if len(key) != 8 or not before < sequence < found["next"]:
            problems.append((subject, "progress", f"sequence {sequence}, the next is {found['next']}"))
        before = sequence
        try:
            block = decode(bytes(value))
        except (JournalError, ValueError) as error:
            problems.append((subject, "bits", str(error)))
            continue
        digest.update(bytes(key) + bytes(value))
        rows += len(block)
        if what := _wrong_rows(block):
            problems.append((subject, "impossible", what))
    found.update(blocks=count, rows=rows, first=first)


def _wrong_rows(block: Batch) -> str:
    rows = block.rows
    if not all(is_legal_symbol(listing.name) for listing in block.listings):
        return "an illegal symbol"
    if len(rows) and (rows["slot"].max() >= len(block.listings) or rows["interval"].max() >= len(intervals.INTERVALS)):
        return "a row of no listing or interval"
    return next((what for what, wrong in impossible(rows) if wrong.any()), "")


def _look_at_latest(
    transaction: Any, latest: Any, found: dict[str, Any], problems: list[tuple[str, str, str]], digest: Any
) -> None:
    count = 0
    for key, value in transaction.cursor(db=latest):
        count += 1
        symbol, _, interval = bytes(key).decode(errors="replace").partition("\0")
        subject = f"open bar {symbol} {interval}"
        if not is_whole(bytes(key), bytes(value)):
            problems.append((subject, "bits", "fails its checksum"))
        elif not is_legal_symbol(symbol) or interval not in intervals.INTERVALS:
            problems.append((subject, "format", "an illegal name"))
        elif any(wrong.any() for _, wrong in impossible(np.frombuffer(bytes(value), dtype=KLINE, offset=4))):
            problems.append((subject, "impossible", "its values cannot be those of a bar"))
        else:
            digest.update(bytes(key) + bytes(value))
    found["latest"] = count


if __name__ == "__main__":
    try:
        print(json.dumps(look(Path(sys.argv[1]))))  # noqa: T201 - the answer of this process
    except (JournalError, OSError) as error:
        print(json.dumps({"refused": str(error)}))  # noqa: T201
