"""From the payloads of one turn to events: nanoseconds per message, klshm's two readers beside common decoders.

The recogniser reads the two hot shapes; the typed decoder reads whatever it leaves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from bench.support.figures import print_figures
from bench.support.market import Trades, names
from klshm.core.messages import EventBatch, FrameDecoder
from klshm.core.reader import FrameReader


__all__ = ["measure"]

_SYMBOLS: Final = 200


def measure(quick: bool) -> dict[str, float]:
    """Return ns per aggTrade and per kline frame.

    Args:
        quick: Fewer messages.
    """
    payloads = Trades.make(10_000 if quick else 50_000, _SYMBOLS).payloads(kline_every_ms=250)
    kinds = {"trade": [p for p in payloads if b"@aggTrade" in p], "kline": [p for p in payloads if b"@kline" in p]}
    slots = {name: slot for slot, name in enumerate(names(_SYMBOLS))}
    figures = {}
    for kind, chosen in kinds.items():
        figures[f"{kind}_ns"] = _per_message_ns(_through_klshm(slots), chosen)
        figures[f"{kind}_typed_ns"] = _per_message_ns(_through_types(slots), chosen)
        figures[f"{kind}_orjson_ns"] = _per_message_ns(lambda part: [_plain(orjson.loads(p)) for p in part], chosen)
        figures[f"{kind}_json_ns"] = _per_message_ns(lambda part: [_plain(json.loads(p)) for p in part], chosen)
    return figures


def _through_klshm(slots: dict[str, int]) -> Callable[[list[bytes]], Any]:
    reader, batch = FrameReader(slots, {}), EventBatch()

    def decode(part: list[bytes]) -> int:
        if reader.read(part, batch):
            raise AssertionError("a frame was refused")
        return len(batch.take())

    return decode


def _through_types(slots: dict[str, int]) -> Callable[[list[bytes]], Any]:
    decoder, batch = FrameDecoder(slots, {}), EventBatch()

    def decode(part: list[bytes]) -> int:
        for payload in part:
            decoder.decode(payload, batch)
        return len(batch.take())

    return decode


def _plain(message: Any) -> tuple[Any, ...]:
    data = message["data"]
    if data["e"] == "aggTrade":
        return data["s"], float(data["p"]), float(data["q"]), data["f"], data["l"], data["T"], data["m"]
    bar = data["k"]
    return data["s"], bar["t"], bar["f"], bar["L"], bar["n"], *(float(bar[name]) for name in "ohlcvqVQ")


def _per_message_ns(decode: Callable[[list[bytes]], Any], payloads: list[bytes]) -> float:
    best_ns = float("inf")
    for _ in range(3):
        began_ns = time.perf_counter_ns()
        for at in range(0, len(payloads), 512):
            decode(payloads[at : at + 512])
        best_ns = min(best_ns, (time.perf_counter_ns() - began_ns) / len(payloads))
    return best_ns


if __name__ == "__main__":
    print_figures(measure)
