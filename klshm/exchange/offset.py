"""The exchange's time for commands that run for a while; engines measure it for ever (`historian.timesync`)."""

from __future__ import annotations

import time
from typing import Final

from klshm.exchange.governor import Priority
from klshm.exchange.rest import RestClient


__all__ = ["exchange_offset_ns"]

_SAMPLES: Final = 3


async def exchange_offset_ns(client: RestClient) -> int:
    """Return the exchange's time minus CLOCK_MONOTONIC, by the quickest of a few answers.

    Raises:
        ExchangeError: If there was none.
    """
    samples = []
    for _ in range(_SAMPLES):
        sent_ns = time.monotonic_ns()
        server_ms = await client.server_time(Priority.LISTINGS)
        round_trip_ns = time.monotonic_ns() - sent_ns
        samples.append((round_trip_ns, server_ms * 1_000_000 - sent_ns - round_trip_ns // 2))
    return min(samples)[1]
