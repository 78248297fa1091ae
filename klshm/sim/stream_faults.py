"""What the faults of streams do to events: losses, copies, delays and silence."""

from __future__ import annotations

import heapq

import numpy as np

from .events import AggEvent, ContractEvent, Event, KlineEvent, RawEvent
from .faults import Faults


__all__ = ["StreamFaults", "kind_of"]


def kind_of(event: Event) -> str:
    """Return the stream type of an event."""
    if isinstance(event, KlineEvent):
        return "kline"
    if isinstance(event, AggEvent):
        return "aggTrade"
    if isinstance(event, ContractEvent):
        return "contractInfo"
    if isinstance(event, RawEvent):
        return "aggTrade" if event.stream.endswith("@aggTrade") else "kline"
    return "trade"


class StreamFaults:
    """Between the market and the connections.

    Args:
        faults: what is wrong at present.
        seed: of the chances.
    """

    def __init__(self, faults: Faults, seed: int = 1) -> None:
        self._faults = faults
        self._rng = np.random.default_rng([seed, 13])
        self._late: list[tuple[int, int, Event]] = []
        self._serial = 0
        # Final frames that wait for the first frame of the candle after theirs, by symbol and interval.
        self._held: dict[tuple[str, str], KlineEvent] = {}

    def apply(self, events: list[Event], now_ms: int) -> list[Event]:
        """Return what is really sent now."""
        if not (self._faults.lasting or self._late or self._held):
            return events
        sent: list[Event] = []
        for event in events:
            self._pass(event, now_ms, sent)
        while self._late and self._late[0][0] <= now_ms:
            self._send(heapq.heappop(self._late)[2], sent)
        return sent

    def _pass(self, event: Event, now_ms: int, sent: list[Event]) -> None:
        kind = kind_of(event)
        if self._faults.muted(kind, _symbol(event), now_ms):
            return
        if kind == "aggTrade":
            if not self._happens("drop", now_ms):
                sent += [event] * (2 if self._happens("duplicate", now_ms) else 1)
        elif kind == "kline":
            self._pass_kline(event, now_ms, sent)
        else:
            sent.append(event)

    def _pass_kline(self, event: Event, now_ms: int, sent: list[Event]) -> None:
        late = self._faults.active("reorder", now_ms)
        delay_ms = int(late[-1]["delay_ms"]) if late else 0
        if isinstance(event, KlineEvent) and event.final:
            skewed = self._faults.active("delay_x", now_ms, event.instrument.spec.symbol)
            if skewed:
                fault = skewed[-1]
                if self._rng.random() < fault["probability"]:
                    return
                if fault["after_next"]:
                    self._held[event.instrument.spec.symbol, event.interval] = event
                    return
                delay_ms += int(fault["delay_ms"]) + int(fault["jitter_ms"] * self._rng.random())
        if delay_ms:
            self._serial += 1
            heapq.heappush(self._late, (now_ms + delay_ms, self._serial, event))
        else:
            self._send(event, sent)

    def _send(self, event: Event, sent: list[Event]) -> None:
        sent.append(event)
        if self._held and isinstance(event, KlineEvent):
            key = event.instrument.spec.symbol, event.interval
            held = self._held.get(key)
            if held is not None and event.bar.open_time > held.bar.open_time:
                sent.append(self._held.pop(key))

    def _happens(self, name: str, now_ms: int) -> bool:
        active = self._faults.active(name, now_ms)
        return bool(active) and self._rng.random() < active[-1]["probability"]


def _symbol(event: Event) -> str:
    return event.stream.partition("@")[0].upper() if isinstance(event, RawEvent) else event.instrument.spec.symbol
