"""What the worker wants from the historian, as a state: one row per symbol, rewritten when it changes."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import amend_touched
from klshm.core.kernel.holes import hole_at, oldest_hole
from klshm.core.kernel.minutes import move_need
from klshm.core.kernel.records import find_record
from klshm.core.kernel.rows import count, has_row, history_at, record_at, row_flags, row_state, symbol_at
from klshm.core.state import MINUTE
from klshm.shm.atomics import fence_release, store_relaxed, store_release
from klshm.shm.counters import WORKER
from klshm.shm.layout import (
    FLAG_FILLED,
    FLAG_PARTIAL,
    NEED_DOUBT,
    NEED_EMPTY,
    NEED_HOLE,
    NEED_LOST_FRAME,
    NEED_UNCONFIRMED,
    ROW_WORDS,
    STATE_CONFIRMED,
)


__all__ = []

_DOUBTS = WORKER.index("doubts_total")
_SILENT = WORKER.index("symbols_silent")
_HISTORY_MISSING = WORKER.index("history_missing")

NEED_VALUES = 8
MUTE_MS = 1_000
"""How long one stream may run ahead of the other before the other counts as mute."""


@compiled
def doubt_symbol(m, slot, time):
    """The trade stream of a symbol is down or mute since `time`."""
    state = m.state
    symbol = symbol_at(m, slot)
    if state[symbol + st.S_ACTIVE] == 0 or state[symbol + st.S_DOUBT] != st.NONE:
        return
    count(m, _DOUBTS, 1)
    state[symbol + st.S_DOUBT] = time
    state[symbol + st.S_STEADY] = st.FOREVER
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        if state[record + st.M_TIME] != st.NONE and state[record + st.M_TIME] + MINUTE > time:
            state[symbol + st.S_TOUCHED] |= 1 << index
    amend_touched(m, slot)


@merged
def set_doubt(m, slot, time):
    """Put one symbol's stream in doubt, or all with slot -1."""
    if slot >= 0:
        doubt_symbol(m, slot, time)
        return
    for each in range(m.state[st.C_SLOTS]):
        doubt_symbol(m, each, time)


@compiled
def check_streams(m):
    """Find streams that have fallen silent while the other one goes on (BARS section 5)."""
    state = m.state
    now = state[st.C_NOW]
    silent = 0
    for slot in range(state[st.C_SLOTS]):
        symbol = symbol_at(m, slot)
        if state[symbol + st.S_ACTIVE] == 0:
            continue
        ahead, behind = state[symbol + st.S_AHEAD_SINCE], state[symbol + st.S_BEHIND_SINCE]
        if ahead != st.NONE and now - ahead > MUTE_MS:
            doubt_symbol(m, slot, state[symbol + st.S_AHEAD_FROM])
            silent += 1
        elif behind != st.NONE and now - behind > MUTE_MS and state[symbol + st.S_FRAME_E] > 0:
            silent += 1
    m.words[state[st.C_COUNTERS] + _SILENT] = silent


@merged
def write_need(m, slot, values):
    """Write a row of the needs table if it changed."""
    at = m.state[st.C_NEEDS] + slot * ROW_WORDS
    same = True
    for k in range(NEED_VALUES):
        same = same and m.words[at + 1 + k] == m.state[values + k]
    if same:
        return
    # SYNC POINT need: writer
    sequence = m.words[at] & ~1
    store_relaxed(m.words, at, sequence + 1)
    fence_release()
    for k in range(NEED_VALUES):
        m.words[at + 1 + k] = m.state[values + k]
    store_release(m.words, at, sequence + 2)


@merged
def reasons(m, slot, first, last):
    """Return why closed bars of a symbol wait for the exchange, as NEED_... bits."""
    state = m.state
    symbol = symbol_at(m, slot)
    bits = NEED_EMPTY
    for time in range(first, last + MINUTE, MINUTE):
        at = history_at(m, slot, 0, time)
        if has_row(m, slot, 0, time):
            flags = row_flags(m.words, at)
            # Of a symbol that has not traded since it joined nothing is known; that alone is no hurry.
            silent = state[symbol + st.S_JOINED] >= time + MINUTE
            seems_empty = flags & FLAG_FILLED != 0 and (silent or flags & FLAG_PARTIAL == 0)
            if seems_empty or row_state(m.words, at) == STATE_CONFIRMED:
                continue
        bits |= NEED_UNCONFIRMED
        following = find_record(m, slot, time + MINUTE)
        if following != st.NONE and state[following + st.M_BASE] == st.BASE_FRAME:
            bits |= NEED_LOST_FRAME
        break
    if state[symbol + st.S_HOLES] > 0:
        bits |= NEED_HOLE
    if state[symbol + st.S_DOUBT] != st.NONE:
        bits |= NEED_DOUBT
    return bits


@compiled
def write_needs(m):
    """Write what every symbol needs from the exchange's REST interface."""
    state = m.state
    values = state[st.C_SCRATCH]
    missing = 0
    for slot in range(state[st.C_SLOTS]):
        symbol = symbol_at(m, slot)
        for k in range(NEED_VALUES):
            state[values + k] = 0
        state[values + 7] = state[symbol + st.S_RING_COUNT]
        if state[symbol + st.S_ACTIVE] == 1:
            move_need(m, slot)
        first = state[symbol + st.S_NEED_FROM]
        if state[symbol + st.S_ACTIVE] == 1 and first != st.NONE:
            last = state[symbol + st.S_OPEN_MINUTE] - MINUTE
            state[values] = state[symbol + st.S_GLOBAL_SLOT]
            state[values + 1] = st.NONE
            state[values + 2] = st.NONE
            state[values + 3] = first
            state[values + 4] = last
            state[values + 5] = reasons(m, slot, first, last)
            state[values + 6] = first + MINUTE
            if state[symbol + st.S_HOLES] > 0:
                hole = hole_at(m, slot, oldest_hole(m, slot))
                state[values + 1] = state[hole + st.H_FIRST_A]
                state[values + 2] = state[hole + st.H_LAST_A]
            missing += 1
        write_need(m, slot, values)
    m.words[state[st.C_COUNTERS] + _HISTORY_MISSING] = missing
