"""Faults by name: switched on by `POST /sim/faults` while the simulator runs, or by a schedule (`--faults`).

A fault is a JSON object with its `name` and parameters; what is left out has the default shown here. Where `seconds`
is named the fault lasts so long and `seconds` must be given. A `symbol` left out means all.

Connections:
    close          drop connections without a word; connection (a number: only that one), code and reason (close
                   politely instead)
    freeze         seconds: send nothing, then everything queued
    refuse         seconds, status (503): WebSocket handshakes are answered by that status
Streams:
    mute           seconds, stream ("aggTrade"; or kline, trade, contractInfo, miniTicker, ticker), symbol: the stream
                   is silent, acks continue
    drop           seconds, probability (0.1): aggTrade frames are lost
    duplicate      seconds, probability (0.1): aggTrade frames are sent twice
    reorder        seconds, delay_ms (300): kline frames come later than their aggTrades
    delay_x        seconds, symbol: final kline frames (`x:true`) come late by delay_ms (0) and up to jitter_ms (0)
                   more, after the next candle's first frame where after_next is true, or never by probability (0.0)
    bad_json       count (1), stream ("aggTrade" or kline): so many frames are cut short
REST:
    http_status    status (429), count (1), path (part of it): the next answers are 429, 418, 403 (HTML), 451, 500 or
                   503
    http_delay     seconds, delay_ms (1000), path (part of it): answers come late
    no_retry_after seconds: 429 and 418 carry no Retry-After (see also `--no-retry-after`)
    gap            seconds, symbol, ago_minutes (10), minutes (5): klines has no row that lies wholly in that span,
                   which begins so many minutes before the fault
    invalid_status seconds, symbol: klines answers 400 -1122, as for some listed symbols
Market (a symbol left out: a new name, one of the listed):
    list_symbol    symbol, delay_s (10), flip_ms (300), trades_per_s (3.0), contract_type ("PERPETUAL"):
                   PENDING_TRADING now and again shortly before the onboardDate, which is after delay_s; TRADING flip_ms
                   after it
    delist_symbol  symbol, delay_s (10), status ("SETTLING"), vanish_s (never): the deliveryDate changes now, at that
                   time trading ends with that status, and vanish_s later the symbol leaves exchangeInfo (klines remain)
    brackets       symbol: `!contractInfo` tells new brackets; BTCUSD_PERP tells them for a coin-margined contract
    clock_step     step_ms (1000): the exchange's clock jumps, backwards if negative
And:
    clear          end everything that lasts
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .intervals import MINUTE_MS


__all__ = ["PARAMETERS", "Faults", "Parameters", "UnknownFault", "complete"]

Parameters = dict[str, Any]

_NEEDED = None
#: Every fault's parameters with their defaults, which also say the type; `seconds` has none.
PARAMETERS: dict[str, Parameters] = {
    "close": {"connection": 0, "code": 0, "reason": ""},
    "freeze": {"seconds": _NEEDED},
    "refuse": {"seconds": _NEEDED, "status": 503},
    "mute": {"seconds": _NEEDED, "stream": "aggTrade", "symbol": ""},
    "drop": {"seconds": _NEEDED, "probability": 0.1},
    "duplicate": {"seconds": _NEEDED, "probability": 0.1},
    "reorder": {"seconds": _NEEDED, "delay_ms": 300},
    "delay_x": {
        "seconds": _NEEDED, "symbol": "", "delay_ms": 0, "jitter_ms": 0, "after_next": False, "probability": 0.0,
    },
    "bad_json": {"count": 1, "stream": "aggTrade"},
    "http_status": {"status": 429, "count": 1, "path": ""},
    "http_delay": {"seconds": _NEEDED, "delay_ms": 1000, "path": ""},
    "no_retry_after": {"seconds": _NEEDED},
    "gap": {"seconds": _NEEDED, "symbol": "", "ago_minutes": 10, "minutes": 5},
    "invalid_status": {"seconds": _NEEDED, "symbol": ""},
    "list_symbol": {
        "symbol": "", "delay_s": 10.0, "flip_ms": 300, "trades_per_s": 3.0, "contract_type": "PERPETUAL",
    },
    "delist_symbol": {"symbol": "", "delay_s": 10.0, "status": "SETTLING", "vanish_s": -1.0},
    "brackets": {"symbol": ""},
    "clock_step": {"step_ms": 1000},
    "clear": {},
}  # fmt: skip


class UnknownFault(ValueError):
    """A fault or schedule that does not exist, or parameters that do not fit."""


def complete(given: Parameters) -> Parameters:
    """Return a fault's parameters with the defaults of those that were left out.

    Raises:
        UnknownFault: unknown name, or a parameter that it does not have or that is of another type.
    """
    name = given.get("name")
    if name not in PARAMETERS:
        raise UnknownFault(f"found fault {name!r}, expected one of {', '.join(PARAMETERS)}")
    known = PARAMETERS[name]
    for key, value in given.items():
        if key == "name":
            continue
        if key not in known:
            raise UnknownFault(f"found parameter {key!r} of fault {name}, expected one of {', '.join(known) or 'none'}")
        wanted = _wanted(known[key])
        if not isinstance(value, wanted) or isinstance(value, bool) is not (wanted is bool):
            kind = "a number" if wanted == (int, float) else "true or false" if wanted is bool else "a text"
            raise UnknownFault(f"found {key} {value!r} of fault {name}, expected {kind}")
    if "seconds" in known and "seconds" not in given:
        raise UnknownFault(f"found fault {name} without seconds, expected how long it lasts")
    return {**known, **given}


def _wanted(default: object) -> type | tuple[type, ...]:
    return type(default) if isinstance(default, (bool, str)) else (int, float)


@dataclass
class _Lasting:
    until_ms: int
    since_ms: int
    parameters: Parameters


class Faults:
    """What is wrong at present; what it does to events is in `klshm.sim.stream_faults`."""

    def __init__(self) -> None:
        self.hooks: dict[str, Callable[[Parameters, int], object]] = {}
        self.counts: dict[str, int] = {}
        self._lasting: dict[str, list[_Lasting]] = {}
        self._http: list[Parameters] = []
        self._bad_json: list[Parameters] = []
        self._planned: list[tuple[int, int, Parameters]] = []

    # Called by the server

    def plan(self, schedule: list[tuple[float, Parameters]], start_ms: int) -> None:
        """Start these faults later: seconds after `start_ms`, and the fault."""
        for offset_s, parameters in schedule:
            at_ms = start_ms + int(offset_s * 1000)
            if parameters["name"] == "close" and not 5_000 <= at_ms % MINUTE_MS < 55_000:
                at_ms += 20_000
            heapq.heappush(self._planned, (at_ms, len(self._planned), parameters))

    def run_due(self, now_ms: int) -> None:
        """Start the planned faults whose time has come."""
        while self._planned and self._planned[0][0] <= now_ms:
            self.start(heapq.heappop(self._planned)[2], now_ms)

    def start(self, given: Parameters, now_ms: int) -> object:
        """Start one fault.

        Raises:
            UnknownFault: unknown name or unusable parameters.
        """
        parameters = complete(given)
        name = parameters["name"]
        result = None
        if name in self.hooks:
            result = self.hooks[name](parameters, now_ms)
        elif name == "clear":
            for everything in (self._lasting, self._http, self._bad_json):
                everything.clear()
        elif name == "http_status":
            self._http.append(parameters)
        elif name == "bad_json":
            self._bad_json.append(parameters)
        else:
            until_ms = now_ms + int(parameters["seconds"] * 1000)
            self._lasting.setdefault(name, []).append(_Lasting(until_ms, now_ms, parameters))
        self.counts[name] = self.counts.get(name, 0) + 1
        return result

    def state(self, now_ms: int) -> dict[str, object]:
        """Describe what is active and what was ever started."""
        active = [name for name in list(self._lasting) if self.active(name, now_ms)]
        return {"active": active, "started": self.counts, "planned": len(self._planned), "http": len(self._http)}

    # Questions

    @property
    def lasting(self) -> bool:
        """Whether anything may be active."""
        return bool(self._lasting)

    def active(self, name: str, now_ms: int, symbol: str = "") -> list[Parameters]:
        """Return the faults of a name that are active, for a symbol if one is given; the newest is the last."""
        return [entry.parameters for entry in self._active(name, now_ms, symbol)]

    def gaps(self, symbol: str, now_ms: int) -> list[tuple[int, int]]:
        """Return the spans of time whose rows klines does not have."""
        spans = []
        for entry in self._active("gap", now_ms, symbol):
            from_ms = entry.since_ms - entry.since_ms % MINUTE_MS - int(entry.parameters["ago_minutes"] * MINUTE_MS)
            spans.append((from_ms, from_ms + int(entry.parameters["minutes"] * MINUTE_MS)))
        return spans

    def muted(self, stream: str, symbol: str, now_ms: int) -> bool:
        """Say whether a kind of stream is silent for a symbol."""
        return any(entry["stream"] == stream for entry in self.active("mute", now_ms, symbol))

    def refusal(self, now_ms: int) -> int | None:
        """Return the status by which WebSocket handshakes are refused, if they are."""
        refusing = self.active("refuse", now_ms)
        return int(refusing[-1]["status"]) if refusing else None

    def http_delay_s(self, path: str, now_ms: int) -> float:
        """Return how long the answer on this path must wait."""
        late = [entry["delay_ms"] for entry in self.active("http_delay", now_ms) if entry["path"] in path]
        return float(late[-1]) / 1000.0 if late else 0.0

    def http_status(self, path: str) -> int | None:
        """Return the status the next answer on this path must have, if any, and use it up."""
        for entry in self._http:
            if entry["path"] in path:
                entry["count"] -= 1
                if entry["count"] <= 0:
                    self._http.remove(entry)
                return int(entry["status"])
        return None

    def spoil(self, stream: str, text: str) -> str:
        """Cut a payload short when bad JSON is due on this kind of stream."""
        for entry in self._bad_json:
            if entry["stream"] == stream:
                entry["count"] -= 1
                if entry["count"] <= 0:
                    self._bad_json.remove(entry)
                return text[: len(text) // 2]
        return text

    def _active(self, name: str, now_ms: int, symbol: str) -> list[_Lasting]:
        entries = self._lasting.get(name)
        if entries is None:
            return []
        entries[:] = [entry for entry in entries if entry.until_ms > now_ms]
        if not entries:
            del self._lasting[name]
        return [entry for entry in entries if entry.parameters.get("symbol", "") in ("", symbol) or not symbol]
