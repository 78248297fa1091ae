"""What one would write without klshm: aiohttp, orjson, and one NumPy store per field.

Floats, no check of ids, no splice with the official frames, no closing of minutes: much less than
klshm's worker does.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson

from bench.support.market import names
from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["run_plain_stack"]


def run_plain_stack(segment: Segment, port: int) -> None:
    """Take the stream into the live rows of worker 0, for ever."""
    asyncio.run(_follow(segment, port))


async def _follow(segment: Segment, port: int) -> None:
    layout = segment.layout
    rows = segment.region(layout.live_offset(0), layout.slots * layout.intervals * lay.ROW_BYTES).view(lay.KLINE)
    bars = rows.reshape(layout.slots, layout.intervals)
    slots = {name: slot for slot, name in enumerate(names(layout.slots))}
    params = [f"{name.lower()}@{stream}" for name in slots for stream in ("aggTrade", "kline_1m")]
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/market/stream") as ws:
        await ws.send_json({"method": "SUBSCRIBE", "params": params, "id": 1})
        async for message in ws:
            data = orjson.loads(message.data).get("data")
            if data is None:
                continue
            if data["e"] == "aggTrade":
                _trade(bars[slots[data["s"]]], data)
            else:
                _official(bars[slots[data["s"]]][0], data["k"])


def _trade(bars: Any, data: dict[str, Any]) -> None:
    price, quantity = float(data["p"]), float(data["q"])
    for row in bars:
        row["close"] = price
        row["high"] = max(price, row["high"])
        row["low"] = min(price, row["low"] or price)
        row["volume"] += quantity
        row["quote_volume"] += price * quantity
        row["trade_count"] += data["l"] - data["f"] + 1
        if not data["m"]:
            row["taker_buy_volume"] += quantity
            row["taker_buy_quote_volume"] += price * quantity
        row["event_time"] = data["E"]
        row["last_agg_id"] = data["a"]
        row["sequence"] += 2


def _official(row: Any, bar: dict[str, Any]) -> None:
    row["open"], row["high"], row["low"] = float(bar["o"]), float(bar["h"]), float(bar["l"])
    row["close"], row["volume"], row["quote_volume"] = float(bar["c"]), float(bar["v"]), float(bar["q"])
    row["trade_count"] = bar["n"]
    row["taker_buy_volume"], row["taker_buy_quote_volume"] = float(bar["V"]), float(bar["Q"])
    row["sequence"] += 2
