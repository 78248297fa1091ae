"""What the exchange's REST answers say, decoded tolerantly.

Unknown keys, contract types and filters are ignored. A row that cannot be used (no name, an
impossible name, absurd decimals) is left out and counted; it never spoils the others. Only a
body that is not what was asked for at all raises `BadMessage`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from klshm.config import ExchangeConfig
from klshm.errors import BadMessage


__all__ = [
    "MAX_DECIMALS",
    "NAME_BYTES",
    "ErrorBody",
    "ExchangeInfo",
    "Listing",
    "RestAggTrade",
    "RestKline",
    "Ticker",
    "decode_aggregate_trades",
    "decode_error",
    "decode_exchange_info",
    "decode_klines",
    "decode_server_time",
    "decode_tickers",
    "is_symbol_name",
    "select",
    "stream_symbol",
]

NAME_BYTES: Final = 60
MAX_DECIMALS: Final = 9
"""Most decimals of a product price x quantity that sums can carry exactly (SHM section 2)."""

DEFAULT_WEIGHT_LIMIT: Final = 2400
_ODD_KEPT: Final = 5

_LOWER: Final = {ord(c): c.lower() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


class Listing(msgspec.Struct, frozen=True, rename="camel"):
    """One contract as `exchangeInfo` lists it.

    Attributes:
        symbol: Name as the exchange spells it, such as "BTCUSDT".
        status: Such as "TRADING", "PENDING_TRADING", "SETTLING".
        price_precision: Decimals that prices are printed with.
        quantity_precision: Decimals that quantities are printed with.
        onboard_date: Announced begin of trading, UTC ms.
        delivery_date: End of trading, UTC ms; in the year 2100 where none is set.
    """

    symbol: str
    price_precision: int
    quantity_precision: int
    status: str = ""
    pair: str = ""
    contract_type: str = ""
    quote_asset: str = ""
    onboard_date: int = 0
    delivery_date: int = 0


class RestKline(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One row of `/fapi/v1/klines`; decimals are kept as the strings they came as."""

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_time: int
    quote_volume: str
    trade_count: int
    taker_buy_volume: str
    taker_buy_quote_volume: str


class RestAggTrade(msgspec.Struct, frozen=True, gc=False):
    """One row of `/fapi/v1/aggTrades`."""

    agg_id: int = msgspec.field(name="a")
    price: str = msgspec.field(name="p")
    quantity: str = msgspec.field(name="q")
    first_trade_id: int = msgspec.field(name="f")
    last_trade_id: int = msgspec.field(name="l")
    time_ms: int = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")


class Ticker(msgspec.Struct, frozen=True, gc=False):
    """What is used of one row of `/fapi/v1/ticker/24hr`."""

    symbol: str
    count: int = 0


class ErrorBody(msgspec.Struct, frozen=True):
    """The exchange's own error: a negative code and a sentence."""

    code: int
    msg: str = ""


@dataclass(frozen=True)
class ExchangeInfo:
    """All contracts of the exchange.

    Attributes:
        listings: Rows that can be used, in the exchange's order.
        odd: How many rows were left out.
        odd_examples: What was wrong with the first of them.
        weight_limit: Request weight this address may use per minute.
        odd_symbols: Names of the rows left out, where they have one that can be read: these are listed all the same.
    """

    listings: tuple[Listing, ...]
    odd: int
    odd_examples: tuple[str, ...]
    weight_limit: int
    odd_symbols: frozenset[str] = frozenset()


class _RateLimit(msgspec.Struct, rename="camel"):
    rate_limit_type: str = ""
    interval: str = ""
    interval_num: int = 1
    limit: int = 0


class _ExchangeInfo(msgspec.Struct, rename="camel"):
    symbols: list[msgspec.Raw]
    rate_limits: list[msgspec.Raw] = []


class _Named(msgspec.Struct):
    symbol: str = ""


class _ServerTime(msgspec.Struct, rename="camel"):
    server_time: int


_T = TypeVar("_T")

_klines = msgspec.json.Decoder(list[RestKline])
_aggregate_trades = msgspec.json.Decoder(list[RestAggTrade])
_raw_rows = msgspec.json.Decoder(list[msgspec.Raw])
_info = msgspec.json.Decoder(_ExchangeInfo)
_listing = msgspec.json.Decoder(Listing)
_named = msgspec.json.Decoder(_Named)
_rate_limit = msgspec.json.Decoder(_RateLimit)
_ticker = msgspec.json.Decoder(Ticker)
_time = msgspec.json.Decoder(_ServerTime)
_error = msgspec.json.Decoder(ErrorBody)


def is_symbol_name(name: str) -> bool:
    """Return whether a symbol can be carried: letters of any script, digits and "_", at most 60 bytes."""
    return 0 < len(name.encode()) <= NAME_BYTES and all(c == "_" or c.isalnum() for c in name)


def stream_symbol(name: str) -> str:
    """Return a symbol as stream names spell it: only its ASCII letters in lower case."""
    return name.translate(_LOWER)


def decode_exchange_info(body: bytes) -> ExchangeInfo:
    """Decode an `exchangeInfo` body.

    Raises:
        BadMessage: If it is not one, or lists nothing: an exchange without contracts is none.
    """
    info = _decode(_info, body, "exchangeInfo")
    listings: list[Listing] = []
    odd: list[str] = []
    odd_symbols: set[str] = set()
    for raw in info.symbols:
        try:
            listing = _listing.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            odd.append(f"{bytes(raw)[:60]!r}: {error}")
            odd_symbols.add(_name_of(raw))
            continue
        problem = _problem(listing)
        if problem:
            odd.append(f"{listing.symbol!r}: {problem}")
            odd_symbols.add(listing.symbol)
        else:
            listings.append(listing)
    if not listings:
        raise BadMessage(f"exchangeInfo: {len(odd)} rows and no contract that can be used {odd[:1]}; expected hundreds")
    limit = _weight_limit(info.rate_limits)
    return ExchangeInfo(tuple(listings), len(odd), tuple(odd[:_ODD_KEPT]), limit, frozenset(odd_symbols))


def select(listings: Iterable[Listing], config: ExchangeConfig) -> list[Listing]:
    """Return the contracts that the configuration takes, whatever their status, in the same order."""
    types, quotes = set(config.contract_types), set(config.quote_assets)
    allowed, excluded = set(config.symbols), set(config.exclude)
    return [
        listing
        for listing in listings
        if listing.contract_type in types
        and listing.quote_asset in quotes
        and (not allowed or listing.symbol in allowed)
        and listing.symbol not in excluded
    ]


def decode_server_time(body: bytes) -> int:
    """Return the exchange's time of a `time` body, UTC ms.

    Raises:
        BadMessage: If it is not one.
    """
    return _decode(_time, body, "time").server_time


def decode_klines(body: bytes) -> list[RestKline]:
    """Decode a `klines` body.

    Raises:
        BadMessage: If it is not one.
    """
    return _decode(_klines, body, "klines")


def decode_aggregate_trades(body: bytes) -> list[RestAggTrade]:
    """Decode an `aggTrades` body.

    Raises:
        BadMessage: If it is not one.
    """
    return _decode(_aggregate_trades, body, "aggTrades")


def decode_tickers(body: bytes) -> dict[str, Ticker]:
    """Decode a `ticker/24hr` body of all symbols; rows that do not fit are left out.

    Raises:
        BadMessage: If it is no list.
    """
    tickers: dict[str, Ticker] = {}
    for raw in _decode(_raw_rows, body, "ticker/24hr"):
        try:
            ticker = _ticker.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        tickers[ticker.symbol] = ticker
    return tickers


def decode_error(body: bytes) -> ErrorBody | None:
    """Return the exchange's error in a body, or None if it is something else (such as a page)."""
    try:
        return _error.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _decode(decoder: msgspec.json.Decoder[_T], body: bytes, what: str) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage(f"{what}: {error}, body begins {body[:80]!r}; expected the documented shape") from error


def _name_of(raw: msgspec.Raw) -> str:
    try:
        return _named.decode(raw).symbol
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _problem(listing: Listing) -> str:
    if not is_symbol_name(listing.symbol):
        return "a name of letters, digits and '_' of at most 60 bytes was expected"
    if listing.price_precision < 0 or listing.quantity_precision < 0:
        return "negative precision"
    if listing.price_precision + listing.quantity_precision > MAX_DECIMALS:
        return f"{listing.price_precision} + {listing.quantity_precision} decimals, at most {MAX_DECIMALS} together"
    return ""


def _weight_limit(rows: Iterable[Any]) -> int:
    for raw in rows:
        try:
            row = _rate_limit.decode(raw)
        except msgspec.DecodeError:
            continue
        if (row.rate_limit_type, row.interval, row.interval_num) == ("REQUEST_WEIGHT", "MINUTE", 1) and row.limit > 0:
            return row.limit
    return DEFAULT_WEIGHT_LIMIT
