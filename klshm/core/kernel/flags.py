"""What a bar says about itself, from evidence (BARS section 3, flags)."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.holes import hole_at
from klshm.core.kernel.records import is_behind_base, is_empty, is_final, is_split, off_holds, ring_at, ring_first
from klshm.core.kernel.rows import symbol_at
from klshm.core.state import MINUTE
from klshm.shm.layout import (
    FLAG_CORRECTED,
    FLAG_FILLED,
    FLAG_LATE,
    FLAG_PARTIAL,
    FLAG_PROVISIONAL,
    STATE_CONFIRMED,
)


__all__ = []

UNDER_WAY_MS = 160
"""Longest time a trade group waits at the exchange before it is sent (EXCHANGE section 13a)."""


@compiled
def official_last(m, record):
    """Return the last trade id that an official frame of the minute covers, -1: none does."""
    return st.NONE if m.state[record + st.M_OWN] == 1 else m.state[record + st.M_BASE_L]


@merged
def has_hole(m, slot, record):
    """Return whether a hole that no frame covers may lie in a minute."""
    state = m.state
    start = state[record + st.M_TIME]
    last = official_last(m, record)
    for index in range(state[symbol_at(m, slot) + st.S_HOLES]):
        hole = hole_at(m, slot, index)
        touches = state[hole + st.H_BEFORE_T] < start + MINUTE and state[hole + st.H_AFTER_T] >= start
        if touches and state[hole + st.H_AFTER_F] > last + 1:
            return True
    return False


@merged
def is_partial(m, slot, record):
    """Return whether a minute is known to miss trades, or not known to have them all."""
    state = m.state
    symbol = symbol_at(m, slot)
    if is_final(m, record):
        return state[record + st.M_OWN] == 1 and state[record + st.M_HOLED] > 0
    if state[record + st.M_HOLED] > official_last(m, record) + 1:
        return True
    if state[symbol + st.S_DOUBT] != st.NONE and state[symbol + st.S_DOUBT] < state[record + st.M_TIME] + MINUTE:
        return True
    if state[symbol + st.S_JOINED] >= state[record + st.M_TIME]:  # what was before needs an official sum
        framed = is_behind_base(m, record) or off_holds(m, slot, record)
        if state[record + st.M_BASE] == st.BASE_NONE or not framed:
            return True
    return has_hole(m, slot, record)


@merged
def may_spill(m, slot, start):
    """Return whether the newest group before a minute may reach into it."""
    state = m.state
    symbol = symbol_at(m, slot)
    for position in range(state[symbol + st.S_RING_COUNT] - 1, ring_first(m, slot) - 1, -1):
        entry = ring_at(m, slot, position)
        if state[entry + st.R_T] < start:
            return state[entry + st.R_L] > state[entry + st.R_F] and state[entry + st.R_E] >= start
    return state[symbol + st.S_LAST_E] >= start  # not held any more, or from before a restart


@merged
def is_provisional(m, slot, record):
    """Return whether a closed minute that is not final may still change without any loss."""
    state = m.state
    if is_final(m, record):
        return state[record + st.M_STATE] != STATE_CONFIRMED
    start = state[record + st.M_TIME]
    end = start + MINUTE
    waiting = state[st.C_NOW] < end + UNDER_WAY_MS + state[st.C_LAG_MS]
    if state[record + st.M_NEXT_SEEN] == 0 and waiting:
        return True
    if is_empty(m, record):
        return may_spill(m, slot, start)
    last = official_last(m, record)
    if state[symbol_at(m, slot) + st.S_LAST_L] < last:
        return True  # the trades have not even come as far as the frame
    if state[record + st.M_LAST] > last:
        if not off_holds(m, slot, record):
            return True
        crosses = state[record + st.M_LAST_MULTI] == 1 and state[record + st.M_LAST_E] >= end
        if crosses and not is_split(m, slot, record):
            return True
    return state[record + st.M_OWN] == 1 or state[record + st.M_MULTI_L] > last


@compiled
def minute_flags(m, slot, record, closed):
    """Return the flags of a minute.

    Args:
        m: The memory.
        slot: Local slot.
        record: Its record.
        closed: Whether the minute has ended.
    """
    flags = 0
    if is_empty(m, record):
        flags |= FLAG_FILLED
    if is_partial(m, slot, record):
        flags |= FLAG_PARTIAL
    if closed and is_provisional(m, slot, record):
        flags |= FLAG_PROVISIONAL
    if m.state[record + st.M_LATE] == 1:
        flags |= FLAG_LATE
    if m.state[record + st.M_CORRECTED] == 1:
        flags |= FLAG_CORRECTED
    return flags


@merged
def class_of(flags):
    """Return which class of comparison a bar with these flags belongs to."""
    if flags & FLAG_FILLED:
        return st.CLASS_FILLED  # partial or not: if it turns out to have traded, it is a miss
    if flags & FLAG_PARTIAL:
        return st.CLASS_PARTIAL
    if flags & FLAG_PROVISIONAL:
        return st.CLASS_PROVISIONAL
    return st.CLASS_TRADED
