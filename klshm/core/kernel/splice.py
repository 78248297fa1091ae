"""The splice: where in the running prefix of all trades a minute begins (BARS section 2).

``bar(minute) = prefix(now) - offset(minute)``, or the official frame while it is ahead of the
trades. A frame whose last trade id L ends an aggregate trade *measures* the offset. One that
cuts a group in two leaves an exact offset alone: the rest of the group is then exact too. At
the minute end the cut passes on to the next minute.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.records import (
    find_record,
    is_empty,
    is_final,
    off_holds,
    ring_at,
    ring_first,
    ring_search,
    take_record,
    touch,
)
from klshm.core.kernel.rows import copy_cells, count, symbol_at
from klshm.core.state import MINUTE, SUMS, VOLUME
from klshm.shm.counters import WORKER


__all__ = []

_CLEAN = WORKER.index("frames_clean_total")
_CLEAN_EQUAL = WORKER.index("frames_clean_equal_total")
_CLEAN_EQUAL_COUNT = WORKER.index("frames_clean_equal_count_total")
_CUT = WORKER.index("frames_cut_total")
_CUT_EXACT = WORKER.index("frames_cut_exact_total")
_CUT_UNRESOLVED = WORKER.index("frames_cut_unresolved_total")
_SKIPPED = WORKER.index("frames_skipped_total")


@merged
def touch_with_before(m, slot, record):
    """Remember that a minute changed, and the one before it, which may end where this one begins."""
    touch(m, slot, record)
    before = find_record(m, slot, m.state[record + st.M_TIME] - MINUTE)
    if before != st.NONE:
        touch(m, slot, before)


@compiled
def put_off(m, slot, record, sums, epoch, exact, official_id):
    """Set a minute's offset.

    Args:
        m: The memory.
        slot: Local slot.
        record: The minute's record.
        sums: First state word of the prefix at its lower cut.
        epoch: In which it was measured.
        exact: Whether it is known to be right.
        official_id: Last trade id of the frame that measured it, -1: none did.
    """
    state = m.state
    changed = state[record + st.M_HAS_OFF] == 0 or state[record + st.M_OFF_EXACT] != exact
    for k in range(SUMS):
        changed = changed or state[record + st.M_OFF + k] != state[sums + k]
        state[record + st.M_OFF + k] = state[sums + k]
    state[record + st.M_HAS_OFF] = 1
    state[record + st.M_OFF_EXACT] = exact
    state[record + st.M_OFF_EPOCH] = epoch
    state[record + st.M_OFF_L] = official_id
    if changed:
        touch_with_before(m, slot, record)


@compiled
def prefix_before(m, slot, position):
    """Return the first state word of the prefix before a ring position."""
    if position == ring_first(m, slot):
        return symbol_at(m, slot) + st.S_START
    return ring_at(m, slot, position - 1) + st.R_PREFIX


@compiled
def measure(m, slot, record, prefix, epoch, exact):
    """Set a minute's offset so that its base frame ends at a prefix; our own row measures nothing exactly."""
    state = m.state
    sums = state[st.C_SCRATCH] + 7 * st.CELLS
    for k in range(SUMS):
        state[sums + k] = state[prefix + k] - state[record + st.M_BASE_CELLS + VOLUME + k]
    exact = 0 if state[record + st.M_OWN] == 1 else exact
    put_off(m, slot, record, sums, epoch, exact, state[record + st.M_BASE_L])
    if exact == 1:
        state[record + st.M_CLEAN_L] = state[record + st.M_BASE_L]
        copy_cells(m, record + st.M_CLEAN_SUMS, record + st.M_BASE_CELLS + VOLUME, SUMS)


@merged
def measure_by_first(m, slot, record):
    """Find a minute's lower cut if the first trade id its frame names begins a trade we hold, or follows one."""
    state = m.state
    first = state[record + st.M_BASE_F]
    if first < 0 or state[record + st.M_OWN] == 1:
        return
    position = ring_search(m, slot, first - 1) + 1
    if position == 0:
        position = ring_first(m, slot)
    if position >= state[symbol_at(m, slot) + st.S_RING_COUNT]:
        return
    after = ring_at(m, slot, position)
    if position == ring_first(m, slot):
        if state[after + st.R_F] != first or position > 0:
            return
    else:
        before = ring_at(m, slot, position - 1)
        gapless = state[before + st.R_EPOCH] == state[after + st.R_EPOCH]
        if state[before + st.R_L] >= first or (state[after + st.R_F] != first and not gapless):
            return
    put_off(m, slot, record, prefix_before(m, slot, position), state[after + st.R_EPOCH], 1, st.NONE)


@compiled
def off_known(m, record, entry):
    """Return whether a minute's offset is exact and in one epoch with a trade."""
    state = m.state
    return (
        state[record + st.M_HAS_OFF] == 1
        and state[record + st.M_OFF_EXACT] == 1
        and state[record + st.M_OFF_EPOCH] == state[entry + st.R_EPOCH]
    )


@merged
def meet_beyond_hole(m, slot, record, position):
    """Let a frame meet the trades on both sides of its last id, which itself was missed.

    Exact if the next trade's ids begin right after the frame's last.
    """
    state = m.state
    following = ring_at(m, slot, position)
    exact = 1 if state[following + st.R_F] == state[record + st.M_BASE_L] + 1 else 0
    measure(m, slot, record, prefix_before(m, slot, position), state[following + st.R_EPOCH], exact)


@merged
def meet_clean(m, slot, record, entry, again):
    """Let a frame that ends with a trade measure the offset; if that was known, check it."""
    state = m.state
    if not again:
        count(m, _CLEAN, 1)
        if off_known(m, record, entry):
            wrong = 0
            for k in range(SUMS):
                off = state[entry + st.R_PREFIX + k] - state[record + st.M_BASE_CELLS + VOLUME + k]
                if off != state[record + st.M_OFF + k]:
                    wrong |= 1 if k == SUMS - 1 else 2
            count(m, _CLEAN_EQUAL, 1 if wrong < 2 else 0)
            count(m, _CLEAN_EQUAL_COUNT, 1 if wrong == 0 else 0)
    measure(m, slot, record, entry + st.R_PREFIX, state[entry + st.R_EPOCH], 1)


@merged
def meet_cut(m, slot, record, entry, again):
    """Let a frame that ends inside a trade leave the offset alone: the rest of the trade is then as exact as that.

    An offset that is not exact leaves out what it does not know. As long as it agrees with the
    frame, it says more than the frame alone: the bar does not fall.
    """
    state = m.state
    if not off_known(m, record, entry):
        measure_by_first(m, slot, record)
    base, off = record + st.M_BASE_CELLS + VOLUME, record + st.M_OFF
    same_epoch = state[record + st.M_HAS_OFF] == 1 and state[record + st.M_OFF_EPOCH] == state[entry + st.R_EPOCH]
    rest = state[entry + st.R_PREFIX] - state[off] - state[base]
    agrees = same_epoch and 0 < rest < state[entry + st.R_QUANTITY]
    if not again:
        count(m, _CUT, 1)
        count(m, _CUT_EXACT if agrees and off_known(m, record, entry) else _CUT_UNRESOLVED, 1)
    if not agrees:
        measure(m, slot, record, entry + st.R_PREFIX, state[entry + st.R_EPOCH], 0)
        return
    # Ids may be skipped, so the count of the rest is known only as an upper bound.
    ids_left = state[entry + st.R_L] - state[record + st.M_BASE_L]
    state[off + SUMS - 1] = state[entry + st.R_PREFIX + SUMS - 1] - ids_left - state[base + SUMS - 1]


@compiled
def settle_frame(m, slot, record):
    """Let a pending base frame meet the trades: measure the offset, or check it."""
    state = m.state
    pending = state[record + st.M_PEND]
    if pending == st.PEND_NO:
        return
    last = state[record + st.M_BASE_L]
    position = ring_search(m, slot, last)
    if position == st.NONE and ring_first(m, slot) > 0:
        state[record + st.M_PEND] = st.PEND_NO  # older than the ring reaches back
        if pending == st.PEND_NEW:
            count(m, _SKIPPED, 1)
        return
    if position == st.NONE or state[ring_at(m, slot, position) + st.R_L] < last:
        if position + 1 < state[symbol_at(m, slot) + st.S_RING_COUNT]:
            state[record + st.M_PEND] = st.PEND_NO
            meet_beyond_hole(m, slot, record, position + 1)
        return  # otherwise the frame is ahead of the trades: the bar is the frame
    state[record + st.M_PEND] = st.PEND_NO
    entry = ring_at(m, slot, position)
    again = pending == st.PEND_AGAIN or state[record + st.M_OWN] == 1
    if state[entry + st.R_L] == last:
        meet_clean(m, slot, record, entry, again)
    else:
        meet_cut(m, slot, record, entry, again)


@merged
def take_tail(m, slot, record, entry):
    """Let a minute begin with the tail of a group that the minute before has been shown to share."""
    state = m.state
    price = state[entry + st.R_PRICE]
    if state[record + st.M_HAS_TRADES] == 1 and state[record + st.M_FIRST] <= state[entry + st.R_F]:
        return  # taken before
    touch(m, slot, record)
    if state[record + st.M_HAS_TRADES] == 0:
        state[record + st.M_HAS_TRADES] = 1
        state[record + st.M_HIGH] = price
        state[record + st.M_LOW] = price
        state[record + st.M_CLOSE] = price
        state[record + st.M_LAST] = state[entry + st.R_L]
        state[record + st.M_LAST_MULTI] = 1
        state[record + st.M_LAST_E] = state[entry + st.R_E]
        copy_cells(m, record + st.M_END, entry + st.R_PREFIX, SUMS)
    state[record + st.M_FIRST] = state[entry + st.R_F]
    state[record + st.M_OPEN] = price
    state[record + st.M_HIGH] = max(state[record + st.M_HIGH], price)
    state[record + st.M_LOW] = min(state[record + st.M_LOW], price)
    state[record + st.M_MULTI_L] = max(state[record + st.M_MULTI_L], state[entry + st.R_L])


@compiled
def inherit_off(m, slot, record, sums, epoch, exact):
    """Set a minute's offset from the cut below it, unless what it has is better."""
    state = m.state
    if state[record + st.M_HAS_OFF] == 1:
        is_old = epoch != state[symbol_at(m, slot) + st.S_EPOCH] and state[record + st.M_OFF_EPOCH] != epoch
        measured = off_holds(m, slot, record) and state[record + st.M_OFF_L] != st.NONE
        if exact == 0 or is_old or measured:
            return
    put_off(m, slot, record, sums, epoch, exact, st.NONE)


@merged
def pass_clean_cut(m, slot, record, position):
    """A final minute ends with a trade: the next minute that holds trades begins after it."""
    state = m.state
    if position + 1 >= state[symbol_at(m, slot) + st.S_RING_COUNT]:
        return
    entry, following = ring_at(m, slot, position), state[ring_at(m, slot, position + 1) + st.R_F]
    for step in range(1, st.RECORDS):
        after = find_record(m, slot, state[record + st.M_TIME] + step * MINUTE)
        if after == st.NONE or is_empty(m, after):
            continue
        named = (
            state[after + st.M_BASE_L] != st.NONE and state[entry + st.R_L] < state[after + st.M_BASE_F] <= following
        )
        if named or (state[after + st.M_HAS_TRADES] == 1 and state[after + st.M_FIRST] == following):
            inherit_off(m, slot, after, entry + st.R_PREFIX, state[entry + st.R_EPOCH], 1)
        return


@compiled
def pass_cut(m, slot, record):
    """Give the upper cut of a final minute to the next minute that holds trades."""
    state = m.state
    if state[record + st.M_BASE] != st.BASE_FINAL:
        return
    last = state[record + st.M_BASE_L]
    position = ring_search(m, slot, last)
    if position == st.NONE:
        return
    entry = ring_at(m, slot, position)
    if state[entry + st.R_L] < last:
        return  # the trade that holds L has not come yet
    if state[entry + st.R_L] == last:
        pass_clean_cut(m, slot, record, position)
        return
    after = take_record(m, slot, state[record + st.M_TIME] + MINUTE)
    if after == st.NONE or is_final(m, after):
        return
    take_tail(m, slot, after, entry)
    if off_known(m, record, entry):
        sums = state[st.C_SCRATCH] + 7 * st.CELLS
        for k in range(SUMS):
            state[sums + k] = state[record + st.M_OFF + k] + state[record + st.M_BASE_CELLS + VOLUME + k]
        inherit_off(m, slot, after, sums, state[entry + st.R_EPOCH], 1)
    else:
        inherit_off(m, slot, after, entry + st.R_PREFIX, state[entry + st.R_EPOCH], 0)


@compiled
def pass_cut_from(m, slot, time):
    """Give a final minute's upper cut to the next, if the minute is known."""
    record = find_record(m, slot, time)
    if record != st.NONE:
        pass_cut(m, slot, record)


@compiled
def hold_newest(m, record, f, l, E, price):
    """Let a minute hold a trade that is newer than all it holds, but for its sums."""
    state = m.state
    if state[record + st.M_HAS_TRADES] == 0:
        state[record + st.M_HAS_TRADES] = 1
        state[record + st.M_FIRST] = f
        state[record + st.M_OPEN] = price
        state[record + st.M_HIGH] = price
        state[record + st.M_LOW] = price
    state[record + st.M_HIGH] = max(state[record + st.M_HIGH], price)
    state[record + st.M_LOW] = min(state[record + st.M_LOW], price)
    state[record + st.M_CLOSE] = price
    state[record + st.M_LAST] = l
    state[record + st.M_LAST_E] = E
    state[record + st.M_LAST_MULTI] = 0
    if l > f:
        state[record + st.M_LAST_MULTI] = 1
        state[record + st.M_MULTI_L] = l


@compiled
def hold_trade(m, record, entry):
    """Let a minute hold a trade that is newer than all it holds."""
    state = m.state
    f, l, E, price = (
        state[entry + st.R_F],
        state[entry + st.R_L],
        state[entry + st.R_E],
        state[entry + st.R_PRICE],
    )
    hold_newest(m, record, f, l, E, price)
    copy_cells(m, record + st.M_END, entry + st.R_PREFIX, SUMS)
