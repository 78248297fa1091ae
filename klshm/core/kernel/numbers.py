"""The eight numbers of a bar, from integer cells to the floats of its record."""

from __future__ import annotations

import numpy as np

from klshm.core.compiled import compiled, merged
from klshm.core.state import CELLS, CLOSE, OPEN, QUOTE, TAKER_QUOTE, TAKER_VOLUME, VOLUME
from klshm.shm import layout as lay
from klshm.shm.atomics import bits_of_float
from klshm.shm.exact import POWERS, nearest, split


__all__ = []

SMALL = 1 << 51
"""Units below this need no care."""


@compiled
def pack_large(m, image, cells, price_scale, quantity_scale, quote_scale):
    """Write the eight numbers of a bar that may need more than 53 bits; return its residuals in place."""
    state = m.state
    for k in range(OPEN, CLOSE + 1):
        state[image + lay.W_OPEN + k] = bits_of_float(nearest(state[cells + k], price_scale))
    state[image + lay.W_VOLUME] = bits_of_float(nearest(state[cells + VOLUME], quantity_scale))
    state[image + lay.W_TAKER_BUY_VOLUME] = bits_of_float(nearest(state[cells + TAKER_VOLUME], quantity_scale))
    quote = nearest(state[cells + QUOTE], quote_scale)
    taker_quote = nearest(state[cells + TAKER_QUOTE], quote_scale)
    state[image + lay.W_QUOTE_VOLUME] = bits_of_float(quote)
    state[image + lay.W_TAKER_BUY_QUOTE_VOLUME] = bits_of_float(taker_quote)
    residual = state[cells + QUOTE] - split(quote, quote_scale)
    taker_residual = state[cells + TAKER_QUOTE] - split(taker_quote, quote_scale)
    return ((residual & 0xFFFF) << 32) | ((taker_residual & 0xFFFF) << 48)


@merged
def pack_numbers(m, image, cells, price_decimals, quantity_decimals):
    """Write the eight numbers of a bar into the image.

    Below 2^51 units one division is the nearest number, and `split` gives the units back by
    itself: the number is wrong by less than a quarter of a unit. Without branches the compiler
    divides several at once.

    Args:
        m: The memory.
        image: First state word of the image.
        cells: First state word of the bar's nine cells, in units of the decimals.
        price_decimals: Decimals of its prices.
        quantity_decimals: Decimals of its quantities.

    Returns:
        Its residuals, where the flags word has them.
    """
    state = m.state
    price_scale, quantity_scale = POWERS[price_decimals], POWERS[quantity_decimals]
    quote_scale = POWERS[price_decimals + quantity_decimals]
    most = 0
    for k in range(CELLS - 1):
        most |= state[cells + k]
    if most >= SMALL:
        return pack_large(m, image, cells, price_scale, quantity_scale, quote_scale)
    price, quantity, quote = np.float64(price_scale), np.float64(quantity_scale), np.float64(quote_scale)
    for k in range(OPEN, CLOSE + 1):
        state[image + lay.W_OPEN + k] = bits_of_float(np.float64(state[cells + k]) / price)
    state[image + lay.W_VOLUME] = bits_of_float(np.float64(state[cells + VOLUME]) / quantity)
    state[image + lay.W_TAKER_BUY_VOLUME] = bits_of_float(np.float64(state[cells + TAKER_VOLUME]) / quantity)
    state[image + lay.W_QUOTE_VOLUME] = bits_of_float(np.float64(state[cells + QUOTE]) / quote)
    state[image + lay.W_TAKER_BUY_QUOTE_VOLUME] = bits_of_float(np.float64(state[cells + TAKER_QUOTE]) / quote)
    return 0
