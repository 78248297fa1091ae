"""Decimals: bringing what the exchange wrote into units of the symbol, and the symbol into finer units.

A symbol's units only ever get finer. Everything is checked before it can overflow: what does not
fit is refused and counted, never wrapped.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, entry, merged
from klshm.core.events import (
    E_CELLS,
    E_OPEN_TIME,
    E_PRICE_DECIMALS,
    E_QUANTITY_DECIMALS,
    E_QUOTE_DECIMALS,
)
from klshm.core.kernel.intake import rebase_prefix
from klshm.core.kernel.records import find_record, ring_first
from klshm.core.kernel.rows import count, record_at, symbol_at
from klshm.core.state import CELLS, COUNT, MINUTE, QUOTE, SUMS, TAKER_QUOTE, TAKER_VOLUME, VOLUME
from klshm.shm.atomics import float_of_bits
from klshm.shm.counters import WORKER
from klshm.shm.exact import MAX_SUM, POWERS, split
from klshm.shm.layout import (
    W_COUNT_DELAY,
    W_FLAGS,
    W_OPEN,
    W_QUOTE_VOLUME,
    W_TAKER_BUY_QUOTE_VOLUME,
    W_TAKER_BUY_VOLUME,
    W_VOLUME,
)


__all__ = []

_OVERFLOWS = WORKER.index("overflows_total")
_RESCALES = WORKER.index("rescales_total")

MAX_DECIMALS = 9
"""Price and quantity decimals together, at most: quote units stay exact up to here (SHM section 2)."""
BAD = -1


@compiled
def to_units(value, decimals, target):
    """Return a written number in units of 10^-target.

    Returns:
        The units; -1 if it needs more decimals or is too large.
    """
    while decimals > target:
        if value % 10 != 0:
            return BAD
        value //= 10
        decimals -= 1
    factor = POWERS[target - decimals]
    if value > MAX_SUM // factor:
        return BAD
    return value * factor


@compiled
def needed_decimals(value, decimals):
    """Return with how many decimals a written number can be written without loss."""
    while decimals > 0 and value % 10 == 0:
        value //= 10
        decimals -= 1
    return decimals


@compiled
def multiply(m, at, factor, apply):
    """Multiply a state word, or only say whether it would fit."""
    value = m.state[at]
    if value > MAX_SUM // factor or value < -(MAX_SUM // factor):
        return False
    if apply:
        m.state[at] = value * factor
    return True


@compiled
def rescale_sums(m, at, price_factor, quantity_factor, apply):
    """Bring a prefix into finer units; its count has none."""
    fits = multiply(m, at, quantity_factor, apply)
    fits = multiply(m, at + QUOTE - VOLUME, price_factor * quantity_factor, apply) and fits
    fits = multiply(m, at + TAKER_VOLUME - VOLUME, quantity_factor, apply) and fits
    return multiply(m, at + TAKER_QUOTE - VOLUME, price_factor * quantity_factor, apply) and fits


@merged
def rescale_cells(m, at, price_factor, quantity_factor, apply):
    """Bring nine cells into finer units."""
    fits = True
    for k in range(VOLUME):
        fits = multiply(m, at + k, price_factor, apply) and fits
    return rescale_sums(m, at + VOLUME, price_factor, quantity_factor, apply) and fits


@compiled
def rescale_all(m, slot, price_factor, quantity_factor, apply):
    """Bring everything held of a symbol into finer units, or only say whether it would fit."""
    state = m.state
    symbol = symbol_at(m, slot)
    fits = rescale_sums(m, symbol + st.S_PREFIX, price_factor, quantity_factor, apply)
    if ring_first(m, slot) == 0:
        fits = rescale_sums(m, symbol + st.S_START, price_factor, quantity_factor, apply) and fits
    if state[symbol + st.S_LAST_CLOSE] != st.NONE:
        fits = multiply(m, symbol + st.S_LAST_CLOSE, price_factor, apply) and fits
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        for cells in (st.M_BASE_CELLS, st.M_TICK_CELLS, st.M_SETTLE_CELLS, st.M_PURE):
            fits = rescale_cells(m, record + cells, price_factor, quantity_factor, apply) and fits
        for sums in (st.M_OFF, st.M_CLEAN_SUMS, st.M_END):
            fits = rescale_sums(m, record + sums, price_factor, quantity_factor, apply) and fits
        for k in range(st.M_OPEN, st.M_CLOSE + 1):
            fits = multiply(m, record + k, price_factor, apply) and fits
    for index in range(min(state[symbol + st.S_RING_COUNT], st.RING)):
        entry = state[st.C_RING] + (slot * st.RING + index) * st.R_WORDS
        fits = multiply(m, entry + st.R_PRICE, price_factor, apply) and fits
        fits = multiply(m, entry + st.R_QUANTITY, quantity_factor, apply) and fits
        fits = rescale_sums(m, entry + st.R_PREFIX, price_factor, quantity_factor, apply) and fits
    return fits


@merged
def refine(m, slot, price_decimals, quantity_decimals):
    """Give a symbol more decimals.

    Returns:
        Whether it could be done; if not, nothing has changed.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    price_decimals = max(price_decimals, state[symbol + st.S_PRICE_DECIMALS])
    quantity_decimals = max(quantity_decimals, state[symbol + st.S_QUANTITY_DECIMALS])
    if price_decimals + quantity_decimals > MAX_DECIMALS:
        count(m, _OVERFLOWS, 1)
        return False
    price_factor = POWERS[price_decimals - state[symbol + st.S_PRICE_DECIMALS]]
    quantity_factor = POWERS[quantity_decimals - state[symbol + st.S_QUANTITY_DECIMALS]]
    rebase_prefix(m, slot)
    if not rescale_all(m, slot, price_factor, quantity_factor, False):
        count(m, _OVERFLOWS, 1)
        return False
    rescale_all(m, slot, price_factor, quantity_factor, True)
    state[symbol + st.S_PRICE_DECIMALS] = price_decimals
    state[symbol + st.S_QUANTITY_DECIMALS] = quantity_decimals
    folds = state[st.C_FOLDS] + slot * state[st.C_INTERVALS] * st.F_WORDS
    for interval in range(state[st.C_INTERVALS]):
        state[folds + interval * st.F_WORDS + st.F_TIME] = st.NONE
    count(m, _RESCALES, 1)
    return True


@compiled
def decimals_of(m, slot, events, at, kind):
    """Return the decimals an event's numbers need beyond the symbol's own: 0 price, 1 quantity."""
    first, last = (E_CELLS, E_CELLS + VOLUME) if kind == 0 else (E_CELLS + VOLUME, E_CELLS + VOLUME + 1)
    decimals = events[at + (E_PRICE_DECIMALS if kind == 0 else E_QUANTITY_DECIMALS)]
    needed = 0
    for k in range(first, last):
        needed = max(needed, needed_decimals(events[at + k], decimals))
    if kind == 1:
        needed = max(needed, needed_decimals(events[at + E_CELLS + TAKER_VOLUME], decimals))
    return needed


@compiled
def fits_symbol(m, slot, events, at):
    """Make sure the symbol's units can hold an event's prices and quantities, refining them if need be."""
    symbol = symbol_at(m, slot)
    price = decimals_of(m, slot, events, at, 0)
    quantity = decimals_of(m, slot, events, at, 1)
    state = m.state
    if price <= state[symbol + st.S_PRICE_DECIMALS] and quantity <= state[symbol + st.S_QUANTITY_DECIMALS]:
        return True
    return refine(m, slot, price, quantity)


@compiled
def read_cells(m, slot, events, at, cells):
    """Read an event's nine cells into units of the symbol.

    Returns:
        Whether they fit; a refusal is counted.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    if not fits_symbol(m, slot, events, at):
        return False
    price, quantity = state[symbol + st.S_PRICE_DECIMALS], state[symbol + st.S_QUANTITY_DECIMALS]
    for k in range(CELLS):
        value = events[at + E_CELLS + k]
        if k < VOLUME:
            value = to_units(value, events[at + E_PRICE_DECIMALS], price)
        elif k == VOLUME or k == TAKER_VOLUME:
            value = to_units(value, events[at + E_QUANTITY_DECIMALS], quantity)
        elif k != COUNT:
            value = to_units(value, events[at + E_QUOTE_DECIMALS], price + quantity)
        if value < 0:
            count(m, _OVERFLOWS, 1)
            return False
        state[cells + k] = value
    return True


@compiled
def read_trade(m, slot, events, at, sums, is_buyer_maker):
    """Read a trade's sums into units of the symbol: volume, quote, taker buy volume and quote.

    Returns:
        Its price in units; -1 if something does not fit (counted).
    """
    state = m.state
    symbol = symbol_at(m, slot)
    if not fits_symbol(m, slot, events, at):
        return BAD
    price = to_units(events[at + E_CELLS], events[at + E_PRICE_DECIMALS], state[symbol + st.S_PRICE_DECIMALS])
    quantity = to_units(
        events[at + E_CELLS + VOLUME], events[at + E_QUANTITY_DECIMALS], state[symbol + st.S_QUANTITY_DECIMALS]
    )
    if price <= 0 or quantity <= 0 or quantity > MAX_SUM // price:
        count(m, _OVERFLOWS, 1)
        return BAD
    state[sums] = quantity
    state[sums + 1] = price * quantity
    state[sums + 2] = 0 if is_buyer_maker else quantity
    state[sums + 3] = 0 if is_buyer_maker else price * quantity
    if state[symbol + st.S_PREFIX + 1] > MAX_SUM // 2:
        rebase_prefix(m, slot)
    record = find_record(m, slot, events[at + E_OPEN_TIME] // MINUTE * MINUTE)
    for k in range(SUMS - 1):
        held = state[symbol + st.S_PREFIX + k]
        if record != st.NONE and state[record + st.M_HAS_OFF] == 1:
            held -= state[record + st.M_OFF + k]
        if held > MAX_SUM - state[sums + k]:
            count(m, _OVERFLOWS, 1)
            return BAD
    return price


@entry
def cells_of_row(words, at, events, to):
    """Read the nine cells of a record into an event, in units of the record's own decimals.

    Args:
        words: Where the record lies, dtype int64.
        at: Its first word.
        events: Where the event lies, dtype int64.
        to: Its first word; its decimals are set already.
    """
    price_scale = POWERS[events[to + E_PRICE_DECIMALS]]
    quantity_scale = POWERS[events[to + E_QUANTITY_DECIMALS]]
    quote_scale = POWERS[events[to + E_QUOTE_DECIMALS]]
    cells = to + E_CELLS
    for k in range(VOLUME):
        events[cells + k] = split(float_of_bits(words[at + W_OPEN + k]), price_scale)
    residuals = words[at + W_FLAGS]
    residual, taker_residual = (residuals >> 32) & 0xFFFF, (residuals >> 48) & 0xFFFF
    residual -= 0x10000 if residual >= 0x8000 else 0
    taker_residual -= 0x10000 if taker_residual >= 0x8000 else 0
    events[cells + VOLUME] = split(float_of_bits(words[at + W_VOLUME]), quantity_scale)
    events[cells + QUOTE] = split(float_of_bits(words[at + W_QUOTE_VOLUME]), quote_scale) + residual
    events[cells + TAKER_VOLUME] = split(float_of_bits(words[at + W_TAKER_BUY_VOLUME]), quantity_scale)
    taker_quote = split(float_of_bits(words[at + W_TAKER_BUY_QUOTE_VOLUME]), quote_scale)
    events[cells + TAKER_QUOTE] = taker_quote + taker_residual
    events[cells + COUNT] = words[at + W_COUNT_DELAY] & 0xFFFFFFFF
