"""Higher bars against the lower ones they are made of, in integers; pure.

Compared are confirmed bars whose lower bars are all there and confirmed. The exchange's own
files contradict themselves on a few days, so a difference is damage only where the higher bar
is our own fold (`derived`); of two bars that the exchange itself has confirmed, neither is wrong.

Open, high and low leave out lower bars without trades, as the engine does (BARS section 9).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from klshm import intervals
from klshm.shm import layout as lay


__all__ = ["Difference", "differences", "units"]

Rows = np.ndarray[Any, Any]

_SURE: Final = 1 << 51
"""From so many units on a float64 needs a residual to name one integer."""
_SUMS: Final = (
    ("volume", "", "quantity"),
    ("taker_buy_volume", "", "quantity"),
    ("quote_volume", "quote_residual", "quote"),
    ("taker_buy_quote_volume", "taker_quote_residual", "quote"),
)


class Difference(NamedTuple):
    """A higher bar that its lower bars do not add up to."""

    open_time: int
    is_derived: bool
    fields: tuple[str, ...]


def differences(parents: Rows, children: Rows, interval: str, source: str) -> list[Difference]:
    """Compare the bars of an interval with those they are made of.

    Args:
        parents: Rows without fault, oldest first, dtype KLINE.
        children: Likewise, of the interval that the parents are made from.
        interval: The parents' interval.
        source: The children's.
    """
    number = intervals.length_ms(interval) // intervals.length_ms(source)
    length_ms, anchor_ms = intervals.length_ms(interval), intervals.anchor_ms(interval)
    children = children[children["state"] == lay.STATE_CONFIRMED]
    parents = parents[parents["state"] == lay.STATE_CONFIRMED]
    groups = (children["open_time"] - anchor_ms) // length_ms * length_ms + anchor_ms
    opens, starts, counts = np.unique(groups, return_index=True, return_counts=True)
    opens, starts = opens[counts == number], starts[counts == number]
    _, which, at = np.intersect1d(opens, parents["open_time"], return_indices=True)
    if not len(which):
        return []
    wanted = parents[at]
    blocks = children[starts[which][:, None] + np.arange(number)]  # shape (bars, number)
    unequal = _unequal(wanted, blocks)
    return [
        Difference(
            int(row["open_time"]),
            bool(row["flags"] & lay.FLAG_DERIVED),
            tuple(name for name, found in unequal.items() if found[index]),
        )
        for index, row in enumerate(wanted)
        if any(found[index] for found in unequal.values())
    ]


def units(values: Rows, residuals: Rows, scale: Rows) -> Rows:
    """Return the integers that floats and residuals stand for (`klshm.shm.exact.split`, in NumPy alone)."""
    whole = np.floor(values)
    found: Rows = whole.astype(np.int64) * scale + np.rint((values - whole) * scale).astype(np.int64) + residuals
    return found


def _unequal(wanted: Rows, blocks: Rows) -> dict[str, Rows]:
    traded = blocks["flags"] & lay.FLAG_FILLED == 0
    some = traded.any(axis=1)
    first = np.argmax(traded, axis=1)
    each = np.arange(len(blocks))
    last = blocks["close"][:, -1]
    unequal = {
        "open": wanted["open"] != np.where(some, blocks["open"][each, first], last),
        "high": wanted["high"] != np.where(some, np.where(traded, blocks["high"], -np.inf).max(axis=1), last),
        "low": wanted["low"] != np.where(some, np.where(traded, blocks["low"], np.inf).min(axis=1), last),
        "close": wanted["close"] != last,
        "trade_count": wanted["trade_count"] != blocks["trade_count"].astype(np.int64).sum(axis=1),
    }
    decimals = _decimals(wanted, blocks)
    for name, residual, kind in _SUMS:
        scale = 10 ** decimals[kind]
        one, slack_one = _sum(wanted[:, None], name, residual, scale)
        all_, slack_all = _sum(blocks, name, residual, scale)
        unequal[name] = np.abs(one - all_) > slack_one + slack_all
    return unequal


def _decimals(wanted: Rows, blocks: Rows) -> dict[str, Rows]:
    """Return the decimals in which a bar and its parts can all be counted."""
    price, quantity = (
        np.maximum(wanted[name], blocks[name].max(axis=1)).astype(np.int64)
        for name in ("price_decimals", "quantity_decimals")
    )
    return {"quantity": quantity, "quote": price + quantity}


def _sum(rows: Rows, name: str, residual: str, scale: Rows) -> tuple[Rows, Rows]:
    """Return the sum of each row of bars in units, and by how many units it may be off.

    A bar without residual keeps no decimals of its own; if those of its series have grown since, a large
    sum can be told only as exactly as its float64.
    """
    own = rows["quantity_decimals"].astype(np.int64)
    if residual:
        own = own + rows["price_decimals"]
    residuals = rows[residual].astype(np.int64) if residual else np.zeros(rows.shape, dtype=np.int64)
    counted = units(rows[name], residuals, 10**own)
    blurred = (residuals == 0) & (counted >= _SURE)
    counted = counted * (scale[:, None] // 10**own)
    slack = np.where(blurred, np.ceil(np.spacing(rows[name]) * scale[:, None]), 0)
    return counted.sum(axis=1), slack.sum(axis=1)
