"""Official klines of one symbol from individual trades, half-open minutes by trade time."""

from __future__ import annotations

from .bars import Bar, Fill
from .intervals import MINUTE_MS, next_open_ms, open_ms


__all__ = ["MinuteRows", "Series"]


class Series:
    """The open bar of one interval and whether its final frame was sent."""

    __slots__ = ("bar", "final_sent", "interval", "next_open_ms")

    def __init__(self, interval: str, bar: Bar) -> None:
        self.interval = interval
        self.bar = bar
        self.next_open_ms = next_open_ms(interval, bar.open_time)
        self.final_sent = False

    def roll(self, at_ms: int) -> None:
        """Move on to the bar that contains `at_ms`, flat at the last close."""
        self.bar = Bar(open_ms(self.interval, at_ms), self.bar.close)
        self.next_open_ms = next_open_ms(self.interval, self.bar.open_time)
        self.final_sent = False


class MinuteRows:
    """Every 1m bar since the start, without holes.

    Args:
        start_ms: minute of the first row.
        price: close before it.
    """

    def __init__(self, start_ms: int, price: int) -> None:
        self.start_ms = start_ms
        self._rows: list[Bar] = [Bar(start_ms, price)]

    @property
    def last(self) -> Bar:
        """The newest row, perhaps still open."""
        return self._rows[-1]

    def extend(self, at_ms: int) -> Bar:
        """Return the row of the minute of `at_ms`, after flat rows for every minute before it."""
        rows = self._rows
        last = rows[-1]
        while last.open_time + MINUTE_MS <= at_ms:
            last = Bar(last.open_time + MINUTE_MS, last.close)
            rows.append(last)
        if last.open_time <= at_ms:
            return last
        return rows[max(0, (at_ms - self.start_ms) // MINUTE_MS)]

    def add(self, fill: Fill) -> None:
        """Apply one trade to its minute."""
        self.extend(fill.time_ms).add(fill)

    def replace(self, bar: Bar) -> None:
        """Put an official row in the place of the computed one."""
        self.extend(bar.open_time)
        self._rows[(bar.open_time - self.start_ms) // MINUTE_MS] = bar

    def between(self, from_ms: int, to_ms: int) -> list[Bar]:
        """Return the rows opened in [from_ms, to_ms)."""
        first = max(0, -(-(from_ms - self.start_ms) // MINUTE_MS))
        stop = max(0, -(-(to_ms - self.start_ms) // MINUTE_MS))
        return self._rows[first:stop]
