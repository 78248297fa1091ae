"""From the bytes of a stream frame to an event, typed and checked.

Numbers stay decimal: ``"83091.70"`` becomes 8309170 with two decimals, never a float. Anything
that is not a plain non-negative decimal number is refused. Unknown keys and unknown events are
tolerated; a frame that lacks what its kind needs is a `BadMessage`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from klshm.core.events import EVENT, FRAME, TICKER, TRADE
from klshm.errors import BadMessage


__all__ = ["EventBatch", "FrameDecoder", "parse_decimal"]

_MAX_DIGITS: Final = 18
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError)
"""What hostile frames make of a decoder: no JSON, no UTF-8, integers beyond 64 bits, bottomless nesting."""


class _AggregateTrade(msgspec.Struct, tag_field="e", tag="aggTrade", gc=False):
    E: int
    s: str
    a: int
    p: str
    q: str
    f: int
    l: int
    T: int
    m: bool


class _Bar(msgspec.Struct, gc=False):
    t: int
    i: str
    f: int
    L: int
    o: str
    c: str
    h: str
    l: str
    v: str
    n: int
    x: bool
    q: str
    V: str
    Q: str


class _Kline(msgspec.Struct, tag_field="e", tag="kline", gc=False):
    E: int
    s: str
    k: _Bar


class _ContinuousKline(msgspec.Struct, tag_field="e", tag="continuous_kline", gc=False):
    E: int
    ps: str
    ct: str
    k: _Bar


class _Ticker(msgspec.Struct, gc=False):
    E: int
    s: str
    L: int
    st: int = 1


_Event = _AggregateTrade | _Kline | _ContinuousKline


class _Combined(msgspec.Struct, gc=False):
    data: _Event


class _Named(msgspec.Struct, gc=False):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


def parse_decimal(text: str) -> tuple[int, int]:
    """Read a plain decimal number.

    Args:
        text: Such as "83091.70".

    Returns:
        Its digits as an integer, and how many of them stand behind the point.

    Raises:
        BadMessage: If it is anything but digits with at most one point, or longer than 18 digits.
    """
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not digits.isascii() or not digits.isdigit() or len(digits.lstrip("0")) > _MAX_DIGITS or not whole:
        raise BadMessage(f"number {text[:40]!r} is not a plain decimal of at most {_MAX_DIGITS} digits; frame refused")
    return int(digits), len(fraction)


class EventBatch:
    """A growing array of events, filled row by row and handed over whole.

    Args:
        capacity: Events it holds before it grows.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._events = np.zeros(capacity, dtype=EVENT)
        self._words = self._events.view(np.int64)
        self.count = 0

    def append(self, values: tuple[int, ...]) -> None:
        """Add an event.

        Args:
            values: All fields of EVENT in order.

        Raises:
            BadMessage: If one of them does not fit 64 bits; nothing is added.
        """
        if self.count == len(self._events):
            self.reserve(1)
        try:
            self._events[self.count] = values
        except OverflowError as error:
            raise BadMessage("frame refused: a number does not fit 64 bits") from error
        self.count += 1

    def reserve(self, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Make room for so many more events.

        Returns:
            The whole batch as words; event `count` is the first free one. Valid until the next `append`.
        """
        missing = self.count + number - len(self._events)
        if missing > 0:
            more = np.zeros(max(missing, len(self._events)), dtype=EVENT)
            self._events = np.concatenate((self._events, more))
            self._words = self._events.view(np.int64)
        return self._words

    def take(self) -> np.ndarray[Any, Any]:
        """Return the events, shape (n,), dtype EVENT, and start anew; valid until the next `append`."""
        events = self._events[: self.count]
        self.count = 0
        return events

    def take_words(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
        """Return the whole batch as words and how many events it holds, and start anew; as `take`, but quicker."""
        count, self.count = self.count, 0
        return self._words, count


class FrameDecoder:
    """Turns combined stream frames of one worker into events.

    Args:
        slots: Local slot per symbol as the exchange spells it; changed in place when symbols come and go.
        pairs: Local slot per (pair, contract type), for continuous klines; changed in place likewise.
    """

    def __init__(self, slots: dict[str, int], pairs: dict[tuple[str, str], int]) -> None:
        self._slots = slots
        self._pairs = pairs
        self._decode = msgspec.json.Decoder(_Combined).decode
        self._decode_named = msgspec.json.Decoder(_Named).decode
        self._decode_tickers = msgspec.json.Decoder(list[_Ticker]).decode
        self.unknown_symbols = 0

    def decode(self, payload: bytes, batch: EventBatch) -> None:
        """Add the events of one frame to a batch.

        Args:
            payload: The frame's payload.
            batch: Where they go; nothing is added when the frame is refused.

        Raises:
            BadMessage: If the frame is no JSON, lacks a field or holds an impossible number.
        """
        try:
            data = self._decode(payload).data
        except _UNREADABLE as error:
            self._decode_other(payload, batch, error)
            return
        if isinstance(data, _AggregateTrade):
            self._trade(data, batch)
        elif isinstance(data, _Kline):
            slot = self._slots.get(data.s, -1)
            self._frame(data.E, data.k, slot, data.k.f, data.k.L, batch)
        else:
            self._continuous(data, batch)

    def _trade(self, data: _AggregateTrade, batch: EventBatch) -> None:
        slot = self._slots.get(data.s, -1)
        if slot < 0:
            self.unknown_symbols += 1
            return
        price, price_decimals = parse_decimal(data.p)
        quantity, quantity_decimals = parse_decimal(data.q)
        batch.append(
            (
                *(TRADE, slot, data.E, data.T, 0, data.m, data.a, data.f, data.l),
                *(price_decimals, quantity_decimals, 0),
                *(price, 0, 0, 0, quantity, 0, 0, 0, 0, 0),
            )
        )

    def _frame(self, time: int, bar: _Bar, slot: int, first: int, last: int, batch: EventBatch) -> None:
        if slot < 0:
            self.unknown_symbols += 1
            return
        if bar.i != "1m":
            return
        prices, price_decimals = _aligned(bar.o, bar.h, bar.l, bar.c)
        volumes, quantity_decimals = _aligned(bar.v, bar.V)
        quotes, quote_decimals = _aligned(bar.q, bar.Q)
        batch.append(
            (
                *(FRAME, slot, time, bar.t, 0, bar.x, 0, first, last),
                *(price_decimals, quantity_decimals, quote_decimals),
                *prices,
                *(volumes[0], quotes[0], volumes[1], quotes[1], bar.n, 0),
            )
        )

    def _continuous(self, data: _ContinuousKline, batch: EventBatch) -> None:
        """Its ids are book update ids: a final bar confirms, everything else says nothing."""
        if data.k.x:
            slot = self._pairs.get((data.ps, data.ct), -1)
            self._frame(data.E, data.k, slot, -2, -2, batch)

    def _decode_other(self, payload: bytes, batch: EventBatch, error: Exception) -> None:
        try:
            named = self._decode_named(payload)
            rows = self._decode_tickers(named.data) if named.stream == "!ticker@arr" else None
        except _UNREADABLE:
            rows = None
        if rows is None:
            raise BadMessage(f"frame refused: {error}; it begins {payload[:80]!r}") from error
        for row in rows:
            slot = self._slots.get(row.s, -1)
            if slot >= 0 and row.st == 1:
                batch.append((TICKER, slot, row.E, 0, 0, 0, 0, 0, row.L, *[0] * 13))


def _aligned(*texts: str) -> tuple[list[int], int]:
    """Read several decimals with one number of digits behind the point."""
    parsed = [parse_decimal(text) for text in texts]
    decimals = max(places for _, places in parsed)
    return [digits * 10 ** (decimals - places) for digits, places in parsed], decimals
