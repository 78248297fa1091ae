"""One aggregate trade, from its identity to the minute it belongs to."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled
from klshm.core.kernel.closing import advance, amend_touched, list_slot, prove_empty_before, settle_minute
from klshm.core.kernel.intake import (
    can_fill,
    find_hole,
    insert_trade,
    is_reset,
    open_hole,
    push_trade,
    rejoin_epochs,
    reset_ids,
    shift_sums,
    shrink_hole,
)
from klshm.core.kernel.records import find_record, is_final, ring_at, take_record, touch
from klshm.core.kernel.rows import copy_cells, count, record_at, symbol_at
from klshm.core.kernel.splice import hold_trade, pass_cut, settle_frame
from klshm.core.state import CELLS, CLOSE, HIGH, LOW, MINUTE, SUMS, VOLUME
from klshm.shm.counters import WORKER
from klshm.shm.layout import STATE_CLOSED


__all__ = []

_TRADES = WORKER.index("trades_total")
_DUPLICATES = WORKER.index("duplicates_total")
_REFUSED = WORKER.index("refused_total")
_ID_BEATS_TIME = WORKER.index("id_beats_time_total")


@compiled
def place_of(m, slot, f, T):
    """Return the minute a trade belongs to: by time, but never into one that its id is beyond."""
    state = m.state
    time = T // MINUTE * MINUTE
    record = find_record(m, slot, time)
    while record != st.NONE and state[record + st.M_BASE] == st.BASE_FINAL and f > state[record + st.M_BASE_L]:
        count(m, _ID_BEATS_TIME, 1)
        time += MINUTE
        record = find_record(m, slot, time)
    return time


@compiled
def add_pure(m, record, price, sums, newest):
    """Count a trade by its time alone, as a plain aggregation would (for the published match rate)."""
    state = m.state
    pure = record + st.M_PURE
    if state[pure + VOLUME] == 0:
        for k in range(VOLUME):
            state[pure + k] = price
    state[pure + HIGH] = max(state[pure + HIGH], price)
    state[pure + LOW] = min(state[pure + LOW], price)
    if newest:
        state[pure + CLOSE] = price
    for k in range(SUMS):
        state[pure + VOLUME + k] += state[sums + k]


@compiled
def scratch_sums(m):
    """Return five state words for a prefix."""
    return m.state[st.C_SCRATCH] + 5 * CELLS


@compiled
def first_offset(m, slot, record, before, previous_e, previous_l, whole):
    """Set a minute's offset from its first trade: the prefix before it.

    Exact if the trade before cannot reach into this minute: it was sent before the minute began,
    or the minute before is final and ends with it.
    """
    state = m.state
    start = state[record + st.M_TIME]
    earlier = find_record(m, slot, start - MINUTE)
    ends_there = (
        earlier != st.NONE
        and state[earlier + st.M_BASE] == st.BASE_FINAL
        and previous_l != st.NONE
        and previous_l <= state[earlier + st.M_BASE_L]
    )
    exact = 1 if whole and (previous_e < start or ends_there) else 0
    for k in range(SUMS):
        state[record + st.M_OFF + k] = state[before + k]
    state[record + st.M_HAS_OFF] = 1
    state[record + st.M_OFF_EXACT] = exact
    state[record + st.M_OFF_EPOCH] = state[symbol_at(m, slot) + st.S_EPOCH]
    state[record + st.M_OFF_FROM_FRAME] = 0


@compiled
def clear_doubt(m, slot):
    """A trade has come: the stream lives; if it missed any, the ids say so."""
    state = m.state
    symbol = symbol_at(m, slot)
    if state[symbol + st.S_DOUBT] == st.NONE:
        return
    state[symbol + st.S_DOUBT] = st.NONE
    for index in range(st.RECORDS):
        if state[record_at(m, slot, index) + st.M_TIME] != st.NONE:
            state[symbol + st.S_TOUCHED] |= 1 << index


@compiled
def note_streams(m, slot, T, l):
    """Watch whether trades and official frames keep up with each other (BARS section 5)."""
    state = m.state
    symbol = symbol_at(m, slot)
    if l >= state[symbol + st.S_FRAME_L]:
        state[symbol + st.S_AHEAD_SINCE] = st.NONE
    if T > state[symbol + st.S_FRAME_E] + 500 and state[symbol + st.S_BEHIND_SINCE] == st.NONE:
        state[symbol + st.S_BEHIND_SINCE] = state[st.C_NOW]


@compiled
def note_next(m, slot, time, whole, previous_e, previous_l):
    """A trade of a later minute has come without a gap: what ended before is complete."""
    state = m.state
    if not whole:
        return
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        earlier = state[record + st.M_TIME]
        if earlier == st.NONE or earlier >= time or state[record + st.M_NEXT_SEEN] == 1:
            continue
        state[record + st.M_NEXT_SEEN] = 1
        touch(m, slot, record)
        if state[record + st.M_STATE] == STATE_CLOSED and previous_e < earlier + MINUTE:
            settle_minute(m, slot, record)


@compiled
def pass_cut_from(m, slot, time):
    """Give a final minute's upper cut to the next, if the minute is known."""
    record = find_record(m, slot, time)
    if record != st.NONE:
        pass_cut(m, slot, record)


@compiled
def fill_record(m, slot, record, position, f, l, price, sums):
    """Let a minute hold a trade that is older than others it may hold."""
    state = m.state
    base_l = state[record + st.M_BASE_L]
    if state[record + st.M_HAS_TRADES] == 0 or state[record + st.M_LAST] < f:
        if position != st.NONE:
            entry = ring_at(m, slot, position)
            if state[record + st.M_HAS_OFF] == 0:
                for k in range(SUMS):
                    state[record + st.M_OFF + k] = state[entry + st.R_PREFIX + k] - state[sums + k]
                state[record + st.M_HAS_OFF] = 1
                state[record + st.M_OFF_EXACT] = 0
                state[record + st.M_OFF_EPOCH] = state[entry + st.R_EPOCH]
            hold_trade(m, record, entry)
        return
    if f < state[record + st.M_FIRST]:
        # A cut below this trade was measured before it was here only if a frame covers it.
        if base_l < f and state[record + st.M_OFF_FROM_FRAME] == 0:
            state[record + st.M_OFF_EXACT] = 0
        state[record + st.M_FIRST] = f
        state[record + st.M_OPEN] = price
    state[record + st.M_HIGH] = max(state[record + st.M_HIGH], price)
    state[record + st.M_LOW] = min(state[record + st.M_LOW], price)


@compiled
def fill_hole(m, slot, hole, a, f, l, T, E, price, quantity, sums):
    """Apply a trade that was missing."""
    state = m.state
    count(m, _TRADES, 1)
    position = insert_trade(m, slot, f, l, T, E, price, quantity, sums)
    time = place_of(m, slot, f, T)
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        minute = state[record + st.M_TIME]
        if minute == st.NONE or is_final(m, record):
            continue
        measured = state[record + st.M_OFF_FROM_FRAME] == 1 and state[record + st.M_CLEAN_L] >= l
        if state[record + st.M_HAS_OFF] == 1 and (minute > time or (minute == time and measured)):
            shift_sums(m, record + st.M_OFF, sums)
        if state[record + st.M_HAS_END] == 1 and state[record + st.M_LAST] > l:
            shift_sums(m, record + st.M_END, sums)
        touch(m, slot, record)
    record = find_record(m, slot, time)
    if record != st.NONE:
        add_pure(m, record, price, sums, False)
        if not is_final(m, record):
            fill_record(m, slot, record, position, f, l, price, sums)
            if shrink_hole(m, slot, hole, a, f, l, T):
                rejoin_epochs(m, slot)
            settle_frame(m, slot, record)
            pass_cut_from(m, slot, time - MINUTE)
            amend_touched(m, slot)
            list_slot(m, slot)
            return
    if shrink_hole(m, slot, hole, a, f, l, T):
        rejoin_epochs(m, slot)
    pass_cut_from(m, slot, time)
    amend_touched(m, slot)
    list_slot(m, slot)


@compiled
def apply_trade(m, slot, a, f, l, T, E, price, quantity, sums):
    """Apply one aggregate trade.

    Args:
        m: The memory.
        slot: Local slot.
        a: Aggregate trade id.
        f: First trade id.
        l: Last trade id.
        T: Time of its first fill, ms.
        E: Event time, ms.
        price: In units of the symbol's decimals.
        quantity: In units of the symbol's decimals.
        sums: First state word of its volume, quote, taker volume, taker quote and count.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    last_a = state[symbol + st.S_LAST_A]
    if last_a != st.NONE and a <= last_a:
        hole = find_hole(m, slot, a)
        if hole != st.NONE:
            if can_fill(m, slot, hole, a):
                fill_hole(m, slot, hole, a, f, l, T, E, price, quantity, sums)
            else:
                count(m, _REFUSED, 1)
            return
        count(m, _DUPLICATES, 1)
        if not is_reset(m, slot, T):
            return
        reset_ids(m, slot, T)
        last_a = st.NONE
    count(m, _TRADES, 1)
    state[symbol + st.S_RESETS] = 0
    whole = last_a != st.NONE and a == last_a + 1
    if last_a != st.NONE and not whole:
        open_hole(m, slot, a, f, T)
    if state[symbol + st.S_JOINED] == st.FOREVER:
        state[symbol + st.S_JOINED] = T
    clear_doubt(m, slot)
    previous_e, previous_l = state[symbol + st.S_LAST_E], state[symbol + st.S_LAST_L]
    if whole:
        prove_empty_before(m, slot, T)
    before = scratch_sums(m)
    copy_cells(m, before, symbol + st.S_PREFIX, SUMS)
    entry = push_trade(m, slot, f, l, T, E, price, quantity, sums)
    state[symbol + st.S_LAST_A] = a
    state[symbol + st.S_LAST_L] = l
    state[symbol + st.S_LAST_T] = T
    state[symbol + st.S_LAST_E] = E
    state[symbol + st.S_LAST_MULTI] = 1 if l > f else 0
    note_streams(m, slot, T, l)
    time = place_of(m, slot, f, T)
    record = take_record(m, slot, time)
    if record != st.NONE:
        pure = find_record(m, slot, T // MINUTE * MINUTE)
        if pure != st.NONE:
            add_pure(m, pure, price, sums, True)
        if not is_final(m, record):
            if state[record + st.M_HAS_OFF] == 0:
                first_offset(m, slot, record, before, previous_e, previous_l, whole)
            hold_trade(m, record, entry)
            touch(m, slot, record)
            settle_frame(m, slot, record)
        note_next(m, slot, time, whole, previous_e, previous_l)
        pass_cut_from(m, slot, time - MINUTE)
        pass_cut_from(m, slot, time)
    if time > state[symbol + st.S_OPEN_MINUTE]:
        advance(m, slot, time)
    amend_touched(m, slot)
    list_slot(m, slot)
