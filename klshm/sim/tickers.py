"""Tickers: the all-market arrays once a second, changed rows only, COIN-M rows mixed in; single ones every other."""

from __future__ import annotations

from collections.abc import Callable

from .frames import mini_ticker, ticker
from .hub import Hub
from .market import Market


__all__ = ["Tickers"]

_CM_MINI = (
    '{{"e":"24hrMiniTicker","E":{e},"s":"{s}","c":"83061.2","o":"82150.1","h":"83903.5","l":"81600.0",'
    '"v":"1913789","q":"2303.89491534","ps":"{ps}","st":2}}'
)
_CM_TICKER = (
    '{{"e":"24hrTicker","E":{e},"s":"{s}","ps":"{ps}","p":"911.1","P":"1.109","w":"82900.10000000","c":"83061.2","Q":"12",'
    '"o":"82150.1","h":"83903.5","l":"81600.0","v":"1913789","q":"2303.89491534","O":{o},"C":{c},"F":912345678,"L":912399999,'
    '"n":54310,"st":2}}'
)
# Only a fault that is for all symbols is for this one.
_NO_SYMBOL = "-"
_CM = (("BTCUSD_PERP", "BTCUSD"), ("AAVEUSD_PERP", "AAVEUSD"))


class Tickers:
    """Send miniTicker and ticker events for what changed since the last call.

    Args:
        muted: says whether a kind of stream (miniTicker, ticker) is silent for a symbol at a time, a fault.
    """

    def __init__(
        self, market: Market, hub: Hub, muted: Callable[[str, str, int], bool] = lambda stream, symbol, now_ms: False
    ) -> None:
        self._market = market
        self._hub = hub
        self._muted = muted
        self._second = 0

    def run(self, now_ms: int) -> None:
        """Send this second's events."""
        changed, self._market.changed = self._market.changed, set()
        self._second += 1
        hub, market = self._hub, self._market
        minis = hub.wanted("!miniTicker@arr") and not self._muted("miniTicker", _NO_SYMBOL, now_ms)
        fulls = hub.wanted("!ticker@arr") and not self._muted("ticker", _NO_SYMBOL, now_ms)
        mini_rows: list[str] = []
        full_rows: list[str] = []
        for symbol in changed:
            instrument = market.instruments[symbol]
            mini_name, full_name = f"{instrument.lower}@miniTicker", f"{instrument.lower}@ticker"
            # A single symbol's ticker comes every other second.
            mini = self._second % 2 == 0 and hub.wanted(mini_name)
            full = self._second % 2 == 0 and hub.wanted(full_name)
            if not (minis or fulls or mini or full):
                continue
            day = instrument.day(now_ms)
            if day is None:
                continue
            if not self._muted("miniTicker", symbol, now_ms):
                if minis:
                    mini_rows.append(mini_ticker(instrument, day, now_ms, row=True))
                if mini:
                    hub.send(mini_name, mini_ticker(instrument, day, now_ms, row=False))
            if not self._muted("ticker", symbol, now_ms):
                if fulls:
                    full_rows.append(ticker(instrument, day, now_ms))
                if full:
                    hub.send(full_name, ticker(instrument, day, now_ms))
        for name, base in _CM:
            if minis:
                mini_rows.append(_CM_MINI.format(e=now_ms, s=name, ps=base))
            if fulls:
                opened_ms = now_ms - now_ms % 60_000 - 86_340_000
                full_rows.append(_CM_TICKER.format(e=now_ms, s=name, ps=base, o=opened_ms, c=now_ms - 1))
        if minis:
            hub.send("!miniTicker@arr", f"[{','.join(mini_rows)}]")
        if fulls:
            hub.send("!ticker@arr", f"[{','.join(full_rows)}]")
