"""The exchange's kline rows as records: validated, exact in both directions.

A row's decimals are its symbol's, or more where its strings carry more. Sums above 2^51 units
are read from the string as integers and keep the residual that restores them (SHM section 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import numpy as np

from klshm import intervals
from klshm.errors import BadMessage
from klshm.exchange.models import MAX_DECIMALS, RestKline
from klshm.shm import layout as lay
from klshm.shm.exact import MAX_SUM, split
from klshm.shm.layout import KLINE


__all__ = ["CONFIRM_AGE_MS", "closed_only", "gap_after", "kline_rows"]

Rows = np.ndarray[Any, Any]

CONFIRM_AGE_MS: Final = 30_000
"""A row read so long after its end does not change any more."""

_RESIDUAL_FROM: Final = float(1 << 51)
_MAX_COUNT: Final = 2**32 - 1

_Prices = ("open", "high", "low", "close")
_Volumes = ("volume", "taker_buy_volume")
_Quotes: Final[tuple[tuple[Literal["quote_volume", "taker_buy_quote_volume"], str], ...]] = (
    ("quote_volume", "quote_residual"),
    ("taker_buy_quote_volume", "taker_quote_residual"),
)


def closed_only(raw: Sequence[RestKline], sent_ms: int) -> list[RestKline]:
    """Return the rows of bars that had ended when the request was sent."""
    return [row for row in raw if row.close_time < sent_ms]


def kline_rows(
    raw: Sequence[RestKline], interval: str, *, slot: int, price_decimals: int, quantity_decimals: int, sent_ms: int
) -> Rows:
    """Turn the exchange's rows into records.

    Args:
        raw: Rows of closed bars, as the exchange sent them.
        interval: Their interval.
        slot: Slot of their symbol.
        price_decimals: The symbol's price decimals.
        quantity_decimals: The symbol's quantity decimals.
        sent_ms: Exchange time of the reading, UTC ms; it becomes `event_time`.

    Returns:
        Shape (n,), dtype KLINE: confirmed where the bar was 30 s old, else closed; revision 1.

    Raises:
        BadMessage: If any row is impossible; it says which and why.
    """
    rows = np.zeros(len(raw), dtype=KLINE)
    if not raw:
        return rows
    for name in (*_Prices, *_Volumes, "quote_volume", "taker_buy_quote_volume"):
        rows[name] = _numbers([getattr(row, name) for row in raw], name)
    rows["open_time"] = [row.open_time for row in raw]
    counts = [row.trade_count for row in raw]
    if min(counts) < 0 or max(counts) > _MAX_COUNT:
        raise BadMessage(f"klines: trade count {min(counts)}..{max(counts)}, expected 0..{_MAX_COUNT}")
    rows["trade_count"] = counts
    _check(rows, raw, interval)
    end_ms = rows["open_time"] + intervals.length_ms(interval)
    rows["state"] = np.where(end_ms + CONFIRM_AGE_MS <= sent_ms, lay.STATE_CONFIRMED, lay.STATE_CLOSED)
    rows["flags"] = np.where(rows["trade_count"] == 0, lay.FLAG_FILLED, 0)
    rows["event_time"] = sent_ms
    rows["revision"] = 1
    rows["last_agg_id"] = rows["last_trade_id"] = -1
    rows["slot"] = slot
    rows["interval"] = intervals.code_of(interval)
    _set_decimals(rows, raw, price_decimals, quantity_decimals)
    return rows


def gap_after(rows: Rows, interval: str) -> int | None:
    """Return the open time of the last row before the first gap, or None if there is no gap.

    The exchange has gaps of its own (outages), so a gap alone does not make its answer wrong.
    """
    steps = np.diff(rows["open_time"])
    gaps = np.flatnonzero(steps != intervals.length_ms(interval))
    return int(rows["open_time"][gaps[0]]) if len(gaps) else None


def _numbers(texts: Iterable[str], name: str) -> list[float]:
    numbers = []
    for text in texts:
        try:
            # Python's float() also takes "1_0", "nan" and "infinity"; the exchange sends none of them.
            number = float(text) if "_" not in text else math.nan
        except ValueError:
            number = math.nan
        if not 0.0 <= number < math.inf:
            raise BadMessage(f"klines: {name} {text!r}, expected a finite decimal not below 0")
        numbers.append(number)
    return numbers


def _check(rows: Rows, raw: Sequence[RestKline], interval: str) -> None:
    length, anchor = intervals.length_ms(interval), intervals.anchor_ms(interval)
    opens = rows["open_time"]
    checks = (
        ("not aligned to its interval", (opens - anchor) % length != 0),
        ("closes at another time", np.array([r.close_time for r in raw]) != opens + length - 1),
        ("not after the row before", np.concatenate(([False], np.diff(opens) <= 0))),
        ("low above open or close", rows["low"] > np.minimum(rows["open"], rows["close"])),
        ("high below open or close", rows["high"] < np.maximum(rows["open"], rows["close"])),
    )
    for what, wrong in checks:
        if np.any(wrong):
            raise BadMessage(f"klines: {what}: {raw[int(np.argmax(wrong))]!r} of {interval}; the batch is refused")


def _set_decimals(rows: Rows, raw: Sequence[RestKline], price_decimals: int, quantity_decimals: int) -> None:
    for index, row in enumerate(raw):
        price = _decimals((row.open, row.high, row.low, row.close), price_decimals)
        quantity = _decimals((row.volume, row.taker_buy_volume), quantity_decimals)
        # A sum of price x quantity never has more decimals than both together; if it is printed with more, keep them.
        quantity = max(quantity, _decimals((row.quote_volume, row.taker_buy_quote_volume), price + quantity) - price)
        if price + quantity > MAX_DECIMALS:
            raise BadMessage(f"klines: {price} + {quantity} decimals, at most {MAX_DECIMALS} together: {row!r}")
        rows["price_decimals"][index] = price
        rows["quantity_decimals"][index] = quantity
        scale = 10 ** (price + quantity)
        for name, residual in _Quotes:
            value = float(rows[name][index])
            if value * scale >= _RESIDUAL_FROM:
                rows[residual][index] = _units(getattr(row, name), price + quantity) - int(split(value, scale))


def _decimals(texts: Iterable[str], least: int) -> int:
    """Return how many decimals are needed; padding zeros need none."""
    needed = least
    for text in texts:
        point = text.find(".")
        if point >= 0 and len(text) - point - 1 > needed:
            needed = max(needed, len(text.rstrip("0")) - point - 1)
    return needed


def _units(text: str, decimals: int) -> int:
    whole, _, fraction = text.partition(".")
    scale: int = 10**decimals
    units = int(whole) * scale + int(fraction[:decimals].ljust(decimals, "0") or "0")
    if units >= MAX_SUM:
        raise BadMessage(f"klines: a sum of {text} is beyond what can be carried exactly")
    return units
