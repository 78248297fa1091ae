"""What is missing, exactly: ranges of aggregate trade ids between two trades that came.

A hole is kept with the times and trade ids around it until its trades are filled in, or official
bars cover it from end to end.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.records import find_record, oldest_minute, take_record, touch
from klshm.core.kernel.rows import count, record_at, symbol_at
from klshm.core.state import MINUTE
from klshm.shm.counters import WORKER
from klshm.shm.layout import STATE_CONFIRMED


__all__ = []

_HOLES = WORKER.index("holes_total")
_HOLES_FILLED = WORKER.index("holes_filled_total")


@compiled
def hole_at(m, slot, index):
    """Return the first state word of a hole."""
    return m.state[st.C_HOLES] + (slot * st.HOLES + index) * st.H_WORDS


@merged
def find_hole(m, slot, a):
    """Return the index of the hole that an aggregate trade id lies in, or -1."""
    state = m.state
    for index in range(state[symbol_at(m, slot) + st.S_HOLES]):
        hole = hole_at(m, slot, index)
        if state[hole + st.H_FIRST_A] <= a <= state[hole + st.H_LAST_A]:
            return index
    return st.NONE


@compiled
def oldest_hole(m, slot):
    """Return the index of the hole with the lowest ids; there must be one."""
    oldest = 0
    for index in range(1, m.state[symbol_at(m, slot) + st.S_HOLES]):
        if m.state[hole_at(m, slot, index) + st.H_FIRST_A] < m.state[hole_at(m, slot, oldest) + st.H_FIRST_A]:
            oldest = index
    return oldest


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
def lose_ids(m, slot, from_ms, to_ms, after_f):
    """Note that trades before id `after_f` are lost for good; only an official bar heals their minutes."""
    state = m.state
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        time = state[record + st.M_TIME]
        if time != st.NONE and time <= to_ms and time + MINUTE > from_ms:
            state[record + st.M_HOLED] = max(state[record + st.M_HOLED], after_f)
            state[symbol_at(m, slot) + st.S_TOUCHED] |= 1 << index


@merged
def give_up_hole(m, slot, index):
    """Forget a hole that cannot be kept."""
    state = m.state
    symbol = symbol_at(m, slot)
    hole = hole_at(m, slot, index)
    after_f = state[hole + st.H_AFTER_F]
    lose_ids(m, slot, state[hole + st.H_BEFORE_T], state[hole + st.H_AFTER_T], after_f)
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


@merged
def open_hole(m, slot, a, f, T):
    """Note that the trades before `a` are missing; prefixes compare only within one epoch from now on."""
    state = m.state
    symbol = symbol_at(m, slot)
    count(m, _HOLES, 1)
    state[symbol + st.S_EPOCH] += 1
    before_t = state[symbol + st.S_LAST_T]
    if state[symbol + st.S_HOLES] == st.HOLES:
        give_up_hole(m, slot, oldest_hole(m, slot))
    before_l = state[symbol + st.S_LAST_L] if state[symbol + st.S_RING_COUNT] > 0 else st.NONE
    add_hole(m, slot, state[symbol + st.S_LAST_A] + 1, a - 1, before_l, before_t, f, T)
    for time in range(max(before_t // MINUTE * MINUTE, oldest_minute(m, slot)), T + 1, MINUTE):
        record = take_record(m, slot, time)
        state[record + st.M_PURE_CLEAN] = 0
        touch(m, slot, record)


@merged
def is_covered(m, slot, hole):
    """Return whether confirmed bars cover a hole from end to end; what is too old for a record is not waited for."""
    state = m.state
    first = state[hole + st.H_BEFORE_T] // MINUTE * MINUTE
    for time in range(max(first, oldest_minute(m, slot)), state[hole + st.H_AFTER_T] + 1, MINUTE):
        record = find_record(m, slot, time)
        if record == st.NONE or state[record + st.M_STATE] != STATE_CONFIRMED:
            return False
    return True


@merged
def prune_holes(m, slot):
    """Forget holes that are closed by proof."""
    state = m.state
    symbol = symbol_at(m, slot)
    index = 0
    while index < state[symbol + st.S_HOLES]:
        hole = hole_at(m, slot, index)
        if is_covered(m, slot, hole):
            state[symbol + st.S_UNFILLED] = max(state[symbol + st.S_UNFILLED], state[hole + st.H_AFTER_F])
            remove_hole(m, slot, index)
        else:
            index += 1


@merged
def can_fill(m, slot, index, a, f, l):
    """Return whether a trade's ids lie in a hole and can be taken out; splitting one needs room for a second."""
    state = m.state
    hole = hole_at(m, slot, index)
    if f <= state[hole + st.H_BEFORE_L] or l >= state[hole + st.H_AFTER_F]:
        return False
    inside = state[hole + st.H_FIRST_A] < a < state[hole + st.H_LAST_A]
    return not inside or state[symbol_at(m, slot) + st.S_HOLES] < st.HOLES


@merged
def shrink_hole(m, slot, index, a, f, l, T):
    """Take one trade out of a hole; the last one closes it.

    Returns:
        Whether no hole is left.
    """
    state = m.state
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
    else:
        state[hole + st.H_LAST_A] = a - 1
        state[hole + st.H_AFTER_F] = f
        state[hole + st.H_AFTER_T] = T
        if a != last_a:
            add_hole(m, slot, a + 1, last_a, l, T, after_f, after_t)
    return state[symbol_at(m, slot) + st.S_HOLES] == 0
