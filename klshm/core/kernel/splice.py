"""The splice: where in the running prefix of all trades a minute begins (BARS section 2).

``bar(minute) = prefix(now) - offset(minute)``, or the official frame while it is ahead of the
trades. A frame whose last trade id L ends an aggregate trade *measures* the offset. One that
cuts a group in two leaves an exact offset alone: the rest of the group is then exact too. At
the minute end the cut passes on to the next minute.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled
from klshm.core.kernel.records import (
    find_record,
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


@compiled
def measure(m, record, prefix, epoch, exact):
    """Set a record's offset so that its base frame ends at a prefix."""
    state = m.state
    for k in range(SUMS):
        state[record + st.M_OFF + k] = state[prefix + k] - state[record + st.M_BASE_CELLS + VOLUME + k]
    state[record + st.M_HAS_OFF] = 1
    state[record + st.M_OFF_EXACT] = exact
    state[record + st.M_OFF_EPOCH] = epoch
    state[record + st.M_OFF_FROM_FRAME] = exact


@compiled
def measure_across_hole(m, slot, record, position):
    """Measure an offset from a frame that ends between two trades we hold: what is between was missed.

    Exact if the next trade's ids begin right after the frame's last.
    """
    state = m.state
    following = ring_at(m, slot, position + 1)
    before = symbol_at(m, slot) + st.S_START
    if position != st.NONE:
        before = ring_at(m, slot, position) + st.R_PREFIX
    exact = 1 if state[following + st.R_F] == state[record + st.M_BASE_L] + 1 else 0
    state[record + st.M_PEND] = 0
    same_epoch = state[record + st.M_OFF_EPOCH] == state[following + st.R_EPOCH]
    if exact == 1 or not (state[record + st.M_OFF_EXACT] == 1 and same_epoch):
        measure(m, record, before, state[following + st.R_EPOCH], exact)
        if exact == 1:
            state[record + st.M_CLEAN_L] = state[record + st.M_BASE_L]
            copy_cells(m, record + st.M_CLEAN_SUMS, record + st.M_BASE_CELLS + VOLUME, SUMS)


@compiled
def settle_frame(m, slot, record):
    """Let a pending base frame meet the trades: measure the offset, or check it."""
    state = m.state
    if state[record + st.M_PEND] == 0:
        return
    last = state[record + st.M_BASE_L]
    position = ring_search(m, slot, last)
    if position == st.NONE and ring_first(m, slot) > 0:
        state[record + st.M_PEND] = 0  # older than the ring reaches back
        count(m, _SKIPPED, 1)
        return
    entry = ring_at(m, slot, position)
    if position == st.NONE or state[entry + st.R_L] < last:
        if position + 1 < state[symbol_at(m, slot) + st.S_RING_COUNT]:
            measure_across_hole(m, slot, record, position)
        return  # otherwise the frame is ahead of the trades: the bar is the frame
    state[record + st.M_PEND] = 0
    same_epoch = state[record + st.M_HAS_OFF] == 1 and state[record + st.M_OFF_EPOCH] == state[entry + st.R_EPOCH]
    known = same_epoch and state[record + st.M_OFF_EXACT] == 1
    if state[entry + st.R_L] == last:
        count(m, _CLEAN, 1)
        if known:
            equal = True
            for k in range(SUMS - 1):
                off = state[entry + st.R_PREFIX + k] - state[record + st.M_BASE_CELLS + VOLUME + k]
                equal = equal and off == state[record + st.M_OFF + k]
            if equal:
                count(m, _CLEAN_EQUAL, 1)
                off = state[entry + st.R_PREFIX + SUMS - 1] - state[record + st.M_BASE_CELLS + VOLUME + SUMS - 1]
                if off == state[record + st.M_OFF + SUMS - 1]:
                    count(m, _CLEAN_EQUAL_COUNT, 1)
        measure(m, record, entry + st.R_PREFIX, state[entry + st.R_EPOCH], 1)
        state[record + st.M_CLEAN_L] = last
        copy_cells(m, record + st.M_CLEAN_SUMS, record + st.M_BASE_CELLS + VOLUME, SUMS)
        return
    count(m, _CUT, 1)
    if known:
        rest = state[entry + st.R_PREFIX] - state[record + st.M_OFF] - state[record + st.M_BASE_CELLS + VOLUME]
        count(m, _CUT_EXACT if 0 < rest < state[entry + st.R_QUANTITY] else _CUT_UNRESOLVED, 1)
        # Ids may be skipped, so the count of the rest is known only as an upper bound.
        state[record + st.M_OFF + SUMS - 1] = (
            state[entry + st.R_PREFIX + SUMS - 1]
            - (state[entry + st.R_L] - last)
            - state[record + st.M_BASE_CELLS + VOLUME + SUMS - 1]
        )
    else:
        count(m, _CUT_UNRESOLVED, 1)
        measure(m, record, entry + st.R_PREFIX, state[entry + st.R_EPOCH], 0)


@compiled
def off_holds_at(m, record, epoch):
    """Return whether a record's offset is exact and of an epoch."""
    state = m.state
    return (
        state[record + st.M_HAS_OFF] == 1
        and state[record + st.M_OFF_EXACT] == 1
        and state[record + st.M_OFF_EPOCH] == epoch
    )


@compiled
def set_off(m, slot, record, sums, epoch, exact):
    """Set the offset of a minute from the cut below it, unless a frame has measured it already."""
    state = m.state
    if off_holds(m, slot, record) and (state[record + st.M_OFF_FROM_FRAME] == 1 or exact == 0):
        return
    changed = state[record + st.M_HAS_OFF] == 0 or state[record + st.M_OFF_EXACT] != exact
    for k in range(SUMS):
        changed = changed or state[record + st.M_OFF + k] != state[sums + k]
        state[record + st.M_OFF + k] = state[sums + k]
    state[record + st.M_HAS_OFF] = 1
    state[record + st.M_OFF_EXACT] = exact
    state[record + st.M_OFF_EPOCH] = epoch
    if changed:
        touch(m, slot, record)


@compiled
def take_tail(m, slot, record, entry):
    """Let a minute begin with the tail of a group that the minute before has been shown to share."""
    state = m.state
    price = state[entry + st.R_PRICE]
    if state[record + st.M_HAS_TRADES] == 1 and state[record + st.M_FIRST] <= state[entry + st.R_F]:
        return  # taken before
    touch(m, slot, record)
    state[record + st.M_OPEN] = price
    state[record + st.M_FIRST] = state[entry + st.R_F]
    if state[record + st.M_HAS_TRADES] == 1:
        state[record + st.M_HIGH] = max(state[record + st.M_HIGH], price)
        state[record + st.M_LOW] = min(state[record + st.M_LOW], price)
        return
    state[record + st.M_HAS_TRADES] = 1
    state[record + st.M_HIGH] = price
    state[record + st.M_LOW] = price
    state[record + st.M_CLOSE] = price
    state[record + st.M_LAST] = state[entry + st.R_L]
    state[record + st.M_LAST_MULTI] = 1
    state[record + st.M_LAST_E] = state[entry + st.R_E]
    state[record + st.M_MULTI_L] = state[entry + st.R_L]
    state[record + st.M_HAS_END] = 1
    copy_cells(m, record + st.M_END, entry + st.R_PREFIX, SUMS)


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
    minute = state[record + st.M_TIME]
    if state[entry + st.R_L] == last:
        for step in range(1, st.RECORDS):
            after = find_record(m, slot, minute + step * MINUTE)
            if after != st.NONE and (state[after + st.M_HAS_TRADES] == 1 or state[after + st.M_BASE] == st.BASE_FRAME):
                follows = position + 1 < state[symbol_at(m, slot) + st.S_RING_COUNT]
                if follows and state[ring_at(m, slot, position + 1) + st.R_F] >= state[after + st.M_FIRST]:
                    set_off(m, slot, after, entry + st.R_PREFIX, state[entry + st.R_EPOCH], 1)
                return
        return
    after = take_record(m, slot, minute + MINUTE)
    if after == st.NONE or is_final(m, after):
        return
    exact = 1 if off_holds_at(m, record, state[entry + st.R_EPOCH]) else 0
    take_tail(m, slot, after, entry)
    if exact:
        sums = m.state[st.C_SCRATCH]
        for k in range(SUMS):
            state[sums + k] = state[record + st.M_OFF + k] + state[record + st.M_BASE_CELLS + VOLUME + k]
        set_off(m, slot, after, sums, state[entry + st.R_EPOCH], 1)
    else:
        set_off(m, slot, after, entry + st.R_PREFIX, state[entry + st.R_EPOCH], 0)


@compiled
def hold_trade(m, record, entry):
    """Let a minute hold a trade that is newer than all it holds."""
    state = m.state
    price = state[entry + st.R_PRICE]
    if state[record + st.M_HAS_TRADES] == 0:
        state[record + st.M_HAS_TRADES] = 1
        state[record + st.M_FIRST] = state[entry + st.R_F]
        state[record + st.M_OPEN] = price
        state[record + st.M_HIGH] = price
        state[record + st.M_LOW] = price
    state[record + st.M_HIGH] = max(state[record + st.M_HIGH], price)
    state[record + st.M_LOW] = min(state[record + st.M_LOW], price)
    state[record + st.M_CLOSE] = price
    state[record + st.M_LAST] = state[entry + st.R_L]
    multi = state[entry + st.R_L] > state[entry + st.R_F]
    state[record + st.M_LAST_MULTI] = 1 if multi else 0
    state[record + st.M_LAST_E] = state[entry + st.R_E]
    if multi:
        state[record + st.M_MULTI_L] = state[entry + st.R_L]
    state[record + st.M_HAS_END] = 1
    copy_cells(m, record + st.M_END, entry + st.R_PREFIX, SUMS)
