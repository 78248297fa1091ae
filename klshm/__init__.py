"""Exact Binance USD-M klines in shared memory.

    import klshm

    k = klshm.attach()
    k.live("BTCUSDT", "1m").close
    k.history("BTCUSDT", "5m", 200)
    for bar in k.closed():
        ...

Importing this package loads NumPy and nothing else.
"""

from __future__ import annotations

from klshm import errors
from klshm.errors import KlshmError
from klshm.read import Bar, Reader, Snapshot, attach
from klshm.read.frames import to_arrow, to_pandas, to_polars
from klshm.shm.layout import KLINE
from klshm.version import __version__


__all__ = [
    "KLINE",
    "Bar",
    "KlshmError",
    "Reader",
    "Snapshot",
    "__version__",
    "attach",
    "errors",
    "to_arrow",
    "to_pandas",
    "to_polars",
]
