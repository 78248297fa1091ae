"""Generated trades of one symbol: Poisson orders that sweep one or more price levels, in order of time and id."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np

from .bars import Fill
from .intervals import MINUTE_MS
from .symbols import SymbolSpec


__all__ = ["GeneratedTrades", "TradeSource"]

# Mean number of fills of an order, by the probabilities below.
_FILLS = np.array([1, 2, 3, 4, 6, 9])
_FILLS_P = np.array([0.66, 0.14, 0.08, 0.06, 0.04, 0.02])
_MEAN_FILLS = float((_FILLS * _FILLS_P).sum())
_BOUNDARY_SHARE = 0.2


class TradeSource(Protocol):
    """Anything that yields trades in order of time."""

    def next(self) -> Fill | None:
        """Return the next trade, or None when there is none left."""


class GeneratedTrades:
    """An endless, seeded source.

    Args:
        start_ms: no trade before it.
        price: price to continue from.
        first_id: id of the first trade.
        boundary: place sweeps across minute ends on purpose (active symbols).
        id_gaps: skip some ids, as self-trade prevention does.
        forced_share: of the trades, how many are preceded by a forced one (ADL, insurance fund).
    """

    def __init__(
        self,
        spec: SymbolSpec,
        seed: int,
        start_ms: int,
        price: int,
        first_id: int,
        *,
        boundary: bool,
        id_gaps: bool,
        forced_share: float = 0.0,
    ) -> None:
        self._spec = spec
        self._rng = np.random.default_rng([seed, spec.key])
        self._orders_per_ms = spec.trades_per_s / _MEAN_FILLS / 1000.0
        self._at_ms = float(start_ms)
        self._last_ms = start_ms
        self._id = first_id
        self._boundary = boundary and spec.trades_per_s > 0.05
        self._id_gaps = id_gaps
        self._forced_above = 1.0 - forced_share
        self._bid = max(10, price // spec.tick)
        self._anchor = self._bid
        orders_per_minute = max(self._orders_per_ms * 60_000, 1.0)
        self._sigma = max(0.4, 0.0004 * self._bid / orders_per_minute**0.5)
        # A day's worth of orders brings the price back, so that it wanders but never runs away.
        self._pull = 1.0 / (1440.0 * orders_per_minute)
        self._queue: deque[Fill] = deque()
        self._batch = int(min(512, max(8, orders_per_minute)))

    def next(self) -> Fill | None:
        """Return the next trade."""
        if self._orders_per_ms <= 0:
            return None
        while not self._queue:
            self._generate()
        return self._queue.popleft()

    def _generate(self) -> None:
        rng, n = self._rng, self._batch
        waits = rng.exponential(1.0 / self._orders_per_ms, n).tolist()
        fills = rng.choice(_FILLS, n, p=_FILLS_P).tolist()
        buys = (rng.random(n) < 0.5).tolist()
        moves = rng.normal(0.0, self._sigma, n).tolist()
        luck = rng.random(n).tolist()
        for place in range(n):
            at_ms = self._at_ms + waits[place]
            minute_end_ms = (int(self._at_ms) // MINUTE_MS + 1) * MINUTE_MS
            if self._boundary and at_ms >= minute_end_ms and luck[place] < _BOUNDARY_SHARE:
                begin_ms = minute_end_ms - 1 - int(luck[place] * 110)
                if begin_ms > self._last_ms:
                    self._sweep(begin_ms, 4, 1, buys[place], minute_end_ms - begin_ms + 25)
            self._at_ms = at_ms
            drift = moves[place] - self._pull * (self._bid - self._anchor)
            self._bid = max(3, self._bid + round(drift))
            levels = 1 if luck[place] < 0.7 else min(fills[place], 1 + int(luck[place] * 4) % 4)
            spread_ms = int(luck[place] * 997) % 71 if luck[place] * 91 % 1.0 < 0.15 else 0
            self._sweep(int(at_ms), fills[place], levels, buys[place], spread_ms)

    def _sweep(self, at_ms: int, fills: int, levels: int, buy: bool, spread_ms: int) -> None:
        """Append one order's fills: at the touch first, then further away from it."""
        rng, spec = self._rng, self._spec
        at_ms = max(at_ms, self._last_ms)
        sizes = rng.exponential(spec.order_size, fills).tolist()
        dice = rng.random(2 * fills).tolist()
        touch = self._bid + 1 if buy else self._bid
        for place in range(fills):
            step = place * levels // fills
            price = max(1, touch + step if buy else touch - step)
            # Most fills of an order share one millisecond; some sweeps are spread out.
            time_ms = at_ms + spread_ms * place // fills
            if self._id_gaps and dice[place] < 0.004:
                self._id += 1 + int(dice[place] * 1000)
            if dice[place] > self._forced_above:
                self._force(time_ms, price * spec.tick, buy)
            quantity = 1 + int(sizes[place])
            rpi = quantity if spec.rpi and dice[fills + place] < 0.03 else 0
            self._queue.append(Fill(time_ms, self._id, self._id, 1, price * spec.tick, quantity, rpi, buy, -1))
            self._id += 1
            self._last_ms = time_ms
        if levels > 1:
            self._bid = max(3, self._bid + (levels - 1 if buy else 1 - levels))

    def _force(self, time_ms: int, price: int, buy: bool) -> None:
        """Append a trade that is not one of the market: far from its price, and off the tick where there is room."""
        kind = ("ADL", "INSURANCE_FUND")[self._id % 2]
        self._queue.append(
            Fill(time_ms, self._id, self._id, 1, price * 97 // 100 + 1, self._spec.order_size, 0, buy, -1, kind)
        )
        self._id += 1
