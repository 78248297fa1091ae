"""A trade that was missing: it goes where its id belongs, and everything after it moves by its sums."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import amend_touched
from klshm.core.kernel.holes import hole_at, lose_ids, shrink_hole
from klshm.core.kernel.intake import insert_trade, rejoin_epochs, shift_sums
from klshm.core.kernel.proof import ends_by
from klshm.core.kernel.records import find_record, is_final, ring_at, ring_first, ring_search, touch
from klshm.core.kernel.rows import record_at, symbol_at
from klshm.core.kernel.splice import hold_trade, pass_cut_from, prefix_before, put_off, settle_frame
from klshm.core.state import MINUTE, SUMS


__all__ = []


@merged
def shift_records(m, slot, time, f, l, sums):
    """Move the prefixes that minutes keep, where they lie after a trade that belongs to minute `time`."""
    state = m.state
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        minute = state[record + st.M_TIME]
        if minute == st.NONE:
            continue
        if state[record + st.M_HAS_TRADES] == 1 and state[record + st.M_LAST] > l:
            shift_sums(m, record + st.M_END, sums)
            touch(m, slot, record)
        official_id = state[record + st.M_OFF_L]
        if state[record + st.M_HAS_OFF] == 1 and (minute > time or (minute == time and official_id >= f)):
            shift_sums(m, record + st.M_OFF, sums)
            if minute == time and official_id < l:  # the frame that measured it cuts this trade
                state[record + st.M_OFF_EXACT] = 0
            touch(m, slot, record)


@merged
def fill_record(m, slot, record, position, f, l, price, sums):
    """Let a minute hold a trade that is older than others it may hold."""
    state = m.state
    touch(m, slot, record)
    if l > f:
        state[record + st.M_MULTI_L] = max(state[record + st.M_MULTI_L], l)
    newest = state[record + st.M_HAS_TRADES] == 0 or state[record + st.M_LAST] < f
    if position == st.NONE and (newest or state[record + st.M_OWN] == 1):
        time = state[record + st.M_TIME]  # where it lies in the prefix is not held any more
        lose_ids(m, slot, time, time, l + 1)
        return
    if newest:
        entry = ring_at(m, slot, position)
        if state[record + st.M_HAS_OFF] == 0:
            put_off(m, slot, record, prefix_before(m, slot, position), state[entry + st.R_EPOCH], 0, st.NONE)
        hold_trade(m, record, entry)
        return
    if f < state[record + st.M_FIRST]:
        if state[record + st.M_OFF_L] == st.NONE:
            state[record + st.M_OFF_EXACT] = 0
        state[record + st.M_FIRST] = f
        state[record + st.M_OPEN] = price
    state[record + st.M_HIGH] = max(state[record + st.M_HIGH], price)
    state[record + st.M_LOW] = min(state[record + st.M_LOW], price)


@merged
def find_off_again(m, slot, record):
    """Find a minute's offset again now that no hole is left: from its last clean frame, or from its first trade."""
    state = m.state
    symbol = symbol_at(m, slot)
    epoch = state[symbol + st.S_EPOCH]
    clean = state[record + st.M_CLEAN_L]
    position = ring_search(m, slot, clean)
    if clean != st.NONE and position != st.NONE and state[ring_at(m, slot, position) + st.R_L] == clean:
        entry = ring_at(m, slot, position)
        sums = state[st.C_SCRATCH] + 7 * st.CELLS
        for k in range(SUMS):
            state[sums + k] = state[entry + st.R_PREFIX + k] - state[record + st.M_CLEAN_SUMS + k]
        put_off(m, slot, record, sums, state[entry + st.R_EPOCH], 1, clean)
        return
    if state[record + st.M_HAS_TRADES] == 0:
        return
    if state[record + st.M_OFF_EXACT] == 1 and state[record + st.M_FIRST] >= state[symbol + st.S_UNFILLED]:
        state[record + st.M_OFF_EPOCH] = epoch
        return
    position = ring_search(m, slot, state[record + st.M_FIRST])
    if position <= ring_first(m, slot):
        return
    before = ring_at(m, slot, position - 1)
    start = state[record + st.M_TIME]
    gapless = state[before + st.R_EPOCH] == epoch and state[ring_at(m, slot, position) + st.R_EPOCH] == epoch
    cannot_reach = state[before + st.R_E] < start or ends_by(m, slot, start - MINUTE, state[before + st.R_L])
    if gapless and state[before + st.R_T] < start and cannot_reach:
        put_off(m, slot, record, before + st.R_PREFIX, epoch, 1, st.NONE)


@merged
def meet_again(m, slot):
    """Let every minute's base frame meet the trades again after a hole was filled."""
    state = m.state
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        if state[record + st.M_TIME] == st.NONE:
            continue
        if state[record + st.M_BASE] == st.BASE_FRAME and state[record + st.M_PEND] == st.PEND_NO:
            state[record + st.M_PEND] = st.PEND_AGAIN
        settle_frame(m, slot, record)


@compiled
def fill_hole(m, slot, index, time, a, f, l, T, E, price, quantity, sums):
    """Apply a trade that was missing.

    Args:
        m: The memory.
        slot: Local slot.
        index: Index of the hole it lies in.
        time: Open time of the minute it belongs to.
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
    hole = hole_at(m, slot, index)
    follows, precedes = a == state[hole + st.H_FIRST_A], a == state[hole + st.H_LAST_A]
    position = insert_trade(m, slot, f, l, T, E, price, quantity, sums, follows, precedes)
    shift_records(m, slot, time, f, l, sums)
    record = find_record(m, slot, time)
    if record != st.NONE and not is_final(m, record):
        fill_record(m, slot, record, position, f, l, price, sums)
    if shrink_hole(m, slot, index, a, f, l, T):
        rejoin_epochs(m, slot)
        for each in range(st.RECORDS):
            found = record_at(m, slot, each)
            if state[found + st.M_TIME] != st.NONE:
                touch(m, slot, found)
                find_off_again(m, slot, found)
    meet_again(m, slot)
    pass_cut_from(m, slot, time - MINUTE)
    pass_cut_from(m, slot, time)
    amend_touched(m, slot)
