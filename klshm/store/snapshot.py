"""The snapshot file: what a start needs to serve at once, in one file without a database.

::

    +-----------------------------+ 0
    | magic                       |  8 bytes
    | version                     |  u32
    | crc32 of all that follows   |  u32
    +-----------------------------+ 16
    | exchange time               |  i64, UTC ms
    | exchange - machine clock    |  i64, ms
    | symbols, open, closed bars  |  u32 each
    | length of the instance name |  u16
    | number of intervals         |  u16
    +-----------------------------+ 48
    | instance name, interval codes, zeros up to a multiple of 8
    | symbols                     |  rows of 256 bytes, as in the symbols table
    | open bars, closed bars      |  rows of 128 bytes; slot = index of the symbol
    +-----------------------------+

All numbers are little-endian. A file is replaced as a whole or not at all; what is read is
believed only after every length, the checksum and every row have been looked at.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.errors import SnapshotFileError
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, ROW_BYTES, SYMBOL, SYMBOL_BYTES
from klshm.store.names import is_legal_symbol
from klshm.store.state import CARRIED, MAX_DECIMALS, MOST_ROWS, State, are_sound, symbol_names


__all__ = ["FILE_NAME", "SnapshotFile", "read_snapshot", "snapshot_path", "sweep_temporary_snapshots", "write_snapshot"]

Rows = np.ndarray[Any, Any]

FILE_NAME: Final = "initial_state.bin"

_TEMPORARY: Final = ".tmp"
_MAGIC: Final = b"KLSHMSNP"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<8sII")
_BODY: Final = struct.Struct("<qqIIIHH")
_MOST_SYMBOLS: Final = 0xFFFF
_MOST_NAME: Final = 32
_LATEST_MS: Final = 1 << 47
_WHAT_TO_DO: Final = "write a new one with `python -m klshm snapshot`, or start without it"


@dataclass(frozen=True)
class SnapshotFile:
    """A snapshot and what its file says beside it.

    Attributes:
        instance: Engine it was taken from.
        intervals: Names of the intervals that it kept.
        state: What was known.
        bytes: Size of the file.
    """

    instance: str
    intervals: tuple[str, ...]
    state: State
    bytes: int

    def age_s(self, machine_ms: int) -> float:
        """Return how long ago it was taken, by this machine's clock, seconds."""
        return (machine_ms - (self.state.time_ms - self.state.skew_ms)) / 1000


def snapshot_path(directory: Path) -> Path:
    """Return the path of the start-up snapshot in an instance's data directory."""
    return directory / FILE_NAME


def write_snapshot(path: Path, instance: str, names: tuple[str, ...], state: State) -> int:
    """Write a snapshot file, durable on return; one that was there stays until the new one is whole.

    Args:
        path: The file.
        instance: Engine it is taken from.
        names: Names of the intervals that it keeps.
        state: What is known.

    Returns:
        Size of the file, bytes.

    Raises:
        SnapshotFileError: If it cannot be written.
    """
    data = _encode(instance, names, state)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_TEMPORARY}")
    try:
        # A name that nobody can foresee, and no link under it is followed.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise SnapshotFileError(
            f"cannot write {path}: {error.strerror}; check the directory and the free space"
        ) from error
    return len(data)


def sweep_temporary_snapshots(directory: Path) -> list[Path]:
    """Remove unfinished start-up snapshots that killed writers left, and return them.

    Call it only while the lock on the directory is held.

    Args:
        directory: An instance's data directory.
    """
    leftovers = sorted(directory.glob(f"{FILE_NAME}.*{_TEMPORARY}"))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


def read_snapshot(path: Path) -> SnapshotFile:
    """Return the content of a snapshot file.

    Raises:
        SnapshotFileError: If it is missing, damaged or of a newer format; one line says which.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size + _BODY.size)
            size = os.fstat(file.fileno()).st_size
            expected = _expected_bytes(path, head, size)
            data = head + file.read(expected - len(head))
    except OSError as error:
        raise SnapshotFileError(f"cannot read snapshot {path}: {error.strerror}; name another file") from error
    _, _, crc = _HEAD.unpack_from(data)
    if len(data) != expected or zlib.crc32(memoryview(data)[_HEAD.size :]) != crc:
        raise _damaged(path, "its checksum does not fit its content")
    try:
        instance, names, state = _decode(data)
    except (UnicodeDecodeError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    return SnapshotFile(instance, names, state, len(data))


def _encode(instance: str, names: tuple[str, ...], state: State) -> bytes:
    # What a reader would refuse is not worth a file that is refused.
    live = state.live[are_sound(state.live, is_open=True)]
    closed = np.concatenate((np.empty(0, dtype=KLINE), *state.closed))
    closed = closed[are_sound(closed, is_open=False)]
    label = instance.encode() + bytes(intervals.code_of(name) for name in names)
    counts = len(state.symbols), len(live), len(closed)
    body = b"".join(
        (
            _BODY.pack(state.time_ms, state.skew_ms, *counts, len(instance.encode()), len(names)),
            label + bytes(-len(label) % 8),
            state.symbols.tobytes(),
            live.tobytes(),
            closed.tobytes(),
        )
    )
    return _HEAD.pack(_MAGIC, _VERSION, zlib.crc32(body)) + body


def _expected_bytes(path: Path, head: bytes, size: int) -> int:
    """Return how long the file must be by its own word, refusing what cannot be."""
    if head[: len(_MAGIC)] != _MAGIC[: len(head)] or len(head) < len(_MAGIC):
        raise SnapshotFileError(f"{path} does not begin as a klshm snapshot does ({size} bytes); name another file")
    if len(head) < _HEAD.size + _BODY.size:
        raise _damaged(path, f"it has {size} bytes, its header alone {_HEAD.size + _BODY.size}")
    _, version, _ = _HEAD.unpack_from(head)
    if version > _VERSION:
        raise SnapshotFileError(
            f"{path} has snapshot format {version}, this klshm reads {_VERSION}; use the klshm that wrote it"
        )
    _, _, symbols, live, closed, name_bytes, kept = _BODY.unpack_from(head, _HEAD.size)
    possible = (
        version == _VERSION
        and symbols < _MOST_SYMBOLS
        and 0 < kept <= lay.MAX_INTERVALS
        and name_bytes <= _MOST_NAME
        and live <= symbols * kept
        and closed <= symbols * kept * MOST_ROWS
    )
    label = name_bytes + kept
    expected: int = len(head) + label + -label % 8 + symbols * SYMBOL_BYTES + (live + closed) * ROW_BYTES
    if not possible or size != expected:
        raise _damaged(path, f"it has {size} bytes, its header says {expected if possible else 'what cannot be'}")
    return expected


def _decode(data: bytes) -> tuple[str, tuple[str, ...], State]:
    """Take the content apart; a ValueError says what of it cannot be."""
    time_ms, skew_ms, *counts, name_bytes, kept = _BODY.unpack_from(data, _HEAD.size)
    at = _HEAD.size + _BODY.size
    instance, codes = data[at : at + name_bytes].decode(), data[at + name_bytes : at + name_bytes + kept]
    label = name_bytes + kept
    at += label + -label % 8
    if not (0 <= time_ms < _LATEST_MS and abs(skew_ms) < _LATEST_MS):
        raise ValueError(f"exchange time {time_ms} ms, clock skew {skew_ms} ms")
    if max(codes) >= len(intervals.INTERVALS) or list(codes) != sorted(set(codes)):
        raise ValueError(f"interval codes {list(codes)}, expected known ones in order")
    symbols = np.frombuffer(data, dtype=SYMBOL, count=counts[0], offset=at).copy()
    live = np.frombuffer(data, dtype=KLINE, count=counts[1], offset=at + symbols.nbytes).copy()
    closed = np.frombuffer(data, dtype=KLINE, count=counts[2], offset=at + symbols.nbytes + live.nbytes).copy()
    _check_symbols(symbols)
    for rows, is_open in ((live, True), (closed, False)):
        good = are_sound(rows, is_open=is_open) & (rows["slot"] < len(symbols)) & np.isin(rows["interval"], list(codes))
        if not good.all():
            raise ValueError(f"{np.count_nonzero(~good)} of {len(rows)} bars cannot be bars")
    names = tuple(intervals.name_of(code) for code in codes)
    return instance, names, State("snapshot", symbols, live, (closed,), time_ms, skew_ms)


def _check_symbols(symbols: Rows) -> None:
    names = [bytes(name).decode() for name in symbols["name"]]
    for name in names:
        if not is_legal_symbol(name):
            raise ValueError(f"symbol {name!r} is no legal name")
    if len(set(names)) != len(names):
        raise ValueError("a symbol stands in it twice")
    for pair in symbols["pair"]:
        bytes(pair).decode()
    good = np.isin(symbols["status"], CARRIED)
    good &= (symbols["contract"] >= 0) & (symbols["contract"] < len(lay.CONTRACT_NAMES))
    for name in ("price_decimals", "quantity_decimals", "onboard_ms", "delivery_ms", "trades_24h"):
        good &= (symbols[name] >= 0) & (symbols[name] < _LATEST_MS)
    good &= (symbols["price_decimals"] <= MAX_DECIMALS) & (symbols["quantity_decimals"] <= MAX_DECIMALS)
    good &= symbols["price_decimals"] + symbols["quantity_decimals"] <= MAX_DECIMALS
    if not good.all():
        raise ValueError(f"symbol {symbol_names(symbols)[int(np.argmin(good))]!r} has values that cannot be")


def _damaged(path: Path, reason: str) -> SnapshotFileError:
    return SnapshotFileError(f"{path} is damaged: {reason}; {_WHAT_TO_DO}")
