"""Closed minutes that are too old to have a record: their row in history is all there is of them."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import amend
from klshm.core.kernel.folds import refold_above, scratch
from klshm.core.kernel.minutes import close_before, flatten, need_from
from klshm.core.kernel.records import find_record, is_empty, oldest_minute, take_record
from klshm.core.kernel.rows import (
    count,
    has_row,
    history_at,
    oldest_row,
    pack,
    restore,
    row_flags,
    row_revision,
    row_state,
    symbol_at,
    write_history,
)
from klshm.core.state import CLOSE, MINUTE
from klshm.shm.counters import WORKER
from klshm.shm.layout import FLAG_FILLED, FLAG_PARTIAL, STATE_CLOSED, STATE_CONFIRMED


__all__ = []

_NO_ROW = WORKER.index("no_row_total")
_CONFIRMED_EMPTY = WORKER.index("confirmed_empty_total")


@compiled
def rewrite_row(m, slot, time, cells, status, flags):
    """Store and log a changed bar that is too old to have a record."""
    revision = row_revision(m.words, history_at(m, slot, 0, time)) + 1
    pack(m, slot, 0, time, cells, status, flags, revision)
    write_history(m, slot, 0, time, True)
    refold_above(m, slot, 0, time, True, st.NONE)


@merged
def move_filled(m, slot, time):
    """Bring filled minutes from `time` on to the close of the bar before them, records or not."""
    state = m.state
    open_minute = state[symbol_at(m, slot) + st.S_OPEN_MINUTE]
    while time < open_minute:
        known = has_row(m, slot, 0, time)
        if not known and find_record(m, slot, time) == st.NONE:
            return
        record = take_record(m, slot, time)
        if record != st.NONE:
            if is_empty(m, record):
                amend(m, slot, record, True)
            return
        at = history_at(m, slot, 0, time)
        if not known or row_flags(m.words, at) & FLAG_FILLED == 0:
            return
        cells, price = scratch(m, 1), close_before(m, slot, time)
        restore(m, slot, at, cells)
        if price == st.NONE or state[cells + CLOSE] == price:
            return
        flatten(m, cells, price)
        rewrite_row(m, slot, time, cells, row_state(m.words, at), row_flags(m.words, at))
        time += MINUTE


@compiled
def lose_trade(m, slot, time):
    """A trade came too late for its minute's record: its closed bar is known to lack it."""
    at = history_at(m, slot, 0, time)
    flags = row_flags(m.words, at)
    done = row_state(m.words, at) == STATE_CONFIRMED or flags & FLAG_PARTIAL != 0
    if done or not has_row(m, slot, 0, time):
        return
    cells = scratch(m, 1)
    restore(m, slot, at, cells)
    rewrite_row(m, slot, time, cells, STATE_CLOSED, flags | FLAG_PARTIAL)
    need_from(m, slot, time)


@compiled
def give_up_minute(m, slot, time):
    """The exchange has no row of a minute: what we hold stays, partial; if it is nothing, a filled bar stands in."""
    ended = time > 0 and time % MINUTE == 0 and time < oldest_minute(m, slot)
    if not ended or time < oldest_row(m, slot, 0):
        return
    count(m, _NO_ROW, 1)
    if has_row(m, slot, 0, time):
        lose_trade(m, slot, time)
        return
    cells, price = scratch(m, 1), close_before(m, slot, time)
    if price == st.NONE:
        return
    flatten(m, cells, price)
    pack(m, slot, 0, time, cells, STATE_CLOSED, FLAG_FILLED | FLAG_PARTIAL, 1)
    write_history(m, slot, 0, time, True)
    refold_above(m, slot, 0, time, True, st.NONE)
    need_from(m, slot, time)


@merged
def confirm_stored_empty(m, slot, time):
    """Confirm a filled bar as empty."""
    at = history_at(m, slot, 0, time)
    if not has_row(m, slot, 0, time) or row_state(m.words, at) == STATE_CONFIRMED:
        return
    if row_flags(m.words, at) & FLAG_FILLED == 0:
        return
    cells = scratch(m, 1)
    restore(m, slot, at, cells)
    count(m, _CONFIRMED_EMPTY, 1)
    rewrite_row(m, slot, time, cells, STATE_CONFIRMED, FLAG_FILLED)
