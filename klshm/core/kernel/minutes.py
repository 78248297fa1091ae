"""What a minute says now, and since when its symbol waits for the exchange to confirm."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled
from klshm.core.kernel.folds import scratch
from klshm.core.kernel.records import compose, is_empty, is_final
from klshm.core.kernel.rows import has_row, history_at, oldest_row, restore, row_state, symbol_at
from klshm.core.state import CLOSE, COUNT, MINUTE, VOLUME
from klshm.shm.layout import STATE_CONFIRMED


__all__ = []


@compiled
def close_before(m, slot, time):
    """Return the close of the bar before a minute, -1 if it is unknown."""
    state = m.state
    if has_row(m, slot, 0, time - MINUTE):
        cells = scratch(m, 2)
        restore(m, slot, history_at(m, slot, 0, time - MINUTE), cells)
        return state[cells + CLOSE]
    if time < state[symbol_at(m, slot) + st.S_OPEN_MINUTE]:
        return st.NONE
    return state[symbol_at(m, slot) + st.S_LAST_CLOSE]


@compiled
def flatten(m, cells, price):
    """Make nine cells of a bar without trades."""
    for k in range(VOLUME):
        m.state[cells + k] = price
    for k in range(VOLUME, COUNT + 1):
        m.state[cells + k] = 0


@compiled
def minute_cells(m, slot, record, cells):
    """Read a minute's nine cells, flat at the close before it if it holds no trades.

    Returns:
        Whether there is a bar at all: without any price known there is none.
    """
    state = m.state
    if not is_empty(m, record):
        compose(m, slot, record, cells)
        return True
    price = close_before(m, slot, state[record + st.M_TIME])
    if is_final(m, record) and state[record + st.M_BASE_CELLS + CLOSE] > 0:
        price = state[record + st.M_BASE_CELLS + CLOSE]  # an official bar without trades names it
    flatten(m, cells, price)
    return price != st.NONE


@compiled
def need_from(m, slot, time):
    """Note that a closed minute waits for its confirmation."""
    symbol = symbol_at(m, slot)
    oldest = m.state[symbol + st.S_NEED_FROM]
    if oldest == st.NONE or time < oldest:
        m.state[symbol + st.S_NEED_FROM] = time


@compiled
def move_need(m, slot):
    """Move the oldest unconfirmed bar of a symbol past those that are confirmed or out of reach."""
    state = m.state
    symbol = symbol_at(m, slot)
    if state[symbol + st.S_NEED_FROM] == st.NONE:
        return
    first = max(state[symbol + st.S_ORIGIN] // MINUTE * MINUTE, oldest_row(m, slot, 0))
    for time in range(max(state[symbol + st.S_NEED_FROM], first), state[symbol + st.S_OPEN_MINUTE], MINUTE):
        at = history_at(m, slot, 0, time)
        if not has_row(m, slot, 0, time) or row_state(m.words, at) != STATE_CONFIRMED:
            state[symbol + st.S_NEED_FROM] = time
            return
    state[symbol + st.S_NEED_FROM] = st.NONE
