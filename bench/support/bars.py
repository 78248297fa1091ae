"""Closed bars of many series at many times, for everything that stores or carries them."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.support.market import BEGIN_MS, INTERVALS, names
from klshm.intervals import code_of, length_ms
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE
from klshm.store.batch import Batch, Listing


__all__ = ["bars_of", "wave_of"]


def wave_of(symbols: int, number: int) -> Batch:
    """Return one closed bar of every series: what a closing wave of all intervals hands over.

    Args:
        symbols: How many, times six intervals.
        number: Which wave; each is one step of its interval later.
    """
    slots = np.repeat(np.arange(symbols), len(INTERVALS))
    steps = np.array([length_ms(name) for name in INTERVALS])
    codes = np.array([code_of(name) for name in INTERVALS])
    return _batch(symbols, slots, np.tile(codes, symbols), np.tile(BEGIN_MS + number * steps, symbols))


def bars_of(symbols: int, chosen: range, first: int, count: int) -> Batch:
    """Return so many successive closed bars of each series of some symbols, as backfill does.

    Args:
        symbols: How many there are, times six intervals.
        chosen: Slots of those wanted.
        first: Number of the first bar.
        count: Bars per series.
    """
    wave = wave_of(symbols, first)
    part = wave.rows[chosen.start * len(INTERVALS) : chosen.stop * len(INTERVALS)]
    rows = np.repeat(part, count)
    steps = np.tile([length_ms(name) for name in INTERVALS], len(chosen))
    rows["open_time"] += np.repeat(steps, count) * np.tile(np.arange(count), len(part))
    return Batch(wave.listings, rows)


def _batch(symbols: int, slots: Any, codes: Any, times: Any) -> Batch:
    rows = np.zeros(len(slots), dtype=KLINE)
    rows["slot"], rows["interval"], rows["open_time"] = slots, codes, times
    price = 100 + slots % 97 / 100
    rows["open"], rows["high"], rows["low"], rows["close"] = price, price + 0.25, price - 0.25, price + 0.125
    rows["volume"], rows["taker_buy_volume"] = 12.5, 6.25
    rows["quote_volume"], rows["taker_buy_quote_volume"] = 12.5 * price, 6.25 * price
    rows["trade_count"], rows["state"], rows["revision"] = 17, lay.STATE_CLOSED, 1
    rows["price_decimals"], rows["quantity_decimals"] = 2, 3
    return Batch(tuple(Listing(name, 1) for name in names(symbols)), rows)
