"""The open bars of a symbol, written to the live table: the minute, and above it every interval's fold."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import minute_cells
from klshm.core.kernel.flags import minute_flags
from klshm.core.kernel.folds import add_child, fold_at, fold_flags, gather, scratch, scratch_fold
from klshm.core.kernel.records import is_empty, take_record
from klshm.core.kernel.rows import open_time_of, pack, symbol_at, write_live
from klshm.shm.layout import FLAG_FILLED, STATE_LIVE


__all__ = []


@merged
def publish_column(m, slot, cells, filled, flags):
    """Write the live rows of a symbol: the open minute and every interval above it.

    Args:
        m: The memory.
        slot: Local slot.
        cells: First state word of the open minute's cells.
        filled: It holds no trades yet.
        flags: Its flags.
    """
    state = m.state
    minute = state[symbol_at(m, slot) + st.S_OPEN_MINUTE]
    pack(m, slot, 0, minute, cells, STATE_LIVE, flags, 0)
    write_live(m, slot, 0)
    intervals = state[st.C_INTERVALS]
    for interval in range(1, intervals):
        open_time = open_time_of(m, interval, minute)
        child = state[st.C_SOURCE + interval]
        child_open = open_time_of(m, child, minute)
        fold = fold_at(m, slot, interval)
        if state[fold + st.F_TIME] != open_time or state[fold + st.F_UNTIL] != child_open:
            gather(m, slot, interval, open_time, child_open, fold)
        whole = scratch_fold(m, interval)
        for k in range(st.F_WORDS):
            state[whole + k] = state[fold + k]
        if child == 0:
            add_child(m, whole, cells, filled, flags, False)
        else:
            part = scratch_fold(m, child)
            part_flags = fold_flags(m, part)
            add_child(m, whole, part + st.F_CELLS, part_flags & FLAG_FILLED != 0, part_flags, False)
        pack(m, slot, interval, open_time, whole + st.F_CELLS, STATE_LIVE, fold_flags(m, whole), 0)
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
        publish_column(m, slot, cells, is_empty(m, record), minute_flags(m, slot, record, False))
