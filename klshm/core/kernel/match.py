"""How often bars were right before the exchange said so: every comparison is counted (BARS section 7).

What a bar says at its tick and when it settles is kept, and compared once it is confirmed. A bar
that was confirmed by then is equal by definition: such bars are counted apart.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.flags import class_of
from klshm.core.kernel.rows import copy_cells, count, same_cells, symbol_at
from klshm.core.state import CELLS, CLOSE, COUNT, HIGH, LOW, MINUTE, SUMS, VOLUME
from klshm.shm.counters import WORKER
from klshm.shm.layout import STATE_CONFIRMED, STATE_LIVE


__all__ = []

_MATCH = WORKER.index("match_tick_traded_compared_total")
_MATCH_SETTLE = WORKER.index("match_settle_traded_compared_total")
_UNEQUAL = WORKER.index("match_tick_unequal_open_total")
_UNEQUAL_SETTLE = WORKER.index("match_settle_unequal_open_total")
_CONFIRMED_AT_TICK = WORKER.index("match_tick_confirmed_total")
_CONFIRMED_AT_SETTLE = WORKER.index("match_settle_confirmed_total")
_PURE_COMPARED = WORKER.index("match_aggtrade_compared_total")
_PURE_EQUAL = WORKER.index("match_aggtrade_equal_total")


@compiled
def add_pure_price(m, record, price):
    """Count the price of a trade by its time alone; its sums are still to come."""
    state = m.state
    pure = record + st.M_PURE
    if state[pure + VOLUME] == 0:
        for k in range(VOLUME):
            state[pure + k] = price
    state[pure + HIGH] = max(state[pure + HIGH], price)
    state[pure + LOW] = min(state[pure + LOW], price)
    state[pure + CLOSE] = price


@compiled
def add_pure(m, record, price, sums):
    """Count a trade by its time alone, as a plain aggregation would (for the published match rate)."""
    add_pure_price(m, record, price)
    for k in range(SUMS):
        m.state[record + st.M_PURE + VOLUME + k] += m.state[sums + k]


@compiled
def snapshot_match(m, record, cells, has, to, flags):
    """Keep what the bar said at a moment, to compare it with the exchange's own later."""
    state = m.state
    if state[record + st.M_STATE] == STATE_CONFIRMED or state[record + has] == 1:
        return
    state[record + has] = 1
    copy_cells(m, record + to, cells, CELLS)
    state[record + to + CELLS] = class_of(flags)


@compiled
def compare_moment(m, record, final, has, cells, compared, unequal):
    """Count whether what a bar said at a moment equals the exchange's own."""
    state = m.state
    if state[record + has] == 0:
        return
    group = state[record + cells + CELLS]
    count(m, compared + 2 * group, 1)
    equal = True
    for k in range(CELLS):
        if state[record + cells + k] != state[final + k]:
            equal = False
            if group != st.CLASS_PROVISIONAL:
                # counters follow the exchange's order: count stands before the taker's cells
                count(m, unequal + (k if k < 6 else (6 if k == COUNT else k + 1)), 1)
    if equal:
        count(m, compared + 2 * group + 1, 1)


@merged
def compare(m, slot, record, final):
    """Compare a minute that has just been confirmed with what was said of it before."""
    state = m.state
    symbol = symbol_at(m, slot)
    if state[final + COUNT] > 0 and state[record + st.M_SETTLED] == 0:
        count(m, _CONFIRMED_AT_SETTLE, 1)
        if state[record + st.M_STATE] == STATE_LIVE:
            count(m, _CONFIRMED_AT_TICK, 1)
    compare_moment(m, record, final, st.M_HAS_TICK, st.M_TICK_CELLS, _MATCH, _UNEQUAL)
    compare_moment(m, record, final, st.M_HAS_SETTLE, st.M_SETTLE_CELLS, _MATCH_SETTLE, _UNEQUAL_SETTLE)
    time, doubt = state[record + st.M_TIME], state[symbol + st.S_DOUBT]
    whole = state[record + st.M_PURE_CLEAN] == 1 and state[symbol + st.S_JOINED] < time
    if whole and state[final + COUNT] > 0 and (doubt == st.NONE or doubt >= time + MINUTE):
        count(m, _PURE_COMPARED, 1)
        if same_cells(m, record + st.M_PURE, final):
            count(m, _PURE_EQUAL, 1)
