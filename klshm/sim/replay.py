"""Recordings as sources: individual trades (CSV), aggTrades (JSON or CSV) and frames (JSON lines).

Trades go through the same grouping and candles as generated ones. AggTrades are passed on as they are; their candles
count `l - f + 1` trades by `T`. Frames are sent verbatim at their `E`; the market then makes none of that symbol, and
its rows are the recorded final ones where there are any.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from .bars import Bar, Fill
from .events import RawEvent
from .intervals import DAY_MS
from .symbols import SymbolSpec


__all__ = ["RecordedTrades", "Recording", "ReplayError", "load", "spec_for"]

_PRICE = ("price", "p")
_QUANTITY = ("qty", "quantity", "q")
_TIME = ("exch_ts_ms", "transact_time", "time", "T", "timestamp")
_MAKER = ("is_buyer_maker", "isBuyerMaker", "m")
_TRADE_ID = ("trade_id", "id")
_AGG_ID = ("agg_trade_id", "a")
_FIRST_ID = ("first_trade_id", "f")
_LAST_ID = ("last_trade_id", "l")


class ReplayError(ValueError):
    """A recording that cannot be read; the message says what was found and what was expected."""


class RecordedTrades:
    """A finite source of trades."""

    def __init__(self, fills: Iterable[Fill]) -> None:
        self._fills = iter(fills)

    def next(self) -> Fill | None:
        """Return the next trade, or None at the end."""
        return next(self._fills, None)


@dataclass
class Recording:
    """What one or more files say about one symbol."""

    symbol: str
    price_decimals: int
    quantity_decimals: int
    fills: list[Fill] = field(default_factory=list)
    raw: list[RawEvent] = field(default_factory=list)

    @property
    def first_ms(self) -> int:
        """Time of the first record."""
        return min([fill.time_ms for fill in self.fills[:1]] + [frame.event_ms for frame in self.raw[:1]])


def load(symbol: str, paths: list[Path], price_decimals: int = 0, quantity_decimals: int = 0) -> Recording:
    """Read the files of one symbol.

    Args:
        price_decimals: fewest decimals to print prices with; more if the data have more.
        quantity_decimals: likewise for quantities.

    Raises:
        ReplayError: a file is missing or not understood.
    """
    rows: list[dict[str, Any]] = []
    frames: list[tuple[dict[str, Any], str]] = []
    for path in paths:
        text = _read(path)
        try:
            if text[:1] == "[":
                rows += orjson.loads(text)
            elif text[:1] == "{":
                frames += [(_payload(line), line) for line in text.splitlines() if line.strip()]
            else:
                rows += list(csv.DictReader(io.StringIO(text)))
        except (orjson.JSONDecodeError, csv.Error) as error:
            raise ReplayError(f"{path}: found unreadable content ({error}), expected {_EXPECTED}") from None
    frames.sort(key=lambda pair: int(pair[0].get("E", 0)))
    rows += [payload for payload, _ in frames if payload.get("e") == "aggTrade"]
    klines = [payload["k"] for payload, _ in frames if payload.get("e") == "kline"]
    if not rows and not klines:
        raise ReplayError(
            f"{', '.join(map(str, paths))}: found no trade, aggTrade or kline frame, expected {_EXPECTED}"
        )
    try:
        prices = [_cell(row, _PRICE) for row in rows] + [k[c] for k in klines for c in "ohlc"]
        quantities = [_cell(row, _QUANTITY) for row in rows] + [k["v"] for k in klines]
        p = max(price_decimals, max(map(_decimals, prices)))
        q = max(quantity_decimals, max(map(_decimals, quantities)))
        fills = [_fill(row, p, q) for row in rows]
        raw = [_raw(payload, line, symbol, p, q) for payload, line in frames]
    except (KeyError, ValueError, TypeError) as error:
        raise ReplayError(f"{', '.join(map(str, paths))}: found a row without {error}, expected {_EXPECTED}") from None
    fills.sort(key=lambda fill: (fill.first_id, fill.time_ms))
    return Recording(symbol, p, q, fills, raw)


_EXPECTED = (
    "trades (CSV with trade_id,price,qty,exch_ts_ms,is_buyer_maker), aggTrades (JSON array or CSV with a,p,q,f,l,T,m) "
    "or frames (JSON lines)"
)


def spec_for(recording: Recording, known: SymbolSpec | None, history_days: int) -> SymbolSpec:
    """Return the listing of a replayed symbol: the known one with the decimals, price and pace of the recording."""
    fills = recording.fills
    first_ms = recording.first_ms
    span_s = max(1.0, (fills[-1].time_ms - fills[0].time_ms) / 1000.0) if fills else 60.0
    base = recording.symbol.removesuffix("USDT")
    onboard_ms = first_ms - history_days * DAY_MS
    onboard_ms -= onboard_ms % 300_000
    price = fills[0].price if fills else 10 ** (recording.price_decimals + 2)
    size = sum(fill.quantity for fill in fills) // max(1, sum(fill.trades for fill in fills)) if fills else 1
    spec = known or SymbolSpec(recording.symbol, base, 0, 1, 0, 1, 1, pair=recording.symbol)
    return replace(
        spec,
        status="TRADING",
        price_decimals=recording.price_decimals,
        quantity_decimals=recording.quantity_decimals,
        tick=_step([fill.price for fill in fills]),
        reference_price=price,
        order_size=max(2, size),
        trades_per_s=sum(fill.trades for fill in fills) / span_s,
        onboard_ms=onboard_ms,
        first_trade_ms=onboard_ms + 120_000,
        calm=0.02,
    )


def _step(prices: list[int]) -> int:
    step = 1
    while step < 10**6 and prices and all(price % (step * 10) == 0 for price in prices):
        step *= 10
    return step


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8").lstrip("\ufeff \r\n\t")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ReplayError(f"{path}: cannot be read ({error}), expected {_EXPECTED}; check the path") from None


def _payload(line: str) -> dict[str, Any]:
    message = orjson.loads(line)
    if not isinstance(message, dict):
        raise ReplayError(f"found the line {line[:40]!r}, expected a JSON object")
    data = message.get("data", message)
    return data if isinstance(data, dict) else {}


def _cell(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if name in row:
            return row[name]
    raise KeyError(f"column {' or '.join(names)}")


def _decimals(text: str) -> int:
    return len(text.rstrip("0").partition(".")[2]) if "." in text else 0


def _units(text: str, decimals: int) -> int:
    whole, _, rest = text.partition(".")
    return int(whole + rest[:decimals].ljust(decimals, "0"))


def _fill(row: dict[str, Any], p: int, q: int) -> Fill:
    quantity = _units(_cell(row, _QUANTITY), q)
    maker = _cell(row, _MAKER)
    taker_buy = not maker if isinstance(maker, bool) else maker.strip().lower() not in ("true", "1")
    time_ms, price = int(_cell(row, _TIME)), _units(_cell(row, _PRICE), p)
    if any(name in row for name in _AGG_ID):
        first, last = int(_cell(row, _FIRST_ID)), int(_cell(row, _LAST_ID))
        rpi = quantity - _units(row["nq"], q) if "nq" in row else 0
        return Fill(time_ms, first, last, last - first + 1, price, quantity, rpi, taker_buy, int(_cell(row, _AGG_ID)))
    trade_id = int(_cell(row, _TRADE_ID))
    return Fill(time_ms, trade_id, trade_id, 1, price, quantity, 0, taker_buy, -1)


def _raw(payload: dict[str, Any], line: str, symbol: str, p: int, q: int) -> RawEvent:
    name = payload["s"].lower()
    text = line.strip()
    if text.startswith('{"stream"'):
        text = text[text.index('"data":') + 7 : -1]
    if payload["e"] == "aggTrade":
        return RawEvent(payload["E"], f"{name}@aggTrade", text, symbol)
    k = payload["k"]
    official = _official(k, p, q) if k["x"] and k["i"] == "1m" else None
    return RawEvent(payload["E"], f"{name}@kline_{k['i']}", text, symbol, official)


def _official(k: dict[str, Any], p: int, q: int) -> Bar:
    bar = Bar(k["t"], _units(k["o"], p))
    bar.high, bar.low, bar.close = _units(k["h"], p), _units(k["l"], p), _units(k["c"], p)
    bar.volume, bar.quote, bar.count = _units(k["v"], q), _units(k["q"], p + q), k["n"]
    bar.taker_volume, bar.taker_quote = _units(k["V"], q), _units(k["Q"], p + q)
    bar.first_id, bar.last_id = k["f"], k["L"]
    return bar
