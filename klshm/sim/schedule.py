"""Schedules of faults, by name or as JSON.

A schedule is a name or a JSON array of faults (`klshm.sim.faults`), each with `at_s`, the seconds after the start.
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

import orjson

from .faults import Parameters, UnknownFault, complete
from .intervals import next_open_ms, open_ms


__all__ = ["SCHEDULES", "parse_schedule", "schedule_start_ms"]

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


def parse_schedule(text: str) -> list[tuple[float, Parameters]]:
    """Return a schedule: seconds after the start, and the fault.

    Raises:
        UnknownFault: no such schedule, or a fault in it that does not exist or fit.
    """
    if text in SCHEDULES:
        return SCHEDULES[text]
    try:
        entries = orjson.loads(text)
        planned = [(float(entry["at_s"]), {k: v for k, v in entry.items() if k != "at_s"}) for entry in entries]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        expected = f"expected one of {', '.join(SCHEDULES)} or a JSON array of objects with at_s and name"
        raise UnknownFault(f"found --faults {text!r}, {expected}") from None
    for _, parameters in planned:
        complete(parameters)
    return planned


def schedule_start_ms(schedule: str, now_ms: int) -> int | None:
    """Return when a simulator with this schedule starts if it is not told: None for now.

    `standard` starts 100 s before the next Monday 00:00 UTC.
    """
    return next_open_ms("1w", open_ms("1w", now_ms)) - _STANDARD_LEAD_MS if schedule == "standard" else None
