"""What official rows read by REST say of a bar: they are young, old enough, or the last word (BARS section 6)."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import amend, amend_touched, confirm
from klshm.core.kernel.flags import minute_flags
from klshm.core.kernel.folds import refold_above, scratch
from klshm.core.kernel.minutes import move_need, need_from
from klshm.core.kernel.records import compose, find_record, is_empty, take_record, touch
from klshm.core.kernel.rows import (
    copy_cells,
    count,
    has_row,
    history_at,
    list_slot,
    oldest_row,
    pack,
    restore,
    row_flags,
    row_revision,
    row_state,
    same_cells,
    symbol_at,
    write_history,
)
from klshm.core.kernel.splice import pass_cut
from klshm.core.kernel.stored import move_filled
from klshm.core.state import CELLS, COUNT, MINUTE, VOLUME
from klshm.shm.counters import WORKER
from klshm.shm.layout import (
    FLAG_CORRECTED,
    FLAG_DERIVED,
    FLAG_FILLED,
    FLAG_PARTIAL,
    FLAG_PROVISIONAL,
    STATE_CLOSED,
    STATE_CONFIRMED,
)


__all__ = []

_REST_ROWS = WORKER.index("rest_rows_total")
_REST_STALE = WORKER.index("rest_stale_total")
_REST_ADOPTED = WORKER.index("rest_adopted_total")
_REST_DIFFERS = WORKER.index("rest_differs_from_final_total")
_CLOSED = WORKER.index("closed_total")
_CORRECTED = WORKER.index("corrected_total")
_FOLDS_COMPARED = WORKER.index("folds_compared_total")
_FOLDS_EQUAL = WORKER.index("folds_equal_total")

CONFIRMS_EQUAL_MS = 2_500
"""Age at which an official row that equals our bar confirms it."""
CONFIRMS_REPEATED_MS = 30_000
"""Age at which a repeated official row is the truth."""
LAST_WORD_MS = 60_000
"""Age at which an official row overrules everything."""


@compiled
def said_before(m, slot, interval, time, cells):
    """Return whether an earlier official row contradicted a confirmed bar likewise, and remember this one."""
    state = m.state
    symbol = symbol_at(m, slot)
    digest = (time // MINUTE) ^ interval
    for k in range(CELLS):
        digest = ((digest * 1_000_003) ^ state[cells + k]) & 0x3FFFFFFFFFF
    for index in range(st.DIGESTS):
        if state[symbol + st.S_DIGESTS + index] == digest:
            return True
    state[symbol + st.S_DIGESTS + state[symbol + st.S_CONTRADICTED] % st.DIGESTS] = digest
    state[symbol + st.S_CONTRADICTED] += 1
    return False


@merged
def is_behind(m, record, cells):
    """Return whether an official row has not caught up with the frame we hold."""
    state = m.state
    base = record + st.M_BASE_CELLS
    if state[record + st.M_BASE] == st.BASE_NONE or state[record + st.M_OWN] == 1:
        return False
    return state[cells + COUNT] < state[base + COUNT] or state[cells + VOLUME] < state[base + VOLUME]


@merged
def adopt_row(m, slot, record, cells, keeps_id):
    """Let an official row stand for a minute; from now on trades add nothing to it."""
    state = m.state
    copy_cells(m, record + st.M_BASE_CELLS, cells, CELLS)
    state[record + st.M_BASE] = st.BASE_FINAL if keeps_id else st.BASE_REST
    state[record + st.M_OWN] = 0
    state[record + st.M_HOLED] = 0
    touch(m, slot, record)
    pass_cut(m, slot, record)


@merged
def overrule(m, slot, record, age, cells):
    """An official row contradicts a confirmed minute: believe it when it is old and says so twice."""
    count(m, _REST_DIFFERS, 1)
    if age < LAST_WORD_MS or not said_before(m, slot, 0, m.state[record + st.M_TIME], cells):
        return
    copy_cells(m, record + st.M_BASE_CELLS, cells, CELLS)
    m.state[record + st.M_BASE] = st.BASE_REST
    m.state[record + st.M_SETTLED] = 1
    amend(m, slot, record, True)


@merged
def equals_ours(m, slot, record, cells):
    """Return whether an official row says of a minute what we say."""
    if is_empty(m, record):
        return m.state[cells + COUNT] == 0
    ours = scratch(m, 4)
    compose(m, slot, record, ours)
    return same_cells(m, ours, cells)


@merged
def confirming_age(m, slot, record, equal):
    """Return how old an official row must be to confirm a minute."""
    state = m.state
    if not equal:
        return LAST_WORD_MS
    adopted = state[record + st.M_BASE] == st.BASE_REST and state[record + st.M_OWN] == 0
    if adopted or is_empty(m, record) or minute_flags(m, slot, record, True) & FLAG_PARTIAL:
        return CONFIRMS_REPEATED_MS
    return CONFIRMS_EQUAL_MS


@compiled
def apply_rest_minute(m, slot, record, age, cells):
    """Apply an official row to a closed minute that has a record."""
    state = m.state
    equal = equals_ours(m, slot, record, cells)
    if state[record + st.M_STATE] == STATE_CONFIRMED:
        if not equal:
            overrule(m, slot, record, age, cells)
        return
    if age < LAST_WORD_MS and is_behind(m, record, cells):
        count(m, _REST_STALE, 1)
        return
    proven = age >= confirming_age(m, slot, record, equal)
    if not equal:
        count(m, _REST_ADOPTED, 1)
    framed = state[record + st.M_BASE] == st.BASE_FRAME and state[record + st.M_OWN] == 0
    keeps_id = proven and equal and framed and state[record + st.M_LAST] <= state[record + st.M_BASE_L]
    if not equal or proven or minute_flags(m, slot, record, True) & FLAG_PARTIAL:
        adopt_row(m, slot, record, cells, keeps_id)
    if proven:
        confirm(m, slot, record, st.SOURCE_REST)


@merged
def store_changed(m, slot, interval, time, age, status, cells):
    """Let an official row take the place of one in history, if it may.

    Returns:
        The flags to store it with, -1 if it may not.
    """
    at = history_at(m, slot, interval, time)
    ours = scratch(m, 4)
    restore(m, slot, at, ours)
    equal = same_cells(m, ours, cells)
    derived = row_flags(m.words, at) & FLAG_DERIVED != 0
    confirmed = row_state(m.words, at) == STATE_CONFIRMED
    if status != STATE_CONFIRMED:
        return st.NONE  # it may still move, and what we hold is as good
    if derived:
        count(m, _FOLDS_COMPARED, 1)
        count(m, _FOLDS_EQUAL, 1 if equal else 0)
    if equal:
        return st.NONE if confirmed and not derived else 0
    if confirmed and (age < LAST_WORD_MS or not said_before(m, slot, interval, time, cells)):
        count(m, _REST_DIFFERS, 1)
        return st.NONE
    count(m, _CORRECTED, 1)
    return FLAG_CORRECTED


@merged
def store_official(m, slot, interval, time, age, cells):
    """Store an official row that no minute record stands for: backfill, or a higher interval.

    A row that was missing is stored without a log entry (the historian has sent it to the archive
    itself), unless we had asked for it; one that changes a bar we closed is logged.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    at = history_at(m, slot, interval, time)
    ended = time + state[st.C_LENGTH + interval] <= state[symbol + st.S_OPEN_MINUTE]
    if not ended or time < oldest_row(m, slot, interval):
        return
    known = has_row(m, slot, interval, time)
    status = STATE_CONFIRMED if age >= CONFIRMS_REPEATED_MS else STATE_CLOSED
    flags, revision = 0 if status == STATE_CONFIRMED else FLAG_PROVISIONAL, 1
    if known:
        flags = store_changed(m, slot, interval, time, age, status, cells)
        if flags == st.NONE:
            return
        revision = row_revision(m.words, at) + 1
    if state[cells + COUNT] == 0:
        flags |= FLAG_FILLED
    needed = state[symbol + st.S_NEED_FROM]
    logged = known or (interval == 0 and needed != st.NONE and time >= needed)
    pack(m, slot, interval, time, cells, status, flags, revision)
    write_history(m, slot, interval, time, logged)
    refold_above(m, slot, interval, time, logged, st.NONE)
    if interval > 0:
        return
    if status == STATE_CLOSED:
        count(m, _CLOSED, 0 if known else 1)  # it will be counted as confirmed like one of ours
        need_from(m, slot, time)
    move_filled(m, slot, time + MINUTE)
    move_need(m, slot)


@compiled
def apply_rest_row(m, slot, interval, time, read_ms, cells):
    """Apply an official row read by REST.

    Args:
        m: The memory.
        slot: Local slot.
        interval: Index of its interval.
        time: Its open time.
        read_ms: Exchange time when it was read.
        cells: First state word of its nine cells.
    """
    state = m.state
    count(m, _REST_ROWS, 1)
    age = read_ms - time - state[st.C_LENGTH + interval]
    open_minute = state[symbol_at(m, slot) + st.S_OPEN_MINUTE]
    if age < 0 or (interval == 0 and time >= open_minute):
        return  # not over, or our clock has not closed it yet: it will be asked for again
    list_slot(m, slot)
    record = st.NONE
    ours = has_row(m, slot, 0, time) or find_record(m, slot, time) != st.NONE
    # A minute before our time is history, not a correction of ours.
    if interval == 0 and ours:
        record = take_record(m, slot, time)
    if record == st.NONE:
        store_official(m, slot, interval, time, age, cells)
        return
    apply_rest_minute(m, slot, record, age, cells)
    amend_touched(m, slot)
