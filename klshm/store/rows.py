"""A bar as the archive keeps it: fifteen columns, two packed residuals, one checksum.

`residuals` is 0 for all but the largest bars (it then costs no byte in SQLite), else

    quote & 0xFFFF | taker << 16 & 0xFFFF0000 | price_decimals << 32 | quantity_decimals << 40

with the decimals of the row itself, since those of the symbol may have grown since. `check`
is the crc32 of the other fourteen columns as little-endian 64-bit words, in their order, so
that a flipped bit in a REAL can be found. Ids and times of arrival are not archived.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import numpy as np

from klshm.shm.layout import KLINE


__all__ = ["CELLS", "COLUMNS", "NO_SLOT", "amended", "decode_rows", "encode_rows", "intact_rows", "is_intact"]

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

NO_SLOT: Final = 0xFFFF
"""Slot of rows that come from the archive: they know their symbol's name only."""


def encode_rows(rows: Rows) -> list[Values]:
    """Return rows as SQL parameters, in the order of `COLUMNS`.

    Args:
        rows: Shape (n,), dtype KLINE.
    """
    packed = np.zeros(len(rows), dtype=_PACKED)
    for name in _PLAIN:
        packed[name] = rows[name]
    for name in _FLOATS:
        packed[name] += 0.0  # SQLite stores -0.0 as the integer 0
    packed["residuals"] = _pack_residuals(rows)
    return _with_check(packed)


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


def is_intact(row: Values) -> bool:
    """Return whether a stored row still has the bits it was written with."""
    try:
        packed = np.array([row[:-1]], dtype=_PACKED)
    except (TypeError, ValueError, OverflowError):
        return False
    return bool(zlib.crc32(packed.tobytes()) == row[-1])


def intact_rows(values: list[Values]) -> list[Values]:
    """Return those of stored rows that still have the bits they were written with."""
    try:
        packed = np.array([row[:-1] for row in values], dtype=_PACKED)
    except (TypeError, ValueError, OverflowError):
        return [row for row in values if is_intact(row)]
    return [row for row, whole in zip(values, _with_check(packed), strict=True) if row[-1] == whole[-1]]


def amended(row: Values, revision: int, flags: int) -> Values:
    """Return a row's SQL parameters with another revision and other flags."""
    packed = np.array([row[:-1]], dtype=_PACKED)
    packed["revision"], packed["flags"] = revision, flags
    return _with_check(packed)[0]


def _with_check(packed: Rows) -> list[Values]:
    data, size, crc32 = memoryview(packed.tobytes()), _PACKED.itemsize, zlib.crc32
    checks = [crc32(data[at : at + size]) for at in range(0, len(data), size)]
    return [(*row, check) for row, check in zip(packed.tolist(), checks, strict=True)]


def _pack_residuals(rows: Rows) -> Rows:
    quote = rows["quote_residual"].astype(np.int64) & 0xFFFF
    taker = rows["taker_quote_residual"].astype(np.int64) & 0xFFFF
    decimals = rows["price_decimals"].astype(np.int64) << 32 | rows["quantity_decimals"].astype(np.int64) << 40
    packed = quote | taker << 16
    return np.where(packed != 0, packed | decimals, 0)
