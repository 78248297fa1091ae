"""How far the streams run behind the exchange's clock: receive time minus event time."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from klshm.core.events import FRAME, TRADE


__all__ = ["LagMeter"]

_SAMPLES: Final = 1024
_MOST_MS: Final = 1000
_SANE_MS: Final = 3_600_000.0
"""Event times come from outside: an absurd one must not become an absurd counter."""


class LagMeter:
    """Keeps the lags of the newest frames."""

    def __init__(self) -> None:
        self._samples = np.zeros(_SAMPLES)
        self._count = 0

    def add(self, now_ms: float, events: np.ndarray[Any, Any]) -> None:
        """Measure a batch by its newest frame.

        Args:
            now_ms: The exchange's time, UTC ms.
            events: Shape (n,), dtype EVENT.
        """
        last = events[-1]
        if last["kind"] in (TRADE, FRAME):
            lag_ms = now_ms - float(last["time"])
            self._samples[self._count % _SAMPLES] = min(max(lag_ms, -_SANE_MS), _SANE_MS)
            self._count += 1

    def p50_us(self) -> int:
        """Return the median lag, microseconds."""
        return round(self._quantile(0.5) * 1000)

    def p99_us(self) -> int:
        """Return the 99th percentile of the lag, microseconds."""
        return round(self._quantile(0.99) * 1000)

    def p99_ms(self) -> int:
        """Return the 99th percentile in whole ms, at least 0; a late stream delays a settle by a second at most."""
        return min(max(round(self._quantile(0.99)), 0), _MOST_MS)

    def _quantile(self, share: float) -> float:
        if self._count == 0:
            return 0.0
        return float(np.quantile(self._samples[: min(self._count, _SAMPLES)], share))
