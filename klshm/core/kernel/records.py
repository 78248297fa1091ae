"""Minute records and the ring of trades: finding, starting, and reading a bar off them."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.rows import copy_cells, has_row, history_at, record_at, restore, row_flags, row_state, symbol_at
from klshm.core.state import CLOSE, COUNT, HIGH, LOW, MINUTE, OPEN, SUMS, VOLUME
from klshm.shm.layout import (
    FLAG_CORRECTED,
    FLAG_FILLED,
    FLAG_LATE,
    FLAG_PARTIAL,
    STATE_CLOSED,
    STATE_CONFIRMED,
    STATE_LIVE,
)


__all__ = []


@compiled
def record_index(time):
    """Return which of the eight records a minute uses."""
    return ((time & st.PLACE) // MINUTE) & (st.RECORDS - 1)


@compiled
def find_record(m, slot, time):
    """Return the record of a minute, or -1 if there is none (any more)."""
    record = record_at(m, slot, record_index(time))
    return record if m.state[record + st.M_TIME] == time else st.NONE


@compiled
def oldest_minute(m, slot):
    """Return the oldest minute that may have a record."""
    return m.state[symbol_at(m, slot) + st.S_OPEN_MINUTE] - m.state[st.C_AMEND_MS]


@merged
def seed_record(m, slot, record):
    """Let a record that begins after its minute was closed (a restart) stand on the row in history.

    The bar as it was published is the base; trades alone cannot improve it any more.
    """
    state = m.state
    time = state[record + st.M_TIME]
    state[record + st.M_STATE] = STATE_CLOSED
    state[record + st.M_SETTLED] = 1
    state[record + st.M_PURE_CLEAN] = 0
    state[record + st.M_OWN] = 1
    if not has_row(m, slot, 0, time):
        state[record + st.M_HOLED] = st.FOREVER
        return
    at = history_at(m, slot, 0, time)
    flags = row_flags(m.words, at)
    state[record + st.M_STATE] = row_state(m.words, at)
    state[record + st.M_LATE] = 1 if flags & FLAG_LATE else 0
    state[record + st.M_CORRECTED] = 1 if flags & FLAG_CORRECTED else 0
    if flags & FLAG_FILLED == 0:
        restore(m, slot, at, record + st.M_BASE_CELLS)
        state[record + st.M_BASE] = st.BASE_REST
    elif state[record + st.M_STATE] == STATE_CONFIRMED:
        state[record + st.M_BASE] = st.BASE_EMPTY
    if flags & FLAG_PARTIAL:
        state[record + st.M_HOLED] = st.FOREVER


@compiled
def take_record(m, slot, time):
    """Return the record of a minute, started if need be; -1 if the minute is too old: history alone has it."""
    state = m.state
    if time < oldest_minute(m, slot):
        return st.NONE
    record = record_at(m, slot, record_index(time))
    if state[record + st.M_TIME] == time:
        return record
    for k in range(st.M_WORDS):
        state[record + k] = 0
    state[record + st.M_TIME] = time
    state[record + st.M_STATE] = STATE_LIVE
    state[record + st.M_BASE_L] = st.NONE
    state[record + st.M_OFF_L] = st.NONE
    state[record + st.M_CLEAN_L] = st.NONE
    state[record + st.M_FIRST] = st.NONE
    state[record + st.M_LAST] = st.NONE
    state[record + st.M_MULTI_L] = st.NONE
    state[record + st.M_PURE_CLEAN] = 1
    if time < state[symbol_at(m, slot) + st.S_OPEN_MINUTE]:
        seed_record(m, slot, record)
    return record


@compiled
def touch(m, slot, record):
    """Remember that a record changed in this event."""
    symbol = symbol_at(m, slot)
    m.state[symbol + st.S_TOUCHED] |= 1 << record_index(m.state[record + st.M_TIME])


@compiled
def is_final(m, record):
    """Return whether trades can add nothing to a record any more."""
    return m.state[record + st.M_BASE] >= st.BASE_FINAL


@compiled
def is_empty(m, record):
    """Return whether a record knows of no trade at all."""
    state = m.state
    base = state[record + st.M_BASE]
    if base == st.BASE_NONE:
        return state[record + st.M_HAS_TRADES] == 0
    return base == st.BASE_EMPTY or state[record + st.M_BASE_CELLS + COUNT] == 0


@compiled
def ring_at(m, slot, position):
    """Return the first state word of a ring entry; positions count from the symbol's first trade."""
    return (m.state[st.C_RING] + (slot * st.RING + (position & (st.RING - 1))) * st.R_WORDS) & st.PLACE


@compiled
def ring_first(m, slot):
    """Return the position of the oldest trade still in the ring."""
    return max(m.state[symbol_at(m, slot) + st.S_RING_COUNT] - st.RING, 0)


@compiled
def ring_search(m, slot, trade_id):
    """Return the position of the newest trade that begins at or before an id, or -1."""
    state = m.state
    low = ring_first(m, slot)
    high = state[symbol_at(m, slot) + st.S_RING_COUNT]
    first = low
    while low < high:
        middle = (low + high) // 2
        if state[ring_at(m, slot, middle) + st.R_F] <= trade_id:
            low = middle + 1
        else:
            high = middle
    return low - 1 if low > first else st.NONE


@compiled
def off_holds(m, slot, record):
    """Return whether a record's lower cut is exact and no hole lies between it and now."""
    state = m.state
    return (
        state[record + st.M_HAS_OFF] == 1
        and state[record + st.M_OFF_EXACT] == 1
        and state[record + st.M_OFF_EPOCH] == state[symbol_at(m, slot) + st.S_EPOCH]
    )


@compiled
def is_behind_base(m, record):
    """Return whether the trades held reach no further than the base."""
    state = m.state
    if state[record + st.M_BASE] == st.BASE_NONE:
        return False
    return is_final(m, record) or state[record + st.M_LAST] <= state[record + st.M_BASE_L]


@compiled
def is_split(m, slot, record):
    """Return whether the next minute's cut says exactly where this minute ends (BARS section 2, upper)."""
    state = m.state
    after = find_record(m, slot, state[record + st.M_TIME] + MINUTE)
    if after == st.NONE or state[record + st.M_HAS_TRADES] == 0 or is_behind_base(m, record):
        return False
    return (
        state[after + st.M_HAS_OFF] == 1
        and state[after + st.M_OFF_EXACT] == 1
        and state[record + st.M_HAS_OFF] == 1
        and state[record + st.M_OFF_EXACT] == 1
        and state[after + st.M_OFF_EPOCH] == state[record + st.M_OFF_EPOCH]
    )


@merged
def add_split_sums(m, slot, record, cells):
    """Read the sums of a minute that ends where the next one is known to begin.

    Only what the last group loses to the next minute is taken from there: the next minute's
    count holds ids that were never used, and must not correct this one's.
    """
    state = m.state
    after = find_record(m, slot, state[record + st.M_TIME] + MINUTE)
    crosses = state[after + st.M_OFF] != state[record + st.M_END]
    upper = after + st.M_OFF if crosses else record + st.M_END
    for k in range(SUMS):
        state[cells + VOLUME + k] = state[upper + k] - state[record + st.M_OFF + k]
    first = state[after + st.M_BASE_F]
    if crosses and state[after + st.M_BASE] != st.BASE_NONE and 0 < first <= state[record + st.M_LAST]:
        whole = state[record + st.M_END + COUNT - VOLUME] - state[record + st.M_OFF + COUNT - VOLUME]
        state[cells + COUNT] = whole - (state[record + st.M_LAST] - first + 1)


@compiled
def compose(m, slot, record, cells):
    """Read the bar off a record: the frame while it is ahead of the trades, else prefix minus offset.

    Args:
        m: The memory.
        slot: Local slot.
        record: The record; it must not be empty.
        cells: First state word of the nine cells to fill.
    """
    state = m.state
    if state[record + st.M_BASE] != st.BASE_NONE:
        copy_cells(m, cells, record + st.M_BASE_CELLS, st.CELLS)
        if is_behind_base(m, record):
            return
        state[cells + HIGH] = max(state[cells + HIGH], state[record + st.M_HIGH])
        state[cells + LOW] = min(state[cells + LOW], state[record + st.M_LOW])
        state[cells + CLOSE] = state[record + st.M_CLOSE]
    else:
        copy_cells(m, cells + OPEN, record + st.M_OPEN, VOLUME)
    if is_split(m, slot, record):
        add_split_sums(m, slot, record, cells)
        return
    for k in range(SUMS):
        state[cells + VOLUME + k] = state[record + st.M_END + k] - state[record + st.M_OFF + k]
