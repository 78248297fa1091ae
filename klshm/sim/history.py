"""Bars before the simulator's start: generated on demand, week by week downwards, the same in every request order.

Levels are 1m, 5m, 30m, 4h, 1d, 1w; other intervals are folds of these. Rows that reach over the listing or the start
are folds of the minutes inside.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from .bars import Bar
from .intervals import DAY_MS, MINUTE_MS, WEEK_MS, WEEK_OFFSET_MS, next_open_ms
from .ladder import (
    BUY_N,
    BUY_Q,
    BUY_V,
    CLOSE,
    COLUMNS,
    HIGH,
    LOW,
    OPEN,
    PREVIOUS,
    SELL_N,
    SELL_Q,
    SELL_V,
    Ints,
    fold_rows,
    split,
    uniforms,
)  # fmt: skip
from .symbols import SymbolSpec


__all__ = ["BlockCache", "History"]

_STEP_MS = (MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, 240 * MINUTE_MS, DAY_MS, WEEK_MS)
_RATIO = (5, 6, 8, 6, 7)
_WEEK = 5
# Parents per cached block of each level below the week.
_BLOCK = (288, 96, 42, 28, 16)
# The level each interval is folded from.
_LEVEL = {
    "1m": 0, "3m": 0, "5m": 1, "15m": 1, "30m": 2, "1h": 2, "2h": 2, "4h": 3, "6h": 2, "8h": 3, "12h": 3,
    "1d": 4, "3d": 4, "1w": 5, "1M": 4,
}  # fmt: skip


class BlockCache:
    """Least recently used blocks of all symbols, bounded in bytes."""

    def __init__(self, limit_bytes: int = 96 << 20) -> None:
        self._blocks: OrderedDict[tuple[int, int, int], Ints] = OrderedDict()
        self._limit_bytes = limit_bytes
        self._bytes = 0

    def get(self, key: tuple[int, int, int]) -> Ints | None:
        """Return a block and mark it as used."""
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
        return block

    def put(self, key: tuple[int, int, int], block: Ints) -> None:
        """Keep a block; the oldest go when the limit is passed."""
        self._blocks[key] = block
        self._bytes += block.nbytes
        while self._bytes > self._limit_bytes and len(self._blocks) > 1:
            self._bytes -= self._blocks.popitem(last=False)[1].nbytes


class History:
    """The bars of one symbol in [first_ms, end_ms), both whole minutes.

    Args:
        spec: the symbol; its decimals, activity and reference price.
        seed: the simulator's seed.
        end_ms: the minute of the start (or of the delisting).
        cache: shared between symbols.
    """

    def __init__(self, spec: SymbolSpec, seed: int, end_ms: int, cache: BlockCache | None = None) -> None:
        self.spec = spec
        self.first_ms = min(spec.first_trade_ms - spec.first_trade_ms % MINUTE_MS, end_ms)
        self.end_ms = end_ms
        self._key = spec.key * 1_000_003 + seed
        self._shift = 0
        self._cache = BlockCache() if cache is None else cache

    def align(self, price: int) -> None:
        """Shift all prices so that the last close is `price`; a recording continues from there."""
        for _ in range(4):
            missing = (price - self.close_at_end()) // self.spec.tick
            if missing == 0:
                return
            self._shift += missing

    def close_at_end(self) -> int:
        """Return the last historic close, price units; the first live price continues from it."""
        minute = self.end_ms // MINUTE_MS
        return int(self.rows(0, minute - 1, minute)[0, CLOSE]) * self.spec.tick

    def rows(self, level: int, first: int, stop: int) -> Ints:
        """Return raw rows of one level by absolute index, regardless of listing and start."""
        if level == _WEEK:
            return self._weeks(np.arange(first, stop, dtype=np.int64))
        span = _BLOCK[level] * _RATIO[level]
        origin = 4 if level == 4 else 0
        pieces = []
        for block in range((first - origin) // span, (stop - 1 - origin) // span + 1):
            base = block * span + origin
            pieces.append(self._block(level, block)[max(0, first - base) : stop - base])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def bars(self, interval: str, opens: list[int]) -> list[Bar]:
        """Return the bars opened at consecutive open times; parts outside [first_ms, end_ms) are cut away.

        Raises:
            ValueError: a bar lies wholly outside.
        """
        whole = [at for at in opens if at >= self.first_ms and next_open_ms(interval, at) <= self.end_ms]
        inside = set(whole)
        folded = iter(self._whole(interval, whole) if whole else ())
        return [next(folded) if at in inside else self.fold(at, at, next_open_ms(interval, at)) for at in opens]

    def fold(self, open_time: int, from_ms: int, to_ms: int) -> Bar:
        """Fold the minutes of [from_ms, to_ms) that exist into one bar.

        Raises:
            ValueError: no minute of the range exists.
        """
        from_ms, to_ms = max(from_ms, self.first_ms), min(to_ms, self.end_ms)
        if from_ms >= to_ms:
            raise ValueError(
                f"found no historic minute in {from_ms}..{to_ms} of {self.spec.symbol}, expected at least one"
            )
        rows = np.concatenate(self._cover(_WEEK, from_ms, to_ms))
        return self._bar(open_time, fold_rows(rows, np.zeros(1, dtype=np.int64))[0])

    def _whole(self, interval: str, opens: list[int]) -> list[Bar]:
        level = _LEVEL[interval]
        step_ms = _STEP_MS[level]
        offset_ms = WEEK_OFFSET_MS if level == _WEEK else 0
        first = (opens[0] - offset_ms) // step_ms
        stop = (next_open_ms(interval, opens[-1]) - offset_ms) // step_ms
        starts = np.array([(at - offset_ms) // step_ms - first for at in opens], dtype=np.int64)
        rows = self.rows(level, first, stop)
        if len(rows) != len(opens):
            rows = fold_rows(rows, starts)
        return [self._bar(at, row) for at, row in zip(opens, rows, strict=True)]

    def _cover(self, level: int, from_ms: int, to_ms: int) -> list[Ints]:
        """Cover a range with the coarsest whole rows."""
        if from_ms >= to_ms:
            return []
        step_ms = _STEP_MS[level]
        offset_ms = WEEK_OFFSET_MS if level == _WEEK else 0
        first = -(-(from_ms - offset_ms) // step_ms)
        stop = (to_ms - offset_ms) // step_ms
        if first >= stop:
            return self._cover(level - 1, from_ms, to_ms)
        head = self._cover(level - 1, from_ms, first * step_ms + offset_ms) if level else []
        tail = self._cover(level - 1, stop * step_ms + offset_ms, to_ms) if level else []
        return [*head, self.rows(level, first, stop), *tail]

    def _block(self, level: int, block: int) -> Ints:
        key = (self._key + (self._shift << 80), level, block)
        found = self._cache.get(key)
        if found is None:
            first = block * _BLOCK[level]
            parents = self.rows(level + 1, first, first + _BLOCK[level])
            index = np.arange(first, first + _BLOCK[level], dtype=np.int64)
            found = split(parents, index, _RATIO[level], self._key, level, self.spec.tick)
            self._cache.put(key, found)
        return found

    def _weeks(self, index: Ints) -> Ints:
        spec = self.spec
        u = uniforms(self._key, _WEEK, index, 8)
        start, end = self._level_of(index), self._level_of(index + 1)
        rows = np.empty((len(index), COLUMNS), dtype=np.int64)
        rows[:, OPEN] = np.maximum(start + np.floor(u[:, 0] * 3).astype(np.int64) - 1, 1)
        rows[:, CLOSE] = end
        rows[:, PREVIOUS] = start
        top, bottom = np.maximum(rows[:, OPEN], end), np.minimum(rows[:, OPEN], end)
        rows[:, HIGH] = top + np.rint(top * u[:, 1] * 0.04 * spec.calm).astype(np.int64)
        rows[:, LOW] = np.maximum(bottom - np.rint(bottom * u[:, 2] * 0.04 * spec.calm).astype(np.int64), 1)
        mean = (rows[:, OPEN] + rows[:, HIGH] + rows[:, LOW] + rows[:, CLOSE]) // 4
        trades = np.maximum(np.rint(spec.trades_per_s * 604_800 * (0.7 + 0.6 * u[:, 3])), 40).astype(np.int64)
        rows[:, BUY_N] = np.rint(trades * (0.4 + 0.2 * u[:, 4])).astype(np.int64)
        rows[:, SELL_N] = trades - rows[:, BUY_N]
        for count, volume, quote, channel in ((BUY_N, BUY_V, BUY_Q, 5), (SELL_N, SELL_V, SELL_Q, 6)):
            size = spec.order_size * (0.7 + 0.6 * u[:, channel])
            rows[:, volume] = np.rint(rows[:, count] * np.maximum(size, 1.0)).astype(np.int64)
            rows[:, quote] = rows[:, volume] * mean * spec.tick
        return rows

    def _level_of(self, week: Ints) -> Ints:
        """Return the price at each Monday in ticks: slow waves and bounded noise around the reference price."""
        phase = uniforms(self._key, 99, np.zeros(1, dtype=np.int64), 6)[0]
        noise = uniforms(self._key, 98, week, 1)[:, 0] - 0.5
        wave = 0.25 * np.sin(week / (9 + 6 * phase[0]) + 6.28 * phase[1])
        wave += 0.10 * np.sin(week / (2.5 + phase[2]) + 6.28 * phase[3])
        price = self.spec.reference_price / self.spec.tick * np.exp((wave + 0.05 * noise) * self.spec.calm)
        levels: Ints = np.maximum(np.rint(price).astype(np.int64) + self._shift, 2)
        return levels

    def _bar(self, open_time: int, row: Ints) -> Bar:
        (o, h, low, c, bn, bv, bq, sn, sv, sq, _) = (int(cell) for cell in row)
        tick = self.spec.tick
        bar = Bar(open_time, o * tick)
        bar.high, bar.low, bar.close = h * tick, low * tick, c * tick
        bar.count, bar.volume, bar.quote = bn + sn, bv + sv, bq + sq
        bar.taker_volume, bar.taker_quote = bv, bq
        return bar
