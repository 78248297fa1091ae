"""Payloads of the exchange, key order as on the wire; decimals padded to the symbol's."""

from __future__ import annotations

from .bars import Bar, Fill
from .events import AggEvent, ContractEvent, KlineEvent, TradeEvent
from .groups import Group
from .instrument import Instrument
from .intervals import next_open_ms
from .symbols import SymbolSpec


__all__ = [
    "agg_frame", "agg_row", "continuous_frame", "contract_frame", "decimal", "kline_frame", "kline_row",
    "mini_ticker", "ticker", "ticker_row", "trade_frame", "trade_row",
]  # fmt: skip


_BRACKETS = (
    '[{"bs":1,"bnf":0,"bnc":5000,"mmr":0.01,"cf":0,"mi":21,"ma":50},'
    '{"bs":2,"bnf":5000,"bnc":25000,"mmr":0.025,"cf":75,"mi":11,"ma":20}]'
)


def decimal(units: int, decimals: int) -> str:
    """Print an integer count of 10**-decimals as a fixed decimal."""
    if decimals == 0:
        return str(units)
    sign = "-" if units < 0 else ""
    whole, rest = divmod(abs(units), 10**decimals)
    return f"{sign}{whole}.{rest:0{decimals}d}"


def agg_frame(event: AggEvent) -> str:
    """Return an aggTrade event."""
    spec, group = event.instrument.spec, event.group
    kept = decimal(group.quantity - group.rpi_quantity, spec.quantity_decimals)
    return (
        f'{{"e":"aggTrade","E":{event.event_ms},"a":{group.agg_id},"s":"{spec.symbol}",'
        f'"p":"{decimal(group.price, spec.price_decimals)}","q":"{decimal(group.quantity, spec.quantity_decimals)}",'
        f'"nq":"{kept}","f":{group.first_id},"l":{group.last_id},"T":{group.first_ms},'
        f'"m":{"false" if group.taker_buy else "true"},"st":1}}'
    )


def kline_frame(event: KlineEvent) -> str:
    """Return a kline event."""
    spec = event.instrument.spec
    head, tail = _kline_parts(spec, event)
    bar = event.bar
    return (
        f'{{"e":"kline","E":{event.event_ms},"s":"{spec.symbol}","k":{{{head},"s":"{spec.symbol}","i":"{event.interval}",'
        f'"f":{bar.first_id},"L":{bar.last_id},{tail}}}}}'
    )


def continuous_frame(event: KlineEvent) -> str:
    """Return a continuous_kline event; its `f` and `L` are book update ids, not trade ids."""
    spec, bar = event.instrument.spec, event.bar
    head, tail = _kline_parts(spec, event)
    first, last = (-1 if found < 0 else found * 431 + 17 for found in (bar.first_id, bar.last_id))
    return (
        f'{{"e":"continuous_kline","E":{event.event_ms},"ps":"{spec.pair}","ct":"{spec.contract_type}",'
        f'"k":{{{head},"i":"{event.interval}","f":{first},"L":{last},{tail}}}}}'
    )


def _kline_parts(spec: SymbolSpec, event: KlineEvent) -> tuple[str, str]:
    bar = event.bar
    p, q = spec.price_decimals, spec.quantity_decimals
    head = f'"t":{bar.open_time},"T":{next_open_ms(event.interval, bar.open_time) - 1}'
    tail = (
        f'"o":"{decimal(bar.open, p)}","c":"{decimal(bar.close, p)}","h":"{decimal(bar.high, p)}",'
        f'"l":"{decimal(bar.low, p)}","v":"{decimal(bar.volume, q)}","n":{bar.count},'
        f'"x":{"true" if event.final else "false"},"q":"{decimal(bar.quote, p + q)}",'
        f'"V":"{decimal(bar.taker_volume, q)}","Q":"{decimal(bar.taker_quote, p + q)}","B":"0"'
    )
    return head, tail


def trade_frame(event: TradeEvent) -> str:
    """Return a trade event (undocumented stream, route `/public`)."""
    spec, fill = event.instrument.spec, event.fill
    return (
        f'{{"e":"trade","E":{event.event_ms},"T":{fill.time_ms},"s":"{spec.symbol}","t":{fill.first_id},'
        f'"p":"{decimal(fill.price, spec.price_decimals)}","q":"{decimal(fill.quantity, spec.quantity_decimals)}",'
        f'"X":"{fill.kind}","m":{"false" if fill.taker_buy else "true"}}}'
    )


def contract_frame(event: ContractEvent) -> str:
    """Return a contractInfo event; `bks` is empty but for changes of brackets."""
    spec = event.instrument.spec
    bks = _BRACKETS if event.brackets else "[]"
    return (
        f'{{"e":"contractInfo","E":{event.event_ms},"s":"{spec.symbol}","ct":"{spec.contract_type}","dt":{spec.delivery_ms},'
        f'"ot":{spec.onboard_ms},"cs":"{event.status}","bks":{bks},"st":{2 if spec.coin_margined else 1}}}'
    )


def mini_ticker(instrument: Instrument, day: Bar, event_ms: int, *, row: bool) -> str:
    """Return a 24hrMiniTicker; rows of the array carry `ps` and `st`, single events only `st`."""
    spec = instrument.spec
    p, q = spec.price_decimals, spec.quantity_decimals
    extra = f',"ps":"{spec.pair}"' if row else ""
    return (
        f'{{"e":"24hrMiniTicker","E":{event_ms},"s":"{spec.symbol}",'
        f'"c":"{decimal(day.close, p)}","o":"{decimal(day.open, p)}",'
        f'"h":"{decimal(day.high, p)}","l":"{decimal(day.low, p)}","v":"{decimal(day.volume, q)}",'
        f'"q":"{decimal(day.quote, p + q)}"{extra},"st":1}}'
    )


def _change(spec: SymbolSpec, day: Bar) -> tuple[str, str, str]:
    change = day.close - day.open
    hundredths = round(100_000 * change / day.open) if day.open else 0
    mean = day.quote // day.volume if day.volume else day.close
    return decimal(change, spec.price_decimals), decimal(hundredths, 3), decimal(mean, spec.price_decimals)


def ticker(instrument: Instrument, day: Bar, event_ms: int) -> str:
    """Return a 24hrTicker row with the real last trade id."""
    spec = instrument.spec
    p, q = spec.price_decimals, spec.quantity_decimals
    change, percent, mean = _change(spec, day)
    last = decimal(instrument.trades[-1].quantity if instrument.trades else 0, q)
    return (
        f'{{"e":"24hrTicker","E":{event_ms},"s":"{spec.symbol}","ps":"{spec.pair}","p":"{change}","P":"{percent}","w":"{mean}",'
        f'"c":"{decimal(day.close, p)}","Q":"{last}","o":"{decimal(day.open, p)}","h":"{decimal(day.high, p)}",'
        f'"l":"{decimal(day.low, p)}","v":"{decimal(day.volume, q)}","q":"{decimal(day.quote, p + q)}",'
        f'"O":{day.open_time},"C":{event_ms - 1},"F":{day.first_id},"L":{day.last_id},"n":{day.count},"st":1}}'
    )


# REST rows


def kline_row(spec: SymbolSpec, interval: str, bar: Bar) -> list[object]:
    """Return the 12 elements of a REST kline."""
    p, q = spec.price_decimals, spec.quantity_decimals
    return [
        bar.open_time, decimal(bar.open, p), decimal(bar.high, p), decimal(bar.low, p), decimal(bar.close, p),
        decimal(bar.volume, q), next_open_ms(interval, bar.open_time) - 1, decimal(bar.quote, p + q), bar.count,
        decimal(bar.taker_volume, q), decimal(bar.taker_quote, p + q), "0",
    ]  # fmt: skip


def agg_row(spec: SymbolSpec, group: Group) -> dict[str, object]:
    """Return a REST aggTrade."""
    return {
        "a": group.agg_id,
        "p": decimal(group.price, spec.price_decimals),
        "q": decimal(group.quantity, spec.quantity_decimals),
        "nq": decimal(group.quantity - group.rpi_quantity, spec.quantity_decimals),
        "f": group.first_id,
        "l": group.last_id,
        "T": group.first_ms,
        "m": not group.taker_buy,
    }


def trade_row(spec: SymbolSpec, fill: Fill) -> dict[str, object]:
    """Return a REST trade."""
    return {
        "id": fill.first_id,
        "price": decimal(fill.price, spec.price_decimals),
        "qty": decimal(fill.quantity, spec.quantity_decimals),
        "quoteQty": decimal(fill.price * fill.quantity, spec.price_decimals + spec.quantity_decimals),
        "time": fill.time_ms,
        "isBuyerMaker": not fill.taker_buy,
        "isRPITrade": fill.rpi_quantity > 0,
    }


def ticker_row(instrument: Instrument, day: Bar, now_ms: int) -> dict[str, object]:
    """Return a REST 24hr ticker."""
    spec = instrument.spec
    p, q = spec.price_decimals, spec.quantity_decimals
    change, percent, mean = _change(spec, day)
    return {
        "symbol": spec.symbol,
        "priceChange": change,
        "priceChangePercent": percent,
        "weightedAvgPrice": mean,
        "lastPrice": decimal(day.close, p),
        "lastQty": decimal(instrument.trades[-1].quantity if instrument.trades else 0, q),
        "openPrice": decimal(day.open, p),
        "highPrice": decimal(day.high, p),
        "lowPrice": decimal(day.low, p),
        "volume": decimal(day.volume, q),
        "quoteVolume": decimal(day.quote, p + q),
        "openTime": day.open_time,
        "closeTime": now_ms,
        "firstId": day.first_id,
        "lastId": day.last_id,
        "count": day.count,
    }
