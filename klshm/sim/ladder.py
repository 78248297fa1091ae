"""Top-down splitting of bars in exact integers: children always fold back into their parent.

Rows are int64 arrays, shape (n, 11). Prices are counted in ticks. Buys and sells are split as two independent
streams (count, volume, quote), so that the taker's share can never exceed the total. Chance comes from a hash of
(key, level, absolute index), so that any range can be made in any order with the same result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


__all__ = [
    "BUY_N",
    "BUY_Q",
    "BUY_V",
    "CLOSE",
    "COLUMNS",
    "HIGH",
    "LOW",
    "OPEN",
    "PREVIOUS",
    "SELL_N",
    "SELL_Q",
    "SELL_V",
]
__all__ += ["Ints", "fold_rows", "split", "uniforms"]

OPEN, HIGH, LOW, CLOSE, BUY_N, BUY_V, BUY_Q, SELL_N, SELL_V, SELL_Q, PREVIOUS = range(11)
COLUMNS = 11

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_BIG = np.int64(1) << np.int64(60)


def uniforms(key: int, level: int, index: Ints, channels: int) -> Floats:
    """Return numbers in [0, 1), shape (len(index), channels), by splitmix64 of the arguments."""
    with np.errstate(over="ignore"):
        state = index.astype(np.uint64) * np.uint64(0xD1342543DE82EF95)
        state += np.uint64((key * 0x9E3779B97F4A7C15 + (level + 1) * 0xA24BAED4963EE407) & 0xFFFFFFFFFFFFFFFF)
        x = _mix(state)[:, None] + np.arange(1, channels + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (_mix(x) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _spread(total: Ints, weights: Floats, phase: Floats | float = 0.5) -> Ints:
    """Split each total into integers in proportion to its row of weights; a zero weight gets nothing."""
    running = np.cumsum(weights, axis=1)
    whole = running[:, -1:]
    share = running / np.where(whole > 0, whole, 1.0)
    column = total[:, None]
    shift = phase if isinstance(phase, float) else phase[:, None]
    marks = np.floor(column * share + shift).astype(np.int64)
    marks = np.where(share >= 1.0, column, np.minimum(marks, column))
    marks[:, -1] = total
    return np.diff(marks, axis=1, prepend=0)


def split(parents: Ints, index: Ints, children: int, key: int, level: int, tick: int) -> Ints:
    """Return the children of each parent, shape (len(parents) * children, 11).

    Args:
        index: absolute index of every parent at its level.
        level: number of the children's level, part of the hash.
        tick: price units per tick, for the quotes.
    """
    n, k = len(parents), children
    u = uniforms(key, level, index, 10 * k).reshape(n, 10, k)
    activity = np.exp((u[:, 0] - 0.5) * 1.8)
    buys = _spread(parents[:, BUY_N], activity * (0.6 + 0.8 * u[:, 1]), u[:, 9, 0])
    sells = _spread(parents[:, SELL_N], activity * (0.6 + 0.8 * u[:, 2]), u[:, 9, 1])
    out = np.empty((n, k, COLUMNS), dtype=np.int64)
    out[:, :, BUY_N] = buys
    out[:, :, SELL_N] = sells
    _prices(parents, buys + sells, u, out, tick)
    for count, volume, quote, channel in ((BUY_N, BUY_V, BUY_Q, 7), (SELL_N, SELL_V, SELL_Q, 8)):
        _side(parents, out, u[:, channel], tick, count, volume, quote)
    return out.reshape(n * k, COLUMNS)


def _prices(parents: Ints, count: Ints, u: Floats, out: Ints, tick: int) -> None:
    """Give each child up to four price slots (open, two extremes, close) and place the parent's four prices in them.

    A child with one trade has one slot and is flat, as it must be; the parent's high and low always land on a slot.
    """
    n, k = count.shape
    first_price, high, low, close = (parents[:, column, None] for column in (OPEN, HIGH, LOW, CLOSE))
    span = np.maximum(high - low, 1)
    place = np.arange(1, k + 1) / k
    drift = first_price + (close - first_price) * place
    bow = np.sqrt(place * (1 - place))
    path = drift + (u[:, 3] - 0.5) * span * bow * 1.4
    path = path + _bend(parents, count, path, bow, tick) * bow
    ends = np.clip(np.rint(path).astype(np.int64), low, high)
    starts = np.concatenate([first_price, ends[:, :-1]], axis=1)
    wick = span * (0.5 / k)
    up = np.maximum(starts, ends) + np.rint(u[:, 4] * wick).astype(np.int64)
    down = np.minimum(starts, ends) - np.rint(u[:, 5] * wick).astype(np.int64)
    turn = u[:, 6] < 0.5
    jitter = np.floor(u[:, 6] * 6).astype(np.int64) % 3 - 1
    slots = np.stack([starts + jitter, np.where(turn, up, down), np.where(turn, down, up), ends], axis=2)
    slots = np.clip(slots, low[:, :, None], high[:, :, None]).reshape(n, 4 * k)
    valid = (count[:, :, None] >= np.array([2, 3, 4, 1])).reshape(n, 4 * k)
    rows = np.arange(n)
    some = valid.any(axis=1)
    head = valid.argmax(axis=1)
    tail = 4 * k - 1 - valid[:, ::-1].argmax(axis=1)
    slots[rows, head] = parents[:, OPEN]
    slots[rows[some], tail[some]] = parents[some, CLOSE]
    inner = valid.copy()
    inner[rows, head] = False
    inner[rows, tail] = False
    wants = some & (parents[:, HIGH] > np.maximum(parents[:, OPEN], parents[:, CLOSE]))
    spot = np.where(inner, slots, -_BIG).argmax(axis=1)
    slots[rows[wants], spot[wants]] = parents[wants, HIGH]
    inner[rows[wants], spot[wants]] = False
    wants = some & (parents[:, LOW] < np.minimum(parents[:, OPEN], parents[:, CLOSE]))
    spot = np.where(inner, slots, _BIG).argmin(axis=1)
    slots[rows[wants], spot[wants]] = parents[wants, LOW]
    slots = slots.reshape(n, k, 4)
    held = valid.reshape(n, k, 4)
    out[:, :, OPEN] = np.where(held[:, :, 0], slots[:, :, 0], slots[:, :, 3])
    out[:, :, CLOSE] = slots[:, :, 3]
    out[:, :, HIGH] = np.where(held, slots, -_BIG).max(axis=2)
    out[:, :, LOW] = np.where(held, slots, _BIG).min(axis=2)
    _flatten_empty(parents, count, out)


def _bend(parents: Ints, count: Ints, path: Floats, bow: Floats, tick: int) -> Floats:
    """Return how far to bend each path so that its mean, weighted by trades, meets the parent's mean price."""
    volume = parents[:, BUY_V] + parents[:, SELL_V]
    mean = (parents[:, BUY_Q] + parents[:, SELL_Q]) / np.maximum(volume * tick, 1)
    weights = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    before = np.concatenate([parents[:, OPEN, None].astype(np.float64), path[:, :-1]], axis=1)
    middle = (weights * (before + path)).sum(axis=1) / 2
    lift = (weights * (bow + np.concatenate([np.zeros(1), bow[:-1]]))).sum(axis=1) / 2
    bend = np.where(volume > 0, (mean - middle) / np.maximum(lift, 0.1), 0.0)
    return bend[:, None]


def _flatten_empty(parents: Ints, count: Ints, out: Ints) -> None:
    """Fill the previous close of every child, and the prices of children without a trade."""
    n, k = count.shape
    seen = np.maximum.accumulate(np.where(count > 0, np.arange(k), -1), axis=1)
    before = np.concatenate([np.full((n, 1), -1), seen[:, :-1]], axis=1)
    carried = np.take_along_axis(out[:, :, CLOSE], np.maximum(before, 0), axis=1)
    previous = np.where(before >= 0, carried, parents[:, PREVIOUS, None])
    out[:, :, PREVIOUS] = previous
    empty = count == 0
    for column in (OPEN, HIGH, LOW, CLOSE):
        out[:, :, column] = np.where(empty, previous, out[:, :, column])


def _side(parents: Ints, out: Ints, noise: Floats, tick: int, count: int, volume: int, quote: int) -> None:
    """Split one side's volume and quote so that every child's mean price lies in its range where integers allow it."""
    trades = out[:, :, count]
    held = trades > 0
    high, low = out[:, :, HIGH], out[:, :, LOW]
    typical = (out[:, :, OPEN] + high + low + out[:, :, CLOSE]) / 4.0
    total, value = parents[:, volume], parents[:, quote]
    mean = (value / np.maximum(total * tick, 1))[:, None]
    weights = trades * (0.4 + 1.2 * noise)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    # Half of each child's range is free; beyond that, tilt the volume towards the dearer (or cheaper) children.
    dear, cheap = (typical + high) / 2, (typical + low) / 2
    above = mean > (weights * dear).sum(axis=1, keepdims=True)
    below = mean < (weights * cheap).sum(axis=1, keepdims=True)
    edge = np.where(above, dear, cheap)
    middle = (weights * edge).sum(axis=1, keepdims=True)
    chosen = held & np.where(above, edge >= mean, edge <= mean)
    highest = np.where(held, edge, -np.inf).argmax(axis=1)[:, None]
    lowest = np.where(held, edge, np.inf).argmin(axis=1)[:, None]
    lone = held & (np.arange(held.shape[1]) == np.where(above, highest, lowest))
    chosen = np.where(chosen.any(axis=1, keepdims=True), chosen, lone)
    leaning = weights * chosen
    leaning /= np.maximum(leaning.sum(axis=1, keepdims=True), 1e-300)
    far = (leaning * edge).sum(axis=1, keepdims=True)
    gap = far - middle
    tilt = (above | below) * np.clip(np.where(gap == 0, 0.0, (mean - middle) / np.where(gap == 0, 1.0, gap)), 0.0, 1.0)
    volumes = trades + _spread(total - parents[:, count], (1 - tilt) * weights + tilt * leaning)
    whole = np.rint(typical).astype(np.int64)
    quotes = whole * tick * volumes
    missing = value - quotes.sum(axis=1)
    slack = np.where(missing[:, None] > 0, high - whole, whole - low) * tick * volumes
    room = np.minimum(np.abs(missing), slack.sum(axis=1))
    quotes += np.sign(missing)[:, None] * _spread(room, slack.astype(np.float64))
    rest = value - quotes.sum(axis=1)
    rows = np.arange(len(parents))
    quotes[rows, volumes.argmax(axis=1)] += rest
    out[:, :, volume] = volumes
    out[:, :, quote] = quotes


def fold_rows(rows: Ints, starts: Ints) -> Ints:
    """Fold consecutive rows into one per start position, skipping rows without a trade."""
    count = rows[:, BUY_N] + rows[:, SELL_N]
    held = count > 0
    result = np.empty((len(starts), COLUMNS), dtype=np.int64)
    for column in (BUY_N, BUY_V, BUY_Q, SELL_N, SELL_V, SELL_Q):
        result[:, column] = np.add.reduceat(rows[:, column], starts)
    result[:, HIGH] = np.maximum.reduceat(np.where(held, rows[:, HIGH], -_BIG), starts)
    result[:, LOW] = np.minimum.reduceat(np.where(held, rows[:, LOW], _BIG), starts)
    size = len(rows)
    places = np.arange(size)
    first = np.minimum.reduceat(np.where(held, places, size), starts)
    last = np.maximum.reduceat(np.where(held, places, -1), starts)
    result[:, OPEN] = rows[np.minimum(first, size - 1), OPEN]
    result[:, CLOSE] = rows[np.maximum(last, 0), CLOSE]
    result[:, PREVIOUS] = rows[starts, PREVIOUS]
    empty = last < 0
    for column in (OPEN, HIGH, LOW, CLOSE):
        result[empty, column] = result[empty, PREVIOUS]
    return result
