"""A local Binance USD-M futures exchange: market data by REST and WebSocket, without money or network.

It is the oracle that judges the engine, so it imports nothing of the engine. Start with ``python -m klshm.sim``; when
it listens it prints one JSON line with the port. REST lies under ``/fapi/v1``, WebSocket under ``/market``, ``/public``
and ``/private`` (unrouted paths acknowledge everything and deliver no market data, as the exchange does).

Two routes are for tests: ``GET /sim/state`` (clock, last ids, connections, weights) and ``POST /sim/faults`` with a
JSON object (`klshm.sim.faults`).

Simplifications: aggTrades and trades by REST reach back to the simulator's start only (older: -4166); exchangeInfo's
serverTime is that of the last change of the listing; order books, marks and funding are not served (their stream names
are acknowledged and silent); prices and volumes before the start are generated from the seed and the calendar, so a
restart at a later instant tells a different past for the time in between.
"""

from __future__ import annotations


__all__: list[str] = []
