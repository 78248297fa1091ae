"""Grouping of individual trades into aggTrades: same price, same taker side, within 100 ms of the first fill.

A group is emitted when the next one starts or 150 ms after its first fill, whichever is first.
"""

from __future__ import annotations

from .bars import Fill
from .intervals import MINUTE_MS


__all__ = ["FLUSH_MS", "WINDOW_MS", "Group", "Grouper"]

WINDOW_MS = 100
FLUSH_MS = 150


class Group:
    """One aggTrade being built or done."""

    __slots__ = ("agg_id", "first_id", "first_ms", "last_id", "price", "quantity", "rpi_quantity", "taker_buy")

    def __init__(self, agg_id: int, fill: Fill) -> None:
        self.agg_id = agg_id
        self.price = fill.price
        self.quantity = fill.quantity
        self.rpi_quantity = fill.rpi_quantity
        self.first_id = fill.first_id
        self.last_id = fill.last_id
        self.first_ms = fill.time_ms
        self.taker_buy = fill.taker_buy


class Grouper:
    """Group the trades of one symbol.

    Args:
        next_id: id of the first aggTrade; ids are consecutive.
        cross_minutes: False cuts groups at minute ends too, so that sums by `T` equal the official bar.
    """

    __slots__ = ("_cross_minutes", "current", "next_id")

    def __init__(self, next_id: int, cross_minutes: bool = True) -> None:
        self.next_id = next_id
        self._cross_minutes = cross_minutes
        self.current: Group | None = None

    def add(self, fill: Fill) -> Group | None:
        """Take one trade; return the group it ended, if any. `current` is then the group of this trade."""
        group = self.current
        if group is not None and self._belongs(group, fill):
            group.quantity += fill.quantity
            group.rpi_quantity += fill.rpi_quantity
            group.last_id = fill.last_id
            return None
        if fill.agg_id >= 0:
            self.next_id = fill.agg_id
        self.current = Group(self.next_id, fill)
        self.next_id += 1
        return group

    def flush(self) -> Group | None:
        """End the current group."""
        group, self.current = self.current, None
        return group

    def _belongs(self, group: Group, fill: Fill) -> bool:
        return (
            fill.agg_id < 0
            and group.price == fill.price
            and group.taker_buy == fill.taker_buy
            and fill.time_ms - group.first_ms <= WINDOW_MS
            and (self._cross_minutes or fill.time_ms // MINUTE_MS == group.first_ms // MINUTE_MS)
        )
