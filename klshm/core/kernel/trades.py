"""One aggregate trade, from its identity to the minute it belongs to."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import advance, amend_touched, catch_up, settle_minute
from klshm.core.kernel.fills import fill_hole
from klshm.core.kernel.holes import can_fill, find_hole, open_hole
from klshm.core.kernel.intake import is_far_ahead, is_reset, push_trade, reset_ids
from klshm.core.kernel.match import add_pure
from klshm.core.kernel.proof import ends_by, prove_empty_before
from klshm.core.kernel.records import find_record, is_final, ring_at, ring_first, take_record, touch
from klshm.core.kernel.rows import copy_cells, count, record_at, symbol_at
from klshm.core.kernel.splice import hold_trade, pass_cut_from, put_off, settle_frame
from klshm.core.kernel.steady import note_steady
from klshm.core.kernel.stored import lose_trade
from klshm.core.kernel.watch import note_streams, remember_newest
from klshm.core.state import CELLS, MINUTE, SUMS
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


@merged
def first_offset(m, slot, record, before, previous_e, previous_l, whole):
    """Set a minute's offset from its first trade: the prefix before it.

    Exact if the trade before cannot reach into this minute: it was sent before the minute began,
    or the minute before is final and ends with it.
    """
    start = m.state[record + st.M_TIME]
    cannot_reach = previous_e < start or ends_by(m, slot, start - MINUTE, previous_l)
    exact = 1 if whole and cannot_reach else 0
    put_off(m, slot, record, before, m.state[symbol_at(m, slot) + st.S_EPOCH], exact, st.NONE)


@merged
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


@merged
def note_next(m, slot, time, previous_e):
    """A trade of a later minute has come without a gap: what ended before is complete."""
    state = m.state
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        earlier = state[record + st.M_TIME]
        if earlier == st.NONE or earlier >= time or state[record + st.M_NEXT_SEEN] == 1:
            continue
        state[record + st.M_NEXT_SEEN] = 1
        touch(m, slot, record)
        if state[record + st.M_STATE] == STATE_CLOSED and previous_e < earlier + MINUTE:
            settle_minute(m, slot, record)


@merged
def is_out_of_order(m, slot, f):
    """Return whether a trade id is not beyond those of the trades held, as every next one's is."""
    state = m.state
    newest = state[symbol_at(m, slot) + st.S_RING_COUNT] - 1
    return newest >= ring_first(m, slot) and f <= state[ring_at(m, slot, newest) + st.R_L]


@merged
def place_newest(m, slot, entry, sums, before, previous_e, previous_l, whole):
    """Let the newest trade take effect in its minute and in those around it.

    Args:
        m: The memory.
        slot: Local slot.
        entry: First state word of its ring entry.
        sums: First state word of its own sums.
        before: First state word of the prefix before it.
        previous_e: Event time of the trade before.
        previous_l: Last trade id of the trade before.
        whole: Whether nothing is missing between the two.
    """
    state = m.state
    f, T = state[entry + st.R_F], state[entry + st.R_T]
    pure = take_record(m, slot, T // MINUTE * MINUTE)
    if pure != st.NONE:
        add_pure(m, pure, state[entry + st.R_PRICE], sums)
    time = place_of(m, slot, f, T)
    record = take_record(m, slot, time)
    if record == st.NONE:
        lose_trade(m, slot, time)
        return
    if not is_final(m, record):
        if state[record + st.M_HAS_OFF] == 0:
            first_offset(m, slot, record, before, previous_e, previous_l, whole)
        hold_trade(m, record, entry)
        touch(m, slot, record)
        settle_frame(m, slot, record)
    if whole:
        note_next(m, slot, time, previous_e)
    pass_cut_from(m, slot, time - MINUTE)
    pass_cut_from(m, slot, time)
    following = find_record(m, slot, time + MINUTE)
    if following != st.NONE:
        settle_frame(m, slot, following)
    if time > state[symbol_at(m, slot) + st.S_OPEN_MINUTE]:
        advance(m, slot, time)


@merged
def apply_old(m, slot, a, f, l, T, E, price, quantity, sums):
    """Apply a trade that is not newer than all others: it fills a hole, or it is a duplicate.

    Returns:
        Whether it proves that ids have started anew.
    """
    hole = find_hole(m, slot, a)
    if hole == st.NONE:
        count(m, _DUPLICATES, 1)
        return is_reset(m, slot, T)
    if not can_fill(m, slot, hole, a, f, l):
        count(m, _REFUSED, 1)
        return False
    count(m, _TRADES, 1)
    fill_hole(m, slot, hole, place_of(m, slot, f, T), a, f, l, T, E, price, quantity, sums)
    return False


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
    if state[symbol + st.S_LAST_A] != st.NONE and a <= state[symbol + st.S_LAST_A]:
        if not apply_old(m, slot, a, f, l, T, E, price, quantity, sums):
            return
        reset_ids(m, slot, T)
    elif is_out_of_order(m, slot, f) or is_far_ahead(m, slot, l):
        count(m, _REFUSED, 1)
        return
    count(m, _TRADES, 1)
    catch_up(m, slot, T)
    last_a, previous_e, previous_l = (
        state[symbol + st.S_LAST_A],
        state[symbol + st.S_LAST_E],
        state[symbol + st.S_LAST_L],
    )
    whole = last_a != st.NONE and a == last_a + 1
    if whole:
        prove_empty_before(m, slot, T)
    elif last_a != st.NONE:
        open_hole(m, slot, a, f, T)
    clear_doubt(m, slot)
    before = state[st.C_SCRATCH] + 5 * CELLS
    copy_cells(m, before, symbol + st.S_PREFIX, SUMS)
    entry = push_trade(m, slot, f, l, T, E, price, quantity, sums)
    remember_newest(m, slot, a, l, T, E)
    note_streams(m, slot, T, l)
    place_newest(m, slot, entry, sums, before, previous_e, previous_l, whole)
    amend_touched(m, slot)
    note_steady(m, slot, f, T // MINUTE * MINUTE, whole)
