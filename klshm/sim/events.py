"""What the market says: each event carries the time `event_ms` at which the exchange would send it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .bars import Bar, Fill
from .groups import Group
from .instrument import Instrument


__all__ = ["AggEvent", "ContractEvent", "Event", "KlineEvent", "RawEvent", "TradeEvent"]


class AggEvent(NamedTuple):
    """A finished aggTrade."""

    event_ms: int
    instrument: Instrument
    group: Group


class KlineEvent(NamedTuple):
    """A kline frame; `bar` is a copy."""

    event_ms: int
    instrument: Instrument
    interval: str
    bar: Bar
    final: bool


class TradeEvent(NamedTuple):
    """An individual trade, for `<symbol>@trade`."""

    event_ms: int
    instrument: Instrument
    fill: Fill


class ContractEvent(NamedTuple):
    """A change of status or of brackets, for `!contractInfo`."""

    event_ms: int
    instrument: Instrument
    status: str
    brackets: bool = False


class RawEvent(NamedTuple):
    """A recorded frame, sent verbatim; `official` is the row of a final 1m frame."""

    event_ms: int
    stream: str
    text: str
    symbol: str
    official: Bar | None = None


Event: TypeAlias = AggEvent | KlineEvent | TradeEvent | ContractEvent | RawEvent
