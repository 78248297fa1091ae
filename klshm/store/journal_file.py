"""Opening the journal's LMDB environment and telling whose it is, and saying in one line what is wrong with it."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any, Final

import lmdb

from klshm.errors import JournalError


__all__ = ["FORMAT", "damaged", "described", "identity", "open_environment"]

FORMAT: Final = b"1"
"""Format of the journals that this klshm writes."""

_UUID: Final = re.compile(rb"[0-9a-f]{32}")
_MOST_NEXT: Final = 1 << 48
_MAX_READERS: Final = 64
_DATABASES: Final = 4
# Without it an environment variable chooses the format of a new file (lmdb 3.0 and later).
_NEW_FILE: Final[dict[str, Any]] = {"lib_version": 0} if int(lmdb.__version__.split(".")[0]) >= 3 else {}


def open_environment(directory: Path, map_bytes: int) -> Any:
    """Open the environment in a directory, created where there is none; drop readers that died.

    Args:
        directory: Where.
        map_bytes: Size of the map, at least.

    Raises:
        JournalError: If it cannot be opened, is damaged or no LMDB environment.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        data = directory / "data.mdb"
        size = data.stat().st_size if data.exists() else 0
        environment = lmdb.Environment(
            os.fspath(directory),
            map_size=max(map_bytes, 2 * size),
            max_dbs=_DATABASES,
            max_readers=_MAX_READERS,
            mode=0o600,
            **({} if size else _NEW_FILE),
        )
    except (OSError, lmdb.Error) as error:
        raise described(directory, error) from error
    try:
        _check_length(environment, data)
        environment.reader_check()
    except BaseException:
        environment.close()
        raise
    return environment


def identity(transaction: Any, meta: Any, directory: Path, *, is_new: bool) -> tuple[str, int]:
    """Return a journal's uuid and the sequence of its next block; a new one gets them.

    Args:
        transaction: For writing.
        meta: Its database of that name.
        directory: Where it lies.
        is_new: Nothing is in it yet.

    Raises:
        JournalError: If another klshm wrote it, or a key is missing or cannot be.
    """
    if is_new:
        transaction.put(b"format", FORMAT, db=meta)
        transaction.put(b"uuid", secrets.token_hex(16).encode(), db=meta)
        transaction.put(b"next", (1).to_bytes(8, "big"), db=meta)
    version, uuid, number = (bytes(transaction.get(key, b"", db=meta)) for key in (b"format", b"uuid", b"next"))
    if version != FORMAT and version.isdigit():
        raise JournalError(
            f"{directory} has journal format {version.decode()}, expected {FORMAT.decode()}; "
            "use the klshm that wrote it, or move the directory away"
        )
    if version != FORMAT:
        raise damaged(directory, f"its format is {version!r}, expected {FORMAT!r}")
    if not _UUID.fullmatch(uuid):
        raise damaged(directory, f"its uuid is {uuid!r}, expected 32 hexadecimal digits")
    sequence = int.from_bytes(number, "big")
    if len(number) != 8 or not 0 < sequence < _MOST_NEXT:
        raise damaged(directory, f"its next sequence is {number!r}, expected one of 8 bytes")
    return uuid.decode(), sequence


def damaged(directory: Path, what: str) -> JournalError:
    """Return the error to raise when a journal can be read and contradicts itself."""
    return JournalError(f"{directory} is damaged: {what}; stop the engine and run python -m klshm fsck --repair")


def described(directory: Path, error: Exception) -> JournalError:
    """Return the error to raise: one line about what is wrong and what to do."""
    if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
        return JournalError(f"{directory} is damaged or no klshm journal ({error}); move it away and start again")
    if isinstance(error, lmdb.LockError | lmdb.ReadersFullError):
        return JournalError(f"{directory} cannot be locked ({error}); does another engine use it?")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return JournalError(f"cannot use {directory}: {reason}; check its permissions and the free space")


def _check_length(environment: Any, data: Path) -> None:
    # LMDB would read beyond the end of a shortened file and die of SIGBUS.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = data.stat().st_size
    if size < needed:
        raise JournalError(
            f"{data} has {size} bytes, expected at least {needed}: it was cut short; "
            "move the directory away and start again"
        )
