"""Rows under durable names, and the block of bytes in which the journal keeps them.

In the segment a row names its symbol by slot, and slots are dealt anew with every segment. A
`Batch` carries its own table of listings; the `slot` of its rows is an index into that.

Block of the journal::

    +-----------------------------+ 0
    | crc32 of all that follows   |  u32
    | format                      |  u16
    | listings                    |  u16
    +-----------------------------+ 8
    | per listing: onboard_ms i64, length u8, name in UTF-8
    +-----------------------------+
    | rows of 128 bytes           |  slot = index of the listing
    +-----------------------------+
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from klshm.errors import JournalError
from klshm.shm.layout import KLINE


__all__ = ["BLOCK_ROWS", "Batch", "Listing", "blocks_of", "decode", "encode", "unite"]

Rows = np.ndarray[Any, Any]

BLOCK_ROWS: Final = 512
_FORMAT: Final = 1
_HEAD: Final = struct.Struct("<IHH")
_LISTING: Final = struct.Struct("<qB")


class Listing(NamedTuple):
    """Durable identity of a symbol: a ticker may be reused, but not with the same onboard date.

    Attributes:
        name: As the exchange spells it.
        onboard_ms: When the exchange listed it, UTC ms; 0: unknown.
    """

    name: str
    onboard_ms: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows whose `slot` is an index into `listings`.

    Attributes:
        listings: Symbols of the rows; may hold more than the rows use.
        rows: Shape (n,), dtype KLINE.
    """

    listings: tuple[Listing, ...]
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)


def blocks_of(batch: Batch) -> Iterator[Batch]:
    """Cut a batch into blocks of at most 512 rows, each with only the listings it uses."""
    for start in range(0, len(batch), BLOCK_ROWS):
        rows = batch.rows[start : start + BLOCK_ROWS].copy()
        used, index = np.unique(rows["slot"], return_inverse=True)
        rows["slot"] = index
        yield Batch(tuple(batch.listings[slot] for slot in used.tolist()), rows)


def unite(batches: list[Batch]) -> Batch:
    """Return one batch with the rows of all, in order."""
    index: dict[Listing, int] = {}
    parts = []
    for batch in batches:
        places = np.array([index.setdefault(listing, len(index)) for listing in batch.listings], dtype=np.uint16)
        rows = batch.rows.copy()
        rows["slot"] = places[rows["slot"]] if len(rows) else 0
        parts.append(rows)
    return Batch(tuple(index), np.concatenate(parts) if parts else np.empty(0, dtype=KLINE))


def encode(block: Batch) -> bytes:
    """Return the bytes of a block."""
    names = [(listing.onboard_ms, listing.name.encode()) for listing in block.listings]
    body = b"".join(
        (
            _HEAD.pack(0, _FORMAT, len(names))[4:],
            *(_LISTING.pack(onboard_ms, len(name)) + name for onboard_ms, name in names),
            block.rows.tobytes(),
        )
    )
    return zlib.crc32(body).to_bytes(4, "little") + body


def decode(value: bytes) -> Batch:
    """Return the block that `encode` made.

    Raises:
        JournalError: If a bit of it changed, or another format wrote it.
    """
    if len(value) < _HEAD.size or zlib.crc32(memoryview(value)[4:]) != int.from_bytes(value[:4], "little"):
        raise JournalError(f"a block of {len(value)} bytes fails its checksum; its rows must be fetched again")
    _, version, count = _HEAD.unpack_from(value)
    if version != _FORMAT:
        raise JournalError(f"a block has format {version}, expected {_FORMAT}; use the klshm that wrote it")
    listings, at = [], _HEAD.size
    for _ in range(count):
        onboard_ms, length = _LISTING.unpack_from(value, at)
        at += _LISTING.size + length
        listings.append(Listing(value[at - length : at].decode(), onboard_ms))
    return Batch(tuple(listings), np.frombuffer(value, dtype=KLINE, offset=at).copy())
