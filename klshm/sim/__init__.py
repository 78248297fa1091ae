"""A local Binance USD-M futures exchange: market data by REST and WebSocket, without money or network.

It is the oracle that judges the engine, so it imports nothing of the engine. Start it with ``python -m klshm.sim``.
"""

from __future__ import annotations


__all__: list[str] = []
