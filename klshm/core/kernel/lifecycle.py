"""Symbols that join, come back after a restart, and leave, each in a slot of its own."""

from __future__ import annotations

from klshm.core import events as ev
from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import advance, log_late_changes
from klshm.core.kernel.folds import fold_at, refold, refold_if_whole, scratch
from klshm.core.kernel.minutes import flatten, move_need
from klshm.core.kernel.records import is_empty, take_record
from klshm.core.kernel.rows import (
    has_row,
    history_at,
    list_slot,
    live_at,
    oldest_row,
    open_time_of,
    pack,
    record_at,
    restore,
    row_flags,
    row_slot,
    row_state,
    symbol_at,
    write_live,
)
from klshm.core.state import CLOSE, MINUTE
from klshm.shm.atomics import fence_release, store_relaxed, store_release
from klshm.shm.layout import (
    FLAG_FILLED,
    FLAG_PARTIAL,
    ROW_WORDS,
    STATE_CONFIRMED,
    STATE_EMPTY,
    W_EVENT_TIME,
    W_FLAGS,
    W_LAST_AGG_ID,
    W_LAST_TRADE_ID,
    W_OPEN_TIME,
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
        st.S_COVERED_L,
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
    state[symbol + st.S_STEADY] = st.FOREVER
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
def first_history_row(m, slot, interval):
    """Return the first segment word of a series in history."""
    state = m.state
    row = state[st.C_HISTORY_BASE + interval] + slot * state[st.C_HISTORY_ROWS + interval]
    return state[st.C_HISTORY] + row * ROW_WORDS


@merged
def clear_slot(m, slot):
    """Remove what another symbol left in this slot's history and live rows."""
    for interval in range(m.state[st.C_INTERVALS]):
        first = first_history_row(m, slot, interval)
        for at in range(first, first + m.state[st.C_HISTORY_ROWS + interval] * ROW_WORDS, ROW_WORDS):
            if m.words[at + W_OPEN_TIME] != 0:
                clear_row(m, at)
        clear_row(m, live_at(m, slot, interval))


@merged
def take_decimals(m, slot):
    """Give a symbol the finest decimals that any row of it was written with."""
    state = m.state
    symbol = symbol_at(m, slot)
    price, quantity = state[symbol + st.S_PRICE_DECIMALS], state[symbol + st.S_QUANTITY_DECIMALS]
    for interval in range(state[st.C_INTERVALS]):
        first = first_history_row(m, slot, interval)
        for at in range(first, first + state[st.C_HISTORY_ROWS + interval] * ROW_WORDS, ROW_WORDS):
            price = max(price, (m.words[at + W_FLAGS] >> 16) & 0xFF)
            quantity = max(quantity, (m.words[at + W_FLAGS] >> 24) & 0xFF)
        live = live_at(m, slot, interval)
        price = max(price, (m.words[live + W_FLAGS] >> 16) & 0xFF)
        quantity = max(quantity, (m.words[live + W_FLAGS] >> 24) & 0xFF)
    state[symbol + st.S_PRICE_DECIMALS] = price
    state[symbol + st.S_QUANTITY_DECIMALS] = quantity


@merged
def resume_minute(m, slot, live, time):
    """Let the open minute stand on its own live row, as if that were a frame of the exchange.

    Its ids lie in the same guarded row, so they belong to its sums: a trade up to them adds nothing.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    record = take_record(m, slot, time)
    cells = record + st.M_BASE_CELLS
    restore(m, slot, live, cells)
    state[symbol + st.S_LAST_CLOSE] = state[cells + CLOSE]
    state[record + st.M_PURE_CLEAN] = 0
    state[record + st.M_OWN] = 1
    flags = row_flags(m.words, live)
    if flags & FLAG_PARTIAL != 0:
        state[record + st.M_HOLED] = state[symbol + st.S_COVERED_L] + 1
    if flags & FLAG_FILLED == 0:
        state[record + st.M_BASE] = st.BASE_FRAME
        state[record + st.M_BASE_F] = st.NONE
        state[record + st.M_BASE_L] = state[symbol + st.S_COVERED_L]
        state[record + st.M_PEND] = st.PEND_NEW


@merged
def resume_symbol(m, slot, live):
    """Go on from the live row that a killed worker left.

    What was missed since is known to the next trade: contiguous, or a hole with exact bounds.
    Until then the stream is in doubt. If history holds the row's minute already, the worker was
    killed between the two: the next minute is open, and what it had of it is in the hole.
    """
    state, words = m.state, m.words
    symbol = symbol_at(m, slot)
    time = words[live + W_OPEN_TIME]
    state[symbol + st.S_LAST_A] = words[live + W_LAST_AGG_ID]
    state[symbol + st.S_LAST_L] = words[live + W_LAST_TRADE_ID]
    state[symbol + st.S_COVERED_L] = words[live + W_LAST_TRADE_ID]
    state[symbol + st.S_LAST_EVENT] = words[live + W_EVENT_TIME]
    state[symbol + st.S_LAST_E] = words[live + W_EVENT_TIME]
    state[symbol + st.S_LAST_T] = time - 1 if row_flags(words, live) & FLAG_FILLED != 0 else time
    state[symbol + st.S_DOUBT] = state[symbol + st.S_LAST_T]
    if state[symbol + st.S_LAST_A] != st.NONE:
        state[symbol + st.S_JOINED] = 0
    closed = time
    while has_row(m, slot, 0, closed):
        closed += MINUTE
    state[symbol + st.S_OPEN_MINUTE] = closed
    if closed == time:
        resume_minute(m, slot, live, time)


@merged
def resume_needs(m, slot):
    """Ask again for what history lacks or holds unconfirmed, from the oldest bar on that it holds."""
    first, end = oldest_row(m, slot, 0), m.state[symbol_at(m, slot) + st.S_OPEN_MINUTE]
    while first < end and not has_row(m, slot, 0, first):
        first += MINUTE
    m.state[symbol_at(m, slot) + st.S_NEED_FROM] = first
    move_need(m, slot)


@merged
def resume_folds(m, slot):
    """Bring every closed bar up to date that may lack a change below it: the worker was killed between the two."""
    state = m.state
    symbol = symbol_at(m, slot)
    for interval in range(1, state[st.C_INTERVALS]):
        length = state[st.C_LENGTH + interval]
        first = open_time_of(m, interval, oldest_row(m, slot, interval) + length - 1)
        first = max(first, open_time_of(m, interval, state[symbol + st.S_ORIGIN]))
        for time in range(first, state[symbol + st.S_OPEN_MINUTE] - length + 1, length):
            confirmed = row_state(m.words, history_at(m, slot, interval, time)) == STATE_CONFIRMED
            if not (confirmed and has_row(m, slot, interval, time)):
                refold_if_whole(m, slot, interval, time, True, st.NONE)


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
    state[symbol + st.S_OPEN_MINUTE] = state[st.C_NOW] // MINUTE * MINUTE
    list_slot(m, slot)
    if m.words[live] != 0 and row_slot(m.words, live) != global_slot:
        clear_slot(m, slot)
        return
    take_decimals(m, slot)
    if m.words[live + W_OPEN_TIME] != 0:
        resume_symbol(m, slot, live)
        resume_folds(m, slot)
    resume_needs(m, slot)


@merged
def close_last_bars(m, slot):
    """Close what is open of a symbol that leaves, if it holds anything, however short of its end."""
    state = m.state
    minute = state[symbol_at(m, slot) + st.S_OPEN_MINUTE]
    record = take_record(m, slot, minute)
    if not is_empty(m, record):
        advance(m, slot, minute + MINUTE)
    log_late_changes(m, slot)
    for interval in range(1, state[st.C_INTERVALS]):
        refold(m, slot, interval, open_time_of(m, interval, minute), True)


@compiled
def remove_symbol(m, slot):
    """Let a symbol leave; its history stays, its live rows say that nothing is live."""
    state = m.state
    close_last_bars(m, slot)
    cells = scratch(m, 1)
    flatten(m, cells, 0)
    for interval in range(state[st.C_INTERVALS]):
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
    move_need(m, slot)
    list_slot(m, slot)
