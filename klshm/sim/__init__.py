"""A local Binance USD-M futures exchange: market data by REST and WebSocket, without money or network.

It is the oracle that judges the engine, so it imports nothing of the engine. Start with ``python -m klshm.sim``; when
it listens it prints one JSON line with the port. REST lies under ``/fapi/v1``, WebSocket under ``/market``, ``/public``
and ``/private`` (unrouted paths acknowledge everything and deliver no market data, as the exchange does).

Its switches are of two kinds: what stays for a run is an option (``--help``), what goes wrong meanwhile is a fault
(`klshm.sim.faults`, told by ``--help`` too), started by ``POST /sim/faults`` or by a schedule (`klshm.sim.schedule`).
``GET /sim/state`` shows clock, last ids, connections and weights.

Simplifications: before the simulator's start there are klines but no trades, and of each symbol the last 20,000
aggTrades are kept (older: -4166); exchangeInfo's serverTime is that of the last change of the listing; order books,
marks and funding are not served (their stream names are acknowledged and silent); while its clock is behind after a
step backwards nothing is traded; prices and volumes before the start are generated from the seed and the calendar, so a
restart at a later instant tells a different past for the time in between.
"""

from __future__ import annotations


__all__: list[str] = []
