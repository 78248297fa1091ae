"""How far the streams run behind the exchange's clock: receive time minus event time."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from klshm.core.events import E_KIND, E_TIME, E_WORDS, FRAME, TRADE


__all__ = ["LagMeter"]

_SAMPLES: Final = 1024
_MOST_MS: Final = 1000
_SANE_MS: Final = 3_600_000.0
"""Event times come from outside: an absurd one must not become an absurd counter."""


class LagMeter:
    """Keeps the lags of the newest batches.

    Attributes:
        p50_us: Median lag at the last `measure`, microseconds.
        p99_us: 99th percentile likewise.
        p99_ms: The same in whole ms, at least 0; a late stream delays a settle by a second at most.
    """

    def __init__(self) -> None:
        self.p50_us = self.p99_us = self.p99_ms = 0
        self._samples = np.zeros(_SAMPLES)
        self._count = 0

    def add(self, now_ms: float, words: np.ndarray[Any, np.dtype[np.int64]], number: int) -> None:
        """Note the lag of a batch's newest event, if it is a frame.

        Args:
            now_ms: The exchange's time, UTC ms.
            words: The batch, `E_WORDS` per event.
            number: How many events it holds, at least one.
        """
        last = (number - 1) * E_WORDS
        if words[last + E_KIND] in (TRADE, FRAME):
            lag_ms = now_ms - float(words[last + E_TIME])
            self._samples[self._count % _SAMPLES] = min(max(lag_ms, -_SANE_MS), _SANE_MS)
            self._count += 1

    def measure(self) -> None:
        """Work the quantiles out anew; dear, so call it a few times a second."""
        if self._count:
            ordered = np.sort(self._samples[: min(self._count, _SAMPLES)])  # np.quantile takes ten times as long
            p50, p99 = (float(ordered[round(share * (len(ordered) - 1))]) for share in (0.5, 0.99))
            self.p50_us, self.p99_us = round(p50 * 1000), round(p99 * 1000)
            self.p99_ms = min(max(round(p99), 0), _MOST_MS)
