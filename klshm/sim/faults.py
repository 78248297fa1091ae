"""Faults by name: switched on by the control endpoint or by a fixed schedule.

Every fault takes `seconds` where it lasts. The registry (names and parameters):

    close       drop all connections now; `connection` drops one; `code` closes politely with that code
    freeze      `seconds`: send nothing, then everything queued
    duplicate   `probability`, `seconds`: aggTrade frames are sent twice
    drop        `probability`, `seconds`: aggTrade frames are lost
    mute        `stream` (aggTrade, kline, ...), `symbol`, `seconds`: the stream is silent, acks continue
    reorder     `delay_ms`, `seconds`: kline frames come later than their aggTrades
    delay_x     `delay_ms`, `probability` of being skipped, `seconds`: final kline frames are late or missing
    http_status `status`, `count`, `path` (part of it): the next REST answers are 429, 418, 403 (HTML), 500 or 503
    http_delay  `delay_ms`, `path` (part of it), `seconds`: REST answers come late
    refuse      `seconds`: WebSocket handshakes are answered by 503
    clock_step  `step_ms`: the exchange's clock jumps
    bad_json    `count`: so many aggTrade frames are cut short
    list_symbol `symbol`, `delay_s`: PENDING_TRADING now, TRADING after the delay
    delist_symbol `symbol`, `delay_s`: deliveryDate changes now, SETTLING after the delay
    clear       end everything that lasts

A schedule is a name or a JSON array of such objects, each with `at_s`, the seconds after the start.
The schedule `standard` is made for a start 100 s before a Monday 00:00 UTC, where the simulator starts when it is
given that schedule and no other time; minutes then end at 40, 100 (with every other interval), 160 and 220 s:

    15   duplicates (10 %) for 25 s
    60   all connections close, in the middle of a minute
    70   freeze for 10 s
    85   kline frames 400 ms behind their aggTrades for 30 s
    95   final kline frames 3 s late for 20 s: those of the week's last minute
    120  a listing, trading after 15 s
    125  aggTrade mute for 30 s
    150  final kline frames missing for 30 s: those of the minute that the mute fell into
    180  a delisting after 15 s

A close within 5 s of a minute end (with another start) is moved by 20 s.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from .events import AggEvent, ContractEvent, Event, KlineEvent, RawEvent
from .intervals import MINUTE_MS, next_open_ms, open_ms


__all__ = ["SCHEDULES", "Faults", "UnknownFault", "kind_of", "schedule_start_ms"]

Parameters = dict[str, Any]

SCHEDULES: dict[str, list[tuple[float, Parameters]]] = {
    "standard": [
        (15, {"name": "duplicate", "probability": 0.1, "seconds": 25}),
        (60, {"name": "close"}),
        (70, {"name": "freeze", "seconds": 10}),
        (85, {"name": "reorder", "delay_ms": 400, "seconds": 30}),
        (95, {"name": "delay_x", "delay_ms": 3000, "seconds": 20}),
        (120, {"name": "list_symbol", "symbol": "NEWUSDT", "delay_s": 15}),
        (125, {"name": "mute", "stream": "aggTrade", "seconds": 30}),
        (150, {"name": "delay_x", "probability": 1.0, "seconds": 30}),
        (180, {"name": "delist_symbol", "delay_s": 15}),
    ]
}

_STANDARD_LEAD_MS = 100_000


class UnknownFault(ValueError):
    """A fault or schedule that does not exist, or parameters that do not fit."""


@dataclass
class _Lasting:
    until_ms: int
    parameters: Parameters = field(default_factory=dict)


def _parse(schedule: str) -> list[tuple[float, Parameters]]:
    expected = f"expected one of {', '.join(SCHEDULES)} or a JSON array of objects with at_s and name"
    try:
        entries = orjson.loads(schedule)
        planned = [(float(entry["at_s"]), {k: v for k, v in entry.items() if k != "at_s"}) for entry in entries]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise UnknownFault(f"found --faults {schedule!r}, {expected}") from None
    for _, parameters in planned:
        if parameters.get("name") not in Faults.NAMES:
            raise UnknownFault(f"found fault {parameters.get('name')!r}, expected one of {', '.join(Faults.NAMES)}")
    return planned


def schedule_start_ms(schedule: str, now_ms: int) -> int | None:
    """Return when a simulator with this schedule starts if it is not told: None for now.

    `standard` starts 100 s before the next Monday 00:00 UTC.
    """
    return next_open_ms("1w", open_ms("1w", now_ms)) - _STANDARD_LEAD_MS if schedule == "standard" else None


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


class Faults:
    """What is wrong at present.

    Args:
        seed: of the chances.
    """

    NAMES = (
        "close", "freeze", "duplicate", "drop", "mute", "reorder", "delay_x", "http_status", "http_delay",
        "refuse", "clock_step", "bad_json",
        "list_symbol", "delist_symbol", "clear",
    )  # fmt: skip

    def __init__(self, seed: int = 1) -> None:
        self.hooks: dict[str, Callable[[Parameters, int], object]] = {}
        self.counts: dict[str, int] = {}
        self._rng = np.random.default_rng([seed, 13])
        self._lasting: dict[str, list[_Lasting]] = {}
        self._http: list[Parameters] = []
        self._bad_json = 0
        self._planned: list[tuple[int, int, Parameters]] = []
        self._late: list[tuple[int, int, Event]] = []
        self._serial = 0

    # Called by the server

    def plan(self, schedule: str, start_ms: int) -> None:
        """Schedule a named list of faults, or one given as a JSON array.

        Raises:
            UnknownFault: no such schedule.
        """
        for offset_s, parameters in SCHEDULES[schedule] if schedule in SCHEDULES else _parse(schedule):
            at_ms = start_ms + int(offset_s * 1000)
            if parameters["name"] == "close" and not 5_000 <= at_ms % MINUTE_MS < 55_000:
                at_ms += 20_000
            self._serial += 1
            heapq.heappush(self._planned, (at_ms, self._serial, parameters))

    def run_due(self, now_ms: int) -> None:
        """Start the planned faults whose time has come."""
        while self._planned and self._planned[0][0] <= now_ms:
            self.start(heapq.heappop(self._planned)[2], now_ms)

    def start(self, parameters: Parameters, now_ms: int) -> object:
        """Start one fault.

        Raises:
            UnknownFault: unknown name or unusable parameters.
        """
        name = parameters.get("name")
        if name not in self.NAMES:
            raise UnknownFault(f"found fault {name!r}, expected one of {', '.join(self.NAMES)}")
        self.counts[name] = self.counts.get(name, 0) + 1
        if name in self.hooks:
            return self.hooks[name](parameters, now_ms)
        if name == "clear":
            self._lasting.clear()
            self._http.clear()
            self._bad_json = 0
        elif name == "http_status":
            self._http.append({"status": 429, "count": 1, "path": "", **parameters})
        elif name == "bad_json":
            self._bad_json += int(parameters.get("count", 1))
        else:
            try:
                until_ms = now_ms + int(float(parameters["seconds"]) * 1000)
            except (KeyError, TypeError, ValueError):
                raise UnknownFault(
                    f"fault {name} needs the number seconds, found {parameters.get('seconds')!r}"
                ) from None
            self._lasting.setdefault(name, []).append(_Lasting(until_ms, parameters))
        return None

    def refuses(self, now_ms: int) -> bool:
        """Say whether WebSocket handshakes are refused."""
        return self._active("refuse", now_ms) is not None

    def http_delay_s(self, path: str, now_ms: int) -> float:
        """Return how long the answer on this path must wait."""
        late = self._active("http_delay", now_ms)
        return float(late.get("delay_ms", 1000)) / 1000.0 if late is not None and late.get("path", "") in path else 0.0

    def frozen(self, now_ms: int) -> bool:
        """Say whether nothing may be written."""
        return self._active("freeze", now_ms) is not None

    def http_status(self, path: str) -> int | None:
        """Return the status the next answer on this path must have, if any, and use it up."""
        for entry in self._http:
            if entry["path"] in path:
                entry["count"] -= 1
                if entry["count"] <= 0:
                    self._http.remove(entry)
                return int(entry["status"])
        return None

    def spoil(self, text: str) -> str:
        """Cut a payload short when bad JSON is due."""
        if self._bad_json:
            self._bad_json -= 1
            return text[: len(text) // 2]
        return text

    def apply(self, events: list[Event], now_ms: int) -> list[Event]:
        """Return what is really sent now: with losses, copies and delays."""
        if not self._lasting and not self._late:
            return events
        sent: list[Event] = []
        for event in events:
            self._pass(event, now_ms, sent)
        while self._late and self._late[0][0] <= now_ms:
            sent.append(heapq.heappop(self._late)[2])
        return sent

    def state(self, now_ms: int) -> dict[str, object]:
        """Describe what is active and what was ever started."""
        active = [name for name in self._lasting if self._active(name, now_ms)]
        return {"active": active, "started": self.counts, "planned": len(self._planned), "http": len(self._http)}

    # One event

    def _active(self, name: str, now_ms: int) -> Parameters | None:
        entries = self._lasting.get(name)
        if entries is None:
            return None
        entries[:] = [entry for entry in entries if entry.until_ms > now_ms]
        if not entries:
            del self._lasting[name]
            return None
        return entries[-1].parameters

    def _pass(self, event: Event, now_ms: int, sent: list[Event]) -> None:
        kind = kind_of(event)
        if self._muted(event, kind, now_ms):
            return
        if kind == "aggTrade":
            drop = self._active("drop", now_ms)
            if drop is not None and self._rng.random() < float(drop.get("probability", 0.1)):
                return
            sent.append(event)
            double = self._active("duplicate", now_ms)
            if double is not None and self._rng.random() < float(double.get("probability", 0.1)):
                sent.append(event)
            return
        delay_ms = 0
        if kind == "kline":
            late = self._active("reorder", now_ms)
            delay_ms = int(late.get("delay_ms", 300)) if late is not None else 0
            if isinstance(event, KlineEvent) and event.final:
                skip = self._active("delay_x", now_ms)
                if skip is not None:
                    if self._rng.random() < float(skip.get("probability", 0.0)):
                        return
                    delay_ms += int(skip.get("delay_ms", 0))
        if delay_ms:
            self._serial += 1
            heapq.heappush(self._late, (now_ms + delay_ms, self._serial, event))
        else:
            sent.append(event)

    def _muted(self, event: Event, kind: str, now_ms: int) -> bool:
        if self._active("mute", now_ms) is None:
            return False
        for entry in self._lasting["mute"]:
            wanted, symbol = entry.parameters.get("stream", "aggTrade"), entry.parameters.get("symbol")
            own = (
                event.stream.partition("@")[0].upper() if isinstance(event, RawEvent) else event.instrument.spec.symbol
            )
            if wanted == kind and symbol in (None, own):
                return True
        return False
