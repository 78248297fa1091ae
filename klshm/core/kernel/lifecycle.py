"""Symbols that join, come back after a restart, and leave, each in a slot of its own."""

from __future__ import annotations

from klshm.core import events as ev
from klshm.core import state as st
from klshm.core.compiled import compiled
from klshm.core.kernel.closing import list_slot, move_need
from klshm.core.kernel.folds import fold_at
from klshm.core.kernel.records import take_record
from klshm.core.kernel.rows import (
    copy_cells,
    has_row,
    live_at,
    pack,
    record_at,
    restore,
    row_flags,
    symbol_at,
    write_live,
)
from klshm.core.state import CLOSE, MINUTE, OPEN, SUMS, VOLUME
from klshm.shm.atomics import fence_release, store_relaxed, store_release
from klshm.shm.layout import (
    FLAG_FILLED,
    FLAG_PARTIAL,
    ROW_WORDS,
    STATE_EMPTY,
    W_EVENT_TIME,
    W_LAST_AGG_ID,
    W_LAST_TRADE_ID,
    W_OPEN_TIME,
    W_REVISION_SLOT,
)


__all__ = []


@compiled
def start_symbol(m, slot):
    """Set a symbol's private state to "nothing known"."""
    state = m.state
    symbol = symbol_at(m, slot)
    listed = state[symbol + st.S_LISTED]
    for k in range(st.S_WORDS):
        state[symbol + k] = 0
    for word in (
        st.S_LAST_A,
        st.S_LAST_L,
        st.S_DOUBT,
        st.S_UNFILLED,
        st.S_OPEN_MINUTE,
        st.S_LAST_CLOSE,
        st.S_FINAL_MINUTE,
        st.S_FINAL_L,
        st.S_FRAME_L,
        st.S_NEED_FROM,
        st.S_AHEAD_SINCE,
        st.S_BEHIND_SINCE,
    ):
        state[symbol + word] = st.NONE
    for interval in range(st.MAX_INTERVALS):
        state[symbol + st.S_UNLOGGED + interval] = st.NONE
    state[symbol + st.S_JOINED] = st.FOREVER
    state[symbol + st.S_LISTED] = listed
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        for k in range(st.M_WORDS):
            state[record + k] = 0
        state[record + st.M_TIME] = st.NONE
    for interval in range(state[st.C_INTERVALS]):
        state[fold_at(m, slot, interval) + st.F_TIME] = st.NONE


@compiled
def clear_row(m, at):
    """Empty a row in shared memory."""
    sequence = m.words[at] & ~1
    store_relaxed(m.words, at, sequence + 1)
    fence_release()
    for k in range(1, ROW_WORDS):
        m.words[at + k] = 0
    store_release(m.words, at, sequence + 2)


@compiled
def clear_slot(m, slot):
    """Remove what another symbol left in this slot's history and live rows."""
    state = m.state
    for interval in range(state[st.C_INTERVALS]):
        rows = state[st.C_HISTORY_ROWS + interval]
        first = state[st.C_HISTORY] + (state[st.C_HISTORY_BASE + interval] + slot * rows) * ROW_WORDS
        for index in range(rows):
            if m.words[first + index * ROW_WORDS + W_OPEN_TIME] != 0:
                clear_row(m, first + index * ROW_WORDS)
        clear_row(m, live_at(m, slot, interval))


@compiled
def resume_symbol(m, slot, live):
    """Go on from the live row that a killed worker left.

    Its sums and ids lie in one guarded row, so they belong together. What was missed since is
    known to the trade: contiguous, or a hole with exact bounds. Until then the minute is in doubt.
    """
    state, words = m.state, m.words
    symbol = symbol_at(m, slot)
    packed = words[live + ROW_WORDS - 1]
    state[symbol + st.S_PRICE_DECIMALS] = max(state[symbol + st.S_PRICE_DECIMALS], (packed >> 16) & 0xFF)
    state[symbol + st.S_QUANTITY_DECIMALS] = max(state[symbol + st.S_QUANTITY_DECIMALS], (packed >> 24) & 0xFF)
    time = words[live + W_OPEN_TIME]
    filled = row_flags(words, live) & FLAG_FILLED != 0
    state[symbol + st.S_OPEN_MINUTE] = time
    state[symbol + st.S_LAST_A] = words[live + W_LAST_AGG_ID]
    state[symbol + st.S_LAST_L] = words[live + W_LAST_TRADE_ID]
    state[symbol + st.S_LAST_EVENT] = words[live + W_EVENT_TIME]
    state[symbol + st.S_LAST_E] = words[live + W_EVENT_TIME]
    state[symbol + st.S_LAST_T] = time - 1 if filled else time
    state[symbol + st.S_LAST_MULTI] = 1
    state[symbol + st.S_DOUBT] = state[symbol + st.S_LAST_T]
    if state[symbol + st.S_LAST_A] != st.NONE:
        state[symbol + st.S_JOINED] = 0
    record = take_record(m, slot, time)
    cells = record + st.M_BASE_CELLS
    restore(m, slot, live, cells)
    state[symbol + st.S_LAST_CLOSE] = state[cells + CLOSE]
    if row_flags(words, live) & FLAG_PARTIAL != 0:
        state[record + st.M_HOLED] = st.FOREVER
    state[record + st.M_PURE_CLEAN] = 0
    if not filled:
        state[record + st.M_HAS_TRADES] = 1
        copy_cells(m, record + st.M_OPEN, cells + OPEN, VOLUME)
        copy_cells(m, record + st.M_END, cells + VOLUME, SUMS)
        copy_cells(m, symbol + st.S_PREFIX, cells + VOLUME, SUMS)
        copy_cells(m, symbol + st.S_START, cells + VOLUME, SUMS)
        state[record + st.M_HAS_END] = 1
        state[record + st.M_HAS_OFF] = 1
        state[record + st.M_FIRST] = state[symbol + st.S_LAST_L]
        state[record + st.M_LAST] = state[symbol + st.S_LAST_L]
        state[record + st.M_LAST_E] = state[symbol + st.S_LAST_E]
        state[record + st.M_LAST_MULTI] = 1
        state[record + st.M_MULTI_L] = state[symbol + st.S_LAST_L]
    need = time - (st.RECORDS * 8) * MINUTE
    while need < time and not has_row(m, slot, 0, need):
        need += MINUTE
    if need < time:
        state[symbol + st.S_NEED_FROM] = need
        move_need(m, slot)


@compiled
def add_symbol(m, slot, events, at):
    """Let a symbol join; if its live row is here from before a restart, go on from it."""
    state = m.state
    symbol = symbol_at(m, slot)
    live = live_at(m, slot, 0)
    global_slot = events[at + ev.E_L]
    if state[symbol + st.S_ACTIVE] == 1 and state[symbol + st.S_GLOBAL_SLOT] == global_slot:
        return  # told before: commands may be repeated
    start_symbol(m, slot)
    state[symbol + st.S_ACTIVE] = 1
    state[symbol + st.S_GLOBAL_SLOT] = global_slot
    state[symbol + st.S_ORIGIN] = events[at + ev.E_OPEN_TIME]
    state[symbol + st.S_PRICE_DECIMALS] = events[at + ev.E_PRICE_DECIMALS]
    state[symbol + st.S_QUANTITY_DECIMALS] = events[at + ev.E_QUANTITY_DECIMALS]
    if m.words[live + W_OPEN_TIME] != 0:
        if (m.words[live + W_REVISION_SLOT] >> 32) & 0xFFFF == global_slot:
            resume_symbol(m, slot, live)
            list_slot(m, slot)
            return
        clear_slot(m, slot)
    minute = state[st.C_NOW] // MINUTE * MINUTE
    state[symbol + st.S_OPEN_MINUTE] = minute
    list_slot(m, slot)


@compiled
def remove_symbol(m, slot):
    """Let a symbol leave; its history stays, its live rows say that nothing is live."""
    state = m.state
    symbol = symbol_at(m, slot)
    minute = state[symbol + st.S_OPEN_MINUTE]
    if minute != st.NONE:
        cells = record_at(m, slot, 0) + st.M_BASE_CELLS
        for interval in range(state[st.C_INTERVALS]):
            for k in range(st.CELLS):
                state[cells + k] = 0
            pack(m, slot, interval, 0, cells, STATE_EMPTY, 0, 0)
            write_live(m, slot, interval)
    start_symbol(m, slot)


@compiled
def set_origin(m, slot, time):
    """The exchange has nothing of a symbol before `time`: bars before it are not missing."""
    state = m.state
    symbol = symbol_at(m, slot)
    state[symbol + st.S_ORIGIN] = time
    for interval in range(state[st.C_INTERVALS]):
        state[fold_at(m, slot, interval) + st.F_TIME] = st.NONE
