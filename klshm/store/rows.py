"""A bar as the archive keeps it: fifteen columns, two packed residuals, one checksum.

`residuals` is 0 for all but the largest bars (it then costs no byte in SQLite), else

    quote & 0xFFFF | taker << 16 & 0xFFFF0000 | price_decimals << 32 | quantity_decimals << 40

with the decimals of the row itself, since those of the symbol may have grown since. `check`
is the crc32 of the other fourteen columns as little-endian 64-bit words, in their order, begun
with the series' seed: so a flipped bit in a REAL is found, and a whole bar in a table where it
does not belong. Ids and times of arrival are not archived.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import repeat
from typing import Any, Final

import numpy as np

from klshm.shm.layout import KLINE


__all__ = [
    "CELLS",
    "COLUMNS",
    "NO_SLOT",
    "amended",
    "decode_rows",
    "encode_rows",
    "encoded",
    "intact_rows",
    "is_intact",
    "series_mask",
    "series_seed",
]

Rows = np.ndarray[Any, Any]
Values = tuple[Any, ...]

_FLOATS: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)
_INTEGERS: Final = ("trade_count", "state", "flags", "revision", "residuals")

COLUMNS: Final = ("open_time", *_FLOATS, *_INTEGERS, "check")
"""Columns of a series' table, in order."""

CELLS: Final = (*_FLOATS, "trade_count", "residuals")
"""Columns in which two bars of one open time must be equal to be the same bar."""

_PACKED: Final = np.dtype([("open_time", "<i8"), *((n, "<f8") for n in _FLOATS), *((n, "<i8") for n in _INTEGERS)])
_PLAIN: Final = ("open_time", *_FLOATS, "trade_count", "state", "flags", "revision")
_BYTES: Final = np.dtype((np.void, _PACKED.itemsize))

NO_SLOT: Final = 0xFFFF
"""Slot of rows that come from the archive: they know their symbol's name only."""


@cache
def series_seed(symbol: str, interval: str) -> int:
    """Return what the checks of a series' rows begin with.

    Args:
        symbol: As the exchange spells it.
        interval: Name of the interval.
    """
    return zlib.crc32(f"{symbol}\0{interval}".encode())


def series_mask(seed: int) -> int:
    """Return in which bits checks begun with a seed differ from checks begun with none; a crc is linear."""
    nothing = bytes(_PACKED.itemsize)
    return zlib.crc32(nothing, seed) ^ zlib.crc32(nothing)


def encode_rows(rows: Rows, seeds: Iterable[int]) -> list[Values]:
    """Return rows as SQL parameters, in the order of `COLUMNS`.

    Args:
        rows: Shape (n,), dtype KLINE.
        seeds: Seed of each row's series.
    """
    return list(encoded(rows, seeds))


def encoded(rows: Rows, seeds: Iterable[int]) -> Iterator[Values]:
    """Return what `encode_rows` does, one row at a time: those that nobody keeps cost no memory.

    Args:
        rows: Shape (n,), dtype KLINE; some thousands, so that the columns stay in the processor's cache.
        seeds: Seed of each row's series.
    """
    packed = np.empty(len(rows), dtype=_PACKED)
    for name in _PLAIN:
        packed[name] = rows[name]
    for name in _FLOATS:
        packed[name] += 0.0  # SQLite stores -0.0 as the integer 0
    packed["residuals"] = _pack_residuals(rows)
    # Column by column: a tuple of a structured row costs several times as much.
    return zip(*(packed[name].tolist() for name in COLUMNS[:-1]), _checks(packed, seeds), strict=True)


def decode_rows(values: list[Values], interval_code: int, price_decimals: int, quantity_decimals: int) -> Rows:
    """Return stored rows as bars.

    Args:
        values: Rows of a series' table, in the order of `COLUMNS`.
        interval_code: Code of the series' interval.
        price_decimals: Of the series; rows with residuals know their own.
        quantity_decimals: Likewise.

    Returns:
        Shape (n,), dtype KLINE; slot 65535, ids -1, event time 0.
    """
    packed = np.array([row[:-1] for row in values], dtype=_PACKED)
    rows = np.zeros(len(values), dtype=KLINE)
    for name in _PLAIN:
        rows[name] = packed[name]
    residuals = packed["residuals"]
    rows["quote_residual"] = (residuals & 0xFFFF).astype(np.uint16).view(np.int16)
    rows["taker_quote_residual"] = (residuals >> 16 & 0xFFFF).astype(np.uint16).view(np.int16)
    rows["price_decimals"] = np.where(residuals != 0, residuals >> 32 & 0xFF, price_decimals)
    rows["quantity_decimals"] = np.where(residuals != 0, residuals >> 40 & 0xFF, quantity_decimals)
    rows["interval"] = interval_code
    rows["slot"] = NO_SLOT
    rows["last_agg_id"] = rows["last_trade_id"] = -1
    return rows


def is_intact(row: Values, seed: int) -> bool:
    """Return whether a stored row still has the bits it was written with, and belongs to its series.

    Args:
        row: In the order of `COLUMNS`.
        seed: Of the series.
    """
    try:
        packed = np.array([row[:-1]], dtype=_PACKED)
    except (TypeError, ValueError, OverflowError):
        return False
    return bool(zlib.crc32(packed.tobytes(), seed) == row[-1])


def intact_rows(values: list[Values], seed: int) -> list[Values]:
    """Return those of a series' stored rows that are intact."""
    try:
        packed = np.array([row[:-1] for row in values], dtype=_PACKED)
    except (TypeError, ValueError, OverflowError):
        return [row for row in values if is_intact(row, seed)]
    return [row for row, check in zip(values, _checks(packed, repeat(seed)), strict=True) if row[-1] == check]


def amended(row: Values, revision: int, flags: int, seed: int) -> Values:
    """Return a row's SQL parameters with another revision and other flags."""
    packed = np.array([row[:-1]], dtype=_PACKED)
    packed["revision"], packed["flags"] = revision, flags
    return (*packed.tolist()[0], *_checks(packed, (seed,)))


def _checks(packed: Rows, seeds: Iterable[int]) -> list[int]:
    return list(map(zlib.crc32, packed.view(_BYTES).tolist(), seeds))


def _pack_residuals(rows: Rows) -> Rows:
    quote = rows["quote_residual"].astype(np.int64) & 0xFFFF
    taker = rows["taker_quote_residual"].astype(np.int64) & 0xFFFF
    decimals = rows["price_decimals"].astype(np.int64) << 32 | rows["quantity_decimals"].astype(np.int64) << 40
    packed = quote | taker << 16
    return np.where(packed != 0, packed | decimals, 0)
