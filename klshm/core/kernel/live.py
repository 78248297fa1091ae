"""The open bars of a symbol, written to the live table: the minute, and above it every interval's fold."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import minute_cells
from klshm.core.kernel.flags import minute_flags
from klshm.core.kernel.folds import OF_BAR, fold_at, fold_flags, gather, scratch, scratch_fold
from klshm.core.kernel.records import take_record
from klshm.core.kernel.rows import copy_cells, count, open_time_of, pack, symbol_at, write_live
from klshm.core.state import CELLS, CLOSE, COUNT, HIGH, LOW, OPEN, VOLUME
from klshm.shm.counters import WORKER
from klshm.shm.exact import MAX_SUM
from klshm.shm.layout import FLAG_FILLED, FLAG_PARTIAL, STATE_LIVE


__all__ = []

_OVERFLOWS = WORKER.index("overflows_total")


@merged
def holds(m, fold, interval, child, minute):
    """Return whether a running fold is that of the open bar, up to its open child; no division."""
    state = m.state
    in_bar = state[fold + st.F_TIME] <= minute < state[fold + st.F_TIME] + state[st.C_LENGTH + interval]
    return in_bar and state[fold + st.F_UNTIL] <= minute < state[fold + st.F_UNTIL] + state[st.C_LENGTH + child]


@merged
def begin_column(m, cells, minute, filled, flags):
    """Let the open minute stand as the scratch fold of the lowest interval."""
    state = m.state
    part = scratch_fold(m, 0)
    copy_cells(m, part + st.F_CELLS, cells, CELLS)
    state[part + st.F_TIME] = minute
    state[part + st.F_TRADED] = 0 if filled else 1
    state[part + st.F_FLAGS] = flags


@merged
def join(m, fold, part, whole):
    """Make an open bar of the running fold of its closed children and of its open child (as `folds.add_child`)."""
    state = m.state
    filled = state[part + st.F_TRADED] == 0
    before, new, to = fold + st.F_CELLS, part + st.F_CELLS, whole + st.F_CELLS
    for k in range(OPEN, CLOSE):
        state[to + k] = state[before + k]
    if not filled or state[st.C_SKIP_FILLED] == 0:
        if state[fold + st.F_PRICED] == 0:
            state[to + OPEN] = state[new + OPEN]
            state[to + HIGH] = state[new + HIGH]
            state[to + LOW] = state[new + LOW]
        else:
            state[to + HIGH] = max(state[to + HIGH], state[new + HIGH])
            state[to + LOW] = min(state[to + LOW], state[new + LOW])
    elif state[fold + st.F_PRICED] == 0:
        for k in range(OPEN, CLOSE):
            state[to + k] = state[new + CLOSE]
    state[to + CLOSE] = state[new + CLOSE]
    overflows = 0
    for k in range(VOLUME, COUNT + 1):
        fits = state[before + k] < MAX_SUM - state[new + k]
        overflows += 0 if fits else 1
        state[to + k] = state[before + k] + (state[new + k] if fits else 0)
    flags = state[fold + st.F_FLAGS] | (state[part + st.F_FLAGS] & OF_BAR)
    if overflows > 0:
        flags |= FLAG_PARTIAL
        count(m, _OVERFLOWS, overflows)
    state[whole + st.F_FLAGS] = flags
    state[whole + st.F_TIME] = state[fold + st.F_TIME]
    state[whole + st.F_TRADED] = state[fold + st.F_TRADED] + (0 if filled else 1)


@merged
def publish_column(m, slot, minute, flags):
    """Write the live rows of a symbol: the open minute and every interval above it.

    Args:
        m: The memory.
        slot: Local slot.
        minute: The open minute; its bar is the lowest scratch fold.
        flags: Its flags.
    """
    state = m.state
    intervals = state[st.C_INTERVALS]
    for interval in range(1, intervals):
        child = state[st.C_SOURCE + interval]
        fold = fold_at(m, slot, interval)
        if not holds(m, fold, interval, child, minute):
            gather(m, slot, interval, open_time_of(m, interval, minute), open_time_of(m, child, minute), fold)
        join(m, fold, scratch_fold(m, child), scratch_fold(m, interval))
    for interval in range(intervals):
        bar = scratch_fold(m, interval)
        said = flags if interval == 0 else fold_flags(m, bar)
        pack(m, slot, interval, state[bar + st.F_TIME], bar + st.F_CELLS, STATE_LIVE, said, 0)
        write_live(m, slot, interval)


@compiled
def publish_open(m, slot):
    """Write the live rows of a symbol."""
    state = m.state
    symbol = symbol_at(m, slot)
    state[symbol + st.S_LISTED] = 0
    minute = state[symbol + st.S_OPEN_MINUTE]
    if minute == st.NONE:
        return
    record = take_record(m, slot, minute)
    cells = scratch(m, 1)
    if minute_cells(m, slot, record, cells):
        flags = minute_flags(m, slot, record, False)
        begin_column(m, cells, minute, flags & FLAG_FILLED != 0, flags)
        publish_column(m, slot, minute, flags)
