"""Exact Binance USD-M klines in shared memory."""

from __future__ import annotations

from klshm.version import __version__


__all__ = ["__version__"]
