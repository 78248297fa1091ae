"""What is wrong with the rows of one series; pure.

A row whose check fails says nothing that can be trusted, not even its time. All else is judged
by the rows that are intact: where they should stand, what values a bar can have, and which bars
are missing between the first and the last of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from klshm import intervals
from klshm.shm import layout as lay
from klshm.store.rows import decode_rows, intact_rows


__all__ = ["UNCONFIRMED_AGE_MS", "Hole", "SeriesState", "impossible", "look_at"]

Rows = np.ndarray[Any, Any]
Values = tuple[Any, ...]

UNCONFIRMED_AGE_MS: Final = 20 * intervals.MINUTE_MS
"""An empty minute may wait a quarter of an hour until the exchange is asked for it."""

_MAX_DECIMALS: Final = 9
_FLAGS: Final = (1 << len(lay.FLAG_NAMES)) - 1
_PARTS: Final = (("taker_buy_volume", "volume"), ("taker_buy_quote_volume", "quote_volume"))
_NUMBERS: Final = ("open", "high", "low", "close", "volume", "quote_volume", *(part for part, _ in _PARTS))


class Hole(NamedTuple):
    """Bars that are not there, first and last open time, UTC ms."""

    first_ms: int
    last_ms: int


@dataclass
class SeriesState:
    """What was found in one series.

    Attributes:
        good: Rows without fault, oldest first, dtype KLINE.
        wrong: Time (as stored) of every row that must go, to its problem and what was found.
        holes: Where there is no row at all between two good ones.
        unconfirmed: Times of good rows that should have been confirmed by now.
    """

    good: Rows
    wrong: dict[Any, tuple[str, str]] = field(default_factory=dict)
    holes: list[Hole] = field(default_factory=list)
    unconfirmed: list[int] = field(default_factory=list)


def look_at(
    values: Sequence[Values], interval: str, seed: int, price_decimals: int, quantity_decimals: int, now_ms: int
) -> SeriesState:
    """Judge the rows of a series.

    Args:
        values: Its stored rows in the order of their times, columns as `klshm.store.rows.COLUMNS`.
        interval: Its interval.
        seed: What its rows' checks begin with.
        price_decimals: Of the series.
        quantity_decimals: Of the series.
        now_ms: Exchange time by which unconfirmed bars are judged, UTC ms.
    """
    rows = list(values)
    intact = intact_rows(rows, seed)
    wrong: dict[Any, tuple[str, str]] = {}
    if len(intact) < len(rows):
        whole = set(map(id, intact))
        wrong = {row[0]: ("bits", "its check does not fit") for row in rows if id(row) not in whole}
    good = decode_rows(intact, intervals.code_of(interval), price_decimals, quantity_decimals)
    length_ms, anchor_ms = intervals.length_ms(interval), intervals.anchor_ms(interval)
    verdicts = [
        ("misaligned", "not a multiple of its interval", (good["open_time"] - anchor_ms) % length_ms != 0),
        *(("impossible", what, found) for what, found in impossible(good)),
        ("left open", "state live", (good["state"] == lay.STATE_LIVE) & (np.arange(len(good)) < len(good) - 1)),
    ]
    faulty = np.zeros(len(good), dtype=bool)
    for problem, detail, found in verdicts:
        for index in np.flatnonzero(found):
            wrong.setdefault(int(good["open_time"][index]), (problem, detail))
        faulty |= found
    good = good[~faulty]
    state = SeriesState(good, wrong, _holes(good, length_ms, wrong))
    old = (good["state"] == lay.STATE_CLOSED) & (good["open_time"] + length_ms + UNCONFIRMED_AGE_MS <= now_ms)
    state.unconfirmed = good["open_time"][old].tolist()
    return state


def impossible(rows: Rows) -> list[tuple[str, Rows]]:
    """Return what no bar can be, and which rows are so.

    Args:
        rows: Shape (n,), dtype KLINE, of any state.
    """
    numbers = np.stack([rows[name] for name in _NUMBERS])
    with np.errstate(invalid="ignore"):
        filled = rows["flags"] & lay.FLAG_FILLED != 0
        decimals = rows["price_decimals"].astype(np.int64) + rows["quantity_decimals"]
        return [
            ("a value that is no finite number, or below 0", ~(np.isfinite(numbers) & (numbers >= 0)).all(axis=0)),
            ("low above open or close", rows["low"] > np.minimum(rows["open"], rows["close"])),
            ("high below open or close", rows["high"] < np.maximum(rows["open"], rows["close"])),
            *((f"{part} above {whole}", rows[part] > rows[whole]) for part, whole in _PARTS),
            ("volume without trades", (rows["trade_count"] == 0) & (rows["volume"] != 0)),
            ("trades and `filled`", filled & (rows["trade_count"] != 0)),
            ("neither trades nor `filled`", ~filled & (rows["trade_count"] == 0) & (rows["state"] > lay.STATE_LIVE)),
            ("an unknown state or flag", (rows["state"] - 1 > 2) | (rows["flags"] > _FLAGS)),
            (f"more than {_MAX_DECIMALS} decimals of price x quantity", decimals > _MAX_DECIMALS),
        ]


def _holes(good: Rows, length_ms: int, wrong: dict[Any, Any]) -> list[Hole]:
    """Return the gaps between good rows that no faulty row fills."""
    times = good["open_time"]
    holes = []
    for index in np.flatnonzero(np.diff(times) > length_ms):
        first, end = int(times[index]) + length_ms, int(times[index + 1])
        expected = range(first, end, length_ms)
        filled = sorted(time for time in wrong if isinstance(time, int) and time in expected)
        for stop in [*filled, end]:
            if stop > first:
                holes.append(Hole(first, stop - length_ms))
            first = stop + length_ms
    return holes
