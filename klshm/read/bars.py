"""One bar for people and programs: names instead of codes, the fields and order of FORMS.

Many bars stay NumPy arrays (dtype `KLINE`); a `Bar` is made where one bar is handed out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from klshm.intervals import INTERVALS, length_ms
from klshm.shm.layout import FLAG_NAMES, KLINE, STATE_NAMES


__all__ = ["COLUMNS", "ROW", "Bar", "Row", "bar_of", "bars_of", "close_times", "flag_words", "position"]

Rows = np.ndarray[Any, Any]
Row = tuple[Any, ...]
"""One KLINE row as `tolist()` gives it."""

COLUMNS: Final = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "trade_count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "state",
    "flags",
    "revision",
)
"""Columns of a bar in the exchange's REST order, then what klshm adds."""

_LENGTHS: Final = tuple(length_ms(name) for name in INTERVALS)


def position(field: str) -> int:
    """Return where a field of KLINE stands in a row's tuple."""
    names = KLINE.names
    assert names is not None
    return names.index(field)


def _row_format() -> str:
    codes = {"<i8": "q", "<f8": "d", "<u4": "I", "<i4": "i", "<u2": "H", "<i2": "h", "|u1": "B"}
    return "<" + "".join(codes[KLINE[name].str] for name in KLINE.names or ())


ROW: Final = struct.Struct(_row_format())
"""Unpacks the bytes of one KLINE row, three times as fast as through an array."""

_TAKER_BUY_VOLUME: Final = position("taker_buy_volume")
_REVISION: Final = position("revision")
_INTERVAL: Final = position("interval")
_STATE: Final = position("state")
_FLAGS: Final = position("flags")


@dataclass(slots=True)
class Bar:
    """One bar of one symbol; `dict(bar)` is its JSON form.

    Attributes:
        symbol: Name as the exchange spells it.
        interval: Name of the interval, such as "1m".
        open_time: UTC ms.
        close_time: UTC ms, the last millisecond that belongs to it.
        state: "live", "closed" (by the clock) or "confirmed" (equal to the exchange's own).
        flags: Any of "filled", "partial", "provisional", "late", "corrected", "derived".
        revision: Grows with every change after closing.
    """

    symbol: str
    interval: str
    open_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    close_time: int
    quote_volume: float
    trade_count: int
    taker_buy_volume: float
    taker_buy_quote_volume: float
    state: str
    flags: tuple[str, ...]
    revision: int

    def keys(self) -> Iterator[str]:
        """Return the names of the fields, in order."""
        return iter(_FIELDS)

    def __getitem__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise KeyError(f"a bar has no field {name!r}; it has {', '.join(_FIELDS)}")
        return getattr(self, name)


_FIELDS: Final = tuple(item.name for item in fields(Bar))


def flag_words(flags: int) -> tuple[str, ...]:
    """Return the words of a flags field."""
    return _FLAG_WORDS[flags & (len(_FLAG_WORDS) - 1)]


_FLAG_WORDS: Final = tuple(
    tuple(name for bit, name in enumerate(FLAG_NAMES) if flags >> bit & 1) for flags in range(1 << len(FLAG_NAMES))
)


def bar_of(row: Row, symbol: str) -> Bar:
    """Return the bar that a row holds.

    Args:
        row: A KLINE row as a tuple.
        symbol: Name of its symbol.
    """
    _, open_time, opened, high, low, close, volume, quote_volume, trade_count = row[:9]
    taker_buy_volume, taker_buy_quote_volume = row[_TAKER_BUY_VOLUME : _TAKER_BUY_VOLUME + 2]
    interval = row[_INTERVAL]
    return Bar(
        symbol,
        INTERVALS[interval],
        open_time,
        opened,
        high,
        low,
        close,
        volume,
        open_time + _LENGTHS[interval] - 1,
        quote_volume,
        trade_count,
        taker_buy_volume,
        taker_buy_quote_volume,
        STATE_NAMES[row[_STATE]],
        flag_words(row[_FLAGS]),
        row[_REVISION],
    )


def bars_of(rows: Rows, symbol: str) -> list[Bar]:
    """Return the bars of one symbol's rows, shape (n,), dtype KLINE."""
    return [bar_of(row, symbol) for row in rows.tolist()]


def close_times(rows: Rows) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the last millisecond of each row, UTC ms, shape of `rows`."""
    lengths = np.array(_LENGTHS, dtype=np.int64)
    closes: np.ndarray[Any, np.dtype[np.int64]] = rows["open_time"] + lengths[rows["interval"]] - 1
    return closes
