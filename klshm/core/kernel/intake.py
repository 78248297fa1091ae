"""Intake by id: every aggregate trade is applied once, and what is missing is known exactly.

``a`` of the next trade is the last one plus one. Less: a duplicate, or the filling of a hole.
More: a hole, kept with its bounds until it is filled or official bars cover it.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled
from klshm.core.kernel.records import find_record, is_final, ring_at, ring_first, ring_search
from klshm.core.kernel.rows import count, record_at, symbol_at
from klshm.core.state import MINUTE, SUMS
from klshm.shm.counters import WORKER
from klshm.shm.layout import STATE_CONFIRMED


__all__ = []

_HOLES = WORKER.index("holes_total")
_HOLES_FILLED = WORKER.index("holes_filled_total")
_ID_RESETS = WORKER.index("id_resets_total")

RESET_AFTER = 3
RESET_AHEAD_MS = 60_000


@compiled
def hole_at(m, slot, index):
    """Return the first state word of a hole."""
    return m.state[st.C_HOLES] + (slot * st.HOLES + index) * st.H_WORDS


@compiled
def find_hole(m, slot, a):
    """Return the index of the hole that an aggregate trade id lies in, or -1."""
    state = m.state
    for index in range(state[symbol_at(m, slot) + st.S_HOLES]):
        hole = hole_at(m, slot, index)
        if state[hole + st.H_FIRST_A] <= a <= state[hole + st.H_LAST_A]:
            return index
    return st.NONE


@compiled
def remove_hole(m, slot, index):
    """Forget a hole."""
    state = m.state
    symbol = symbol_at(m, slot)
    last = state[symbol + st.S_HOLES] - 1
    for k in range(st.H_WORDS):
        state[hole_at(m, slot, index) + k] = state[hole_at(m, slot, last) + k]
    state[symbol + st.S_HOLES] = last


@compiled
def give_up_hole(m, slot, index):
    """Forget a hole that cannot be kept; its minutes stay partial until official bars cover them."""
    state = m.state
    symbol = symbol_at(m, slot)
    hole = hole_at(m, slot, index)
    after_f = state[hole + st.H_AFTER_F]
    for which in range(st.RECORDS):
        record = record_at(m, slot, which)
        time = state[record + st.M_TIME]
        if time <= state[hole + st.H_AFTER_T] and time + MINUTE > state[hole + st.H_BEFORE_T]:
            state[record + st.M_HOLED] = max(state[record + st.M_HOLED], after_f)
    state[symbol + st.S_UNFILLED] = max(state[symbol + st.S_UNFILLED], after_f)
    remove_hole(m, slot, index)


@compiled
def add_hole(m, slot, first_a, last_a, before_l, before_t, after_f, after_t):
    """Remember a hole; there must be room."""
    state = m.state
    symbol = symbol_at(m, slot)
    hole = hole_at(m, slot, state[symbol + st.S_HOLES])
    state[hole + st.H_FIRST_A] = first_a
    state[hole + st.H_LAST_A] = last_a
    state[hole + st.H_BEFORE_L] = before_l
    state[hole + st.H_BEFORE_T] = before_t
    state[hole + st.H_AFTER_F] = after_f
    state[hole + st.H_AFTER_T] = after_t
    state[symbol + st.S_HOLES] += 1


@compiled
def oldest_hole(m, slot):
    """Return the index of the hole with the lowest ids."""
    oldest = 0
    for index in range(1, m.state[symbol_at(m, slot) + st.S_HOLES]):
        if m.state[hole_at(m, slot, index) + st.H_FIRST_A] < m.state[hole_at(m, slot, oldest) + st.H_FIRST_A]:
            oldest = index
    return oldest


@compiled
def open_hole(m, slot, a, f, T):
    """Note that the trades before `a` are missing; prefixes compare only within one epoch from now on."""
    state = m.state
    symbol = symbol_at(m, slot)
    count(m, _HOLES, 1)
    state[symbol + st.S_EPOCH] += 1
    before_t = state[symbol + st.S_LAST_T]
    if state[symbol + st.S_HOLES] == st.HOLES:
        give_up_hole(m, slot, oldest_hole(m, slot))
    add_hole(m, slot, state[symbol + st.S_LAST_A] + 1, a - 1, state[symbol + st.S_LAST_L], before_t, f, T)
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        time = state[record + st.M_TIME]
        if time != st.NONE and time <= T and time + MINUTE > before_t:
            state[record + st.M_PURE_CLEAN] = 0
            state[symbol + st.S_TOUCHED] |= 1 << index


@compiled
def prune_holes(m, slot):
    """Forget holes that official bars cover from end to end: they are closed by proof."""
    state = m.state
    symbol = symbol_at(m, slot)
    index = 0
    while index < state[symbol + st.S_HOLES]:
        hole = hole_at(m, slot, index)
        first = state[hole + st.H_BEFORE_T] // MINUTE * MINUTE
        last = state[hole + st.H_AFTER_T] // MINUTE * MINUTE
        oldest = state[symbol + st.S_OPEN_MINUTE] - (st.RECORDS - 3) * MINUTE
        covered = True
        for time in range(max(first, oldest), last + MINUTE, MINUTE):
            record = find_record(m, slot, time)
            covered = covered and record != st.NONE and state[record + st.M_STATE] == STATE_CONFIRMED
        if covered:
            state[symbol + st.S_UNFILLED] = max(state[symbol + st.S_UNFILLED], state[hole + st.H_AFTER_F])
            remove_hole(m, slot, index)
        else:
            index += 1


@compiled
def is_reset(m, slot, T):
    """Return whether ids have started anew: an old id with a much newer time, three times in a row."""
    state = m.state
    symbol = symbol_at(m, slot)
    if T <= state[symbol + st.S_LAST_T] + RESET_AHEAD_MS:
        state[symbol + st.S_RESETS] = 0
        return False
    state[symbol + st.S_RESETS] += 1
    return state[symbol + st.S_RESETS] >= RESET_AFTER


@compiled
def reset_ids(m, slot, T):
    """Begin anew after the exchange restarted a symbol's ids; what was held is known to be incomplete."""
    state = m.state
    symbol = symbol_at(m, slot)
    count(m, _ID_RESETS, 1)
    state[symbol + st.S_RESETS] = 0
    state[symbol + st.S_EPOCH] += 1
    state[symbol + st.S_RING_COUNT] = 0
    state[symbol + st.S_HOLES] = 0
    state[symbol + st.S_LAST_A] = st.NONE
    state[symbol + st.S_LAST_L] = st.NONE
    state[symbol + st.S_UNFILLED] = st.NONE
    state[symbol + st.S_FINAL_L] = st.NONE
    state[symbol + st.S_FINAL_MINUTE] = st.NONE
    state[symbol + st.S_JOINED] = T
    for k in range(SUMS):
        state[symbol + st.S_PREFIX + k] = 0
        state[symbol + st.S_START + k] = 0
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        if state[record + st.M_TIME] != st.NONE and not is_final(m, record):
            state[record + st.M_HOLED] = st.FOREVER
            state[record + st.M_HAS_OFF] = 0
            state[record + st.M_BASE_L] = st.NONE
            state[record + st.M_PEND] = 0
            state[record + st.M_HAS_TRADES] = 0
            state[record + st.M_HAS_END] = 0
            state[record + st.M_BASE] = st.BASE_NONE
            state[record + st.M_PURE_CLEAN] = 0
            state[symbol + st.S_TOUCHED] |= 1 << index


@compiled
def push_trade(m, slot, f, l, T, E, price, quantity, sums):
    """Add a trade that is newer than all others to the prefix and to the ring.

    Args:
        m: The memory.
        slot: Local slot.
        f: First trade id.
        l: Last trade id.
        T: Time of the first fill, ms.
        E: Event time, ms.
        price: In units of the symbol's decimals.
        quantity: In units of the symbol's decimals.
        sums: First state word of the trade's own sums.

    Returns:
        First state word of its ring entry.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    entry = ring_at(m, slot, state[symbol + st.S_RING_COUNT])
    state[symbol + st.S_RING_COUNT] += 1
    state[entry + st.R_F] = f
    state[entry + st.R_L] = l
    state[entry + st.R_T] = T
    state[entry + st.R_E] = E
    state[entry + st.R_EPOCH] = state[symbol + st.S_EPOCH]
    state[entry + st.R_PRICE] = price
    state[entry + st.R_QUANTITY] = quantity
    for k in range(SUMS):
        state[symbol + st.S_PREFIX + k] += state[sums + k]
        state[entry + st.R_PREFIX + k] = state[symbol + st.S_PREFIX + k]
    return entry


@compiled
def shift_sums(m, to, sums):
    """Add a trade's sums to a prefix."""
    for k in range(SUMS):
        m.state[to + k] += m.state[sums + k]


@compiled
def insert_trade(m, slot, f, l, T, E, price, quantity, sums):
    """Put a trade that fills a hole where it belongs: every later prefix grows by it.

    Returns:
        Position of its ring entry, or -1 if it is older than the ring reaches back.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    shift_sums(m, symbol + st.S_PREFIX, sums)
    before = ring_search(m, slot, f)
    first, end = ring_first(m, slot), state[symbol + st.S_RING_COUNT]
    for position in range(max(before + 1, first), end):
        shift_sums(m, ring_at(m, slot, position) + st.R_PREFIX, sums)
    if before == st.NONE or (end - first == st.RING and before == first):
        # Older than every trade held: what was before the oldest now includes it.
        if before == st.NONE and first == 0:
            shift_sums(m, symbol + st.S_START, sums)
        return st.NONE
    position = end
    while position > before + 1:
        for k in range(st.R_WORDS):
            state[ring_at(m, slot, position) + k] = state[ring_at(m, slot, position - 1) + k]
        position -= 1
    state[symbol + st.S_RING_COUNT] += 1
    entry, previous = ring_at(m, slot, position), ring_at(m, slot, before)
    state[entry + st.R_F] = f
    state[entry + st.R_L] = l
    state[entry + st.R_T] = T
    state[entry + st.R_E] = E
    state[entry + st.R_EPOCH] = state[previous + st.R_EPOCH]
    state[entry + st.R_PRICE] = price
    state[entry + st.R_QUANTITY] = quantity
    for k in range(SUMS):
        state[entry + st.R_PREFIX + k] = state[previous + st.R_PREFIX + k] + state[sums + k]
    return position


@compiled
def can_fill(m, slot, index, a):
    """Return whether a trade can be taken out of a hole; splitting one needs room for a second."""
    state = m.state
    hole = hole_at(m, slot, index)
    inside = state[hole + st.H_FIRST_A] < a < state[hole + st.H_LAST_A]
    return not inside or state[symbol_at(m, slot) + st.S_HOLES] < st.HOLES


@compiled
def shrink_hole(m, slot, index, a, f, l, T):
    """Take one trade out of a hole; the last one closes it.

    Returns:
        Whether no hole is left.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    hole = hole_at(m, slot, index)
    first_a, last_a = state[hole + st.H_FIRST_A], state[hole + st.H_LAST_A]
    after_f, after_t = state[hole + st.H_AFTER_F], state[hole + st.H_AFTER_T]
    if first_a == last_a:
        remove_hole(m, slot, index)
        count(m, _HOLES_FILLED, 1)
    elif a == first_a:
        state[hole + st.H_FIRST_A] = a + 1
        state[hole + st.H_BEFORE_L] = l
        state[hole + st.H_BEFORE_T] = T
    elif a == last_a:
        state[hole + st.H_LAST_A] = a - 1
        state[hole + st.H_AFTER_F] = f
        state[hole + st.H_AFTER_T] = T
    else:
        state[hole + st.H_LAST_A] = a - 1
        state[hole + st.H_AFTER_F] = f
        state[hole + st.H_AFTER_T] = T
        add_hole(m, slot, a + 1, last_a, l, T, after_f, after_t)
    return state[symbol + st.S_HOLES] == 0


@compiled
def rejoin_epochs(m, slot):
    """Make prefixes comparable again after the last hole was filled, and measure offsets again."""
    state = m.state
    symbol = symbol_at(m, slot)
    epoch, from_id = state[symbol + st.S_EPOCH], state[symbol + st.S_UNFILLED]
    for position in range(ring_first(m, slot), state[symbol + st.S_RING_COUNT]):
        entry = ring_at(m, slot, position)
        if state[entry + st.R_F] >= from_id:
            state[entry + st.R_EPOCH] = epoch
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        if state[record + st.M_TIME] == st.NONE:
            continue
        state[symbol + st.S_TOUCHED] |= 1 << index
        clean = state[record + st.M_CLEAN_L]
        if clean != st.NONE and clean >= from_id:
            position = ring_search(m, slot, clean)
            if position != st.NONE and state[ring_at(m, slot, position) + st.R_L] == clean:
                prefix = ring_at(m, slot, position) + st.R_PREFIX
                for k in range(SUMS):
                    state[record + st.M_OFF + k] = state[prefix + k] - state[record + st.M_CLEAN_SUMS + k]
                state[record + st.M_HAS_OFF] = 1
                state[record + st.M_OFF_EXACT] = 1
                state[record + st.M_OFF_EPOCH] = epoch
                continue
        if state[record + st.M_HAS_TRADES] == 1 and state[record + st.M_FIRST] > from_id:
            state[record + st.M_OFF_EPOCH] = epoch


