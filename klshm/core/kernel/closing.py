"""The three moments of a bar: closed by the clock, settled, confirmed; and changes in between.

Each moment logs at most one entry; changes between moments show in history at once and are
logged at the next one. A bar that is new to history is logged at once: it would die with the
worker, and the archive would never hear of it. A change of a closed minute re-derives everything
that stands on it: the filled minutes behind it and the whole column above it.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.flags import minute_flags
from klshm.core.kernel.folds import log_row, refold_above, scratch
from klshm.core.kernel.match import compare, snapshot_match
from klshm.core.kernel.minutes import minute_cells, move_need, need_from
from klshm.core.kernel.records import find_record, is_empty, is_final, oldest_minute, take_record
from klshm.core.kernel.rows import (
    count,
    has_row,
    history_at,
    image_differs,
    image_matters,
    image_values_differ,
    list_slot,
    pack,
    record_at,
    row_revision,
    symbol_at,
    write_history,
)
from klshm.core.state import CLOSE, MINUTE
from klshm.shm.counters import WORKER
from klshm.shm.layout import (
    FLAG_FILLED,
    FLAG_PARTIAL,
    STATE_CLOSED,
    STATE_CONFIRMED,
    W_CLOSE,
)


__all__ = []

_CLOSED = WORKER.index("closed_total")
_FILLED = WORKER.index("filled_total")
_PARTIAL = WORKER.index("partial_total")
_LATE = WORKER.index("late_total")
_CORRECTED = WORKER.index("corrected_total")
_CONFIRMED_BY = WORKER.index("confirmed_by_final_frame_total")


@merged
def close_minute(m, slot):
    """Close the open minute of a symbol and open the next."""
    state = m.state
    symbol = symbol_at(m, slot)
    time = state[symbol + st.S_OPEN_MINUTE]
    record = take_record(m, slot, time)
    state[record + st.M_STATE] = STATE_CLOSED if state[record + st.M_SOURCE] == st.SOURCE_NONE else STATE_CONFIRMED
    cells = scratch(m, 1)
    there = minute_cells(m, slot, record, cells)
    state[symbol + st.S_OPEN_MINUTE] = time + MINUTE
    list_slot(m, slot)
    if state[record + st.M_STATE] != STATE_CONFIRMED or not there:
        need_from(m, slot, time)
    if not there:
        return
    flags = minute_flags(m, slot, record, True)
    count(m, _CLOSED, 1)
    if flags & FLAG_FILLED:
        count(m, _FILLED, 1)
    if flags & FLAG_PARTIAL:
        count(m, _PARTIAL, 1)
    snapshot_match(m, record, cells, st.M_HAS_TICK, st.M_TICK_CELLS, flags)
    state[symbol + st.S_LAST_CLOSE] = state[cells + CLOSE]
    at = history_at(m, slot, 0, time)
    revision = row_revision(m.words, at) + 1 if has_row(m, slot, 0, time) else 1
    pack(m, slot, 0, time, cells, state[record + st.M_STATE], flags, revision)
    write_history(m, slot, 0, time, True)
    refold_above(m, slot, 0, time, True, time + MINUTE)


@compiled
def advance(m, slot, minute):
    """Close every minute of a symbol before `minute`."""
    while m.state[symbol_at(m, slot) + st.S_OPEN_MINUTE] < minute:
        close_minute(m, slot)


@compiled
def catch_up(m, slot, time):
    """Close what lies more than a minute before a time that is known to have come.

    There are eight records: a minute further ahead would take that of one not closed yet.
    """
    advance(m, slot, time // MINUTE * MINUTE - MINUTE)


@merged
def note_correction(m, record):
    """A settled bar has changed: by the exchange's word, or by trades that came late."""
    state = m.state
    official = state[record + st.M_STATE] == STATE_CONFIRMED or is_final(m, record)
    word = st.M_CORRECTED if official else st.M_LATE
    if state[record + word] == 0:
        count(m, _CORRECTED if official else _LATE, 1)
    state[record + word] = 1


@merged
def amend_one(m, slot, record, log):
    """Bring the history row of one closed minute up to date.

    Returns:
        Whether its close changed.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    time = state[record + st.M_TIME]
    cells = scratch(m, 1)
    if not minute_cells(m, slot, record, cells):
        return False
    at = history_at(m, slot, 0, time)
    known = has_row(m, slot, 0, time)
    revision = row_revision(m.words, at) + 1 if known else 1
    pack(m, slot, 0, time, cells, state[record + st.M_STATE], minute_flags(m, slot, record, True), revision)
    if known and not image_differs(m, at):
        if log and state[record + st.M_UNLOGGED] == 1:
            log_row(m, at)
            state[record + st.M_UNLOGGED] = 0
            refold_above(m, slot, 0, time, log, st.NONE)
        return False
    settled = state[record + st.M_SETTLED] == 1
    if known and settled and image_values_differ(m, at):
        note_correction(m, record)
        pack(m, slot, 0, time, cells, state[record + st.M_STATE], minute_flags(m, slot, record, True), revision)
    if not known:
        need_from(m, slot, time)
    matters = not settled or image_matters(m, at)
    moved = known and m.words[at + W_CLOSE] != state[state[st.C_IMAGE] + W_CLOSE]
    logged = log or not known
    write_history(m, slot, 0, time, logged)
    if logged:
        state[record + st.M_UNLOGGED] = 0
    elif matters:
        state[record + st.M_UNLOGGED] = 1
    refold_above(m, slot, 0, time, log, st.NONE)
    if time == state[symbol + st.S_OPEN_MINUTE] - MINUTE:
        state[symbol + st.S_LAST_CLOSE] = state[cells + CLOSE]
    list_slot(m, slot)
    return moved or not known


@compiled
def amend(m, slot, record, log):
    """Bring a closed minute up to date, and the filled minutes whose price is its close.

    Args:
        m: The memory.
        slot: Local slot.
        record: Its record.
        log: Whether this is a moment that logs.
    """
    state = m.state
    if state[record + st.M_TIME] < oldest_minute(m, slot):
        return  # history may know better than a record that is kept but no longer served
    while amend_one(m, slot, record, log):
        time = state[record + st.M_TIME] + MINUTE
        if time >= state[symbol_at(m, slot) + st.S_OPEN_MINUTE]:
            return
        if find_record(m, slot, time) == st.NONE and not has_row(m, slot, 0, time):
            return  # before our time: what was then is the exchange's to say
        record = take_record(m, slot, time)
        if record == st.NONE or not is_empty(m, record):
            return


@compiled
def amend_touched(m, slot):
    """Bring every minute that the last event changed up to date, and let the open one be published."""
    state = m.state
    symbol = symbol_at(m, slot)
    touched = state[symbol + st.S_TOUCHED]
    state[symbol + st.S_TOUCHED] = 0
    list_slot(m, slot)
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        if touched >> index & 1 and state[record + st.M_TIME] < state[symbol + st.S_OPEN_MINUTE]:
            amend(m, slot, record, False)


@compiled
def settle_minute(m, slot, record):
    """Let a closed minute settle: what readers get by default is what it says now."""
    state = m.state
    if state[record + st.M_SETTLED] == 1:
        return
    amend(m, slot, record, True)
    state[record + st.M_SETTLED] = 1
    cells = scratch(m, 1)
    if minute_cells(m, slot, record, cells):
        flags = minute_flags(m, slot, record, True)
        snapshot_match(m, record, cells, st.M_HAS_SETTLE, st.M_SETTLE_CELLS, flags)


@compiled
def confirm(m, slot, record, source):
    """A minute is proven equal to the exchange's own; publish it as such.

    Args:
        m: The memory.
        slot: Local slot.
        record: Its record; its base holds the official cells, or it is proven empty.
        source: `SOURCE_...`.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    if state[record + st.M_SOURCE] != st.SOURCE_NONE or state[record + st.M_STATE] == STATE_CONFIRMED:
        return
    state[record + st.M_SOURCE] = source
    state[record + st.M_OWN] = 0
    state[record + st.M_HOLED] = 0
    count(m, _CONFIRMED_BY + source - 1, 1)
    cells = scratch(m, 3)
    if minute_cells(m, slot, record, cells):
        compare(m, slot, record, cells)
    if state[record + st.M_TIME] >= state[symbol + st.S_OPEN_MINUTE]:
        return  # it will be confirmed when it closes
    state[record + st.M_STATE] = STATE_CONFIRMED
    amend(m, slot, record, True)
    state[record + st.M_SETTLED] = 1
    move_need(m, slot)


@compiled
def log_late_changes(m, slot):
    """Log what changed since the last moment and met no other: a bar must not stay unlogged for ever."""
    state = m.state
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        if state[record + st.M_UNLOGGED] == 1:
            log_row(m, history_at(m, slot, 0, state[record + st.M_TIME]))
            state[record + st.M_UNLOGGED] = 0
    symbol = symbol_at(m, slot)
    for interval in range(1, state[st.C_INTERVALS]):
        time = state[symbol + st.S_UNLOGGED + interval]
        if time != st.NONE:
            log_row(m, history_at(m, slot, interval, time))
            state[symbol + st.S_UNLOGGED + interval] = st.NONE
