"""What the exchange itself says of a bar: kline frames and REST rows (BARS sections 3, 5 and 6)."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled
from klshm.core.kernel.closing import (
    advance,
    amend,
    amend_touched,
    confirm,
    list_slot,
    move_need,
    prove_empty,
    snapshot_match,
)
from klshm.core.kernel.flags import minute_flags
from klshm.core.kernel.folds import refold_above, scratch
from klshm.core.kernel.records import (
    compose,
    find_record,
    is_empty,
    is_final,
    off_holds,
    ring_at,
    ring_first,
    take_record,
    touch,
)
from klshm.core.kernel.rows import (
    copy_cells,
    count,
    has_row,
    history_at,
    pack,
    restore,
    row_flags,
    row_revision,
    row_state,
    same_cells,
    symbol_at,
    write_history,
)
from klshm.core.kernel.splice import pass_cut, settle_frame
from klshm.core.state import CELLS, CLOSE, COUNT, MINUTE, VOLUME
from klshm.shm.counters import WORKER
from klshm.shm.layout import FLAG_CORRECTED, FLAG_DERIVED, FLAG_FILLED, FLAG_PARTIAL, STATE_CLOSED, STATE_CONFIRMED


__all__ = []

_FRAMES = WORKER.index("frames_total")
_STALE = WORKER.index("frames_stale_total")
_SKIPPED = WORKER.index("frames_skipped_total")
_EMPTY = WORKER.index("frames_empty_total")
_CONTRADICTIONS = WORKER.index("contradictions_total")
_REST_ROWS = WORKER.index("rest_rows_total")
_REST_STALE = WORKER.index("rest_stale_total")
_REST_ADOPTED = WORKER.index("rest_adopted_total")
_REST_DIFFERS = WORKER.index("rest_differs_from_final_total")
_CORRECTED = WORKER.index("corrected_total")
_FOLDS_COMPARED = WORKER.index("folds_compared_total")
_FOLDS_EQUAL = WORKER.index("folds_equal_total")

UNKNOWN_ID = -2
"""Last trade id of an official bar that does not tell it."""
CONFIRMS_EQUAL_MS = 2_500
"""Age at which an official row that equals our bar confirms it."""
CONFIRMS_REPEATED_MS = 30_000
"""Age at which a repeated official row is the truth."""
LAST_WORD_MS = 60_000
"""Age at which an official row overrules everything."""


@compiled
def keep_settle(m, slot, record):
    """Keep what a closed bar said before an official bar settles it, to count whether it was right."""
    state = m.state
    closed = state[record + st.M_TIME] < state[symbol_at(m, slot) + st.S_OPEN_MINUTE]
    if closed and state[record + st.M_SETTLED] == 0 and not is_final(m, record) and not is_empty(m, record):
        cells = scratch(m, 1)
        compose(m, slot, record, cells)
        flags = minute_flags(m, slot, record, True)
        snapshot_match(m, record, cells, st.M_HAS_SETTLE, st.M_SETTLE_CELLS, flags)


@compiled
def apply_empty_frame(m, slot, record, final):
    """A frame without trades: proof of emptiness if it is final, a sign of life otherwise."""
    state = m.state
    count(m, _EMPTY, 1)
    if not final or is_final(m, record):
        return
    if state[record + st.M_HAS_TRADES] == 1 or state[record + st.M_BASE] != st.BASE_NONE:
        count(m, _CONTRADICTIONS, 1)
        return
    state[record + st.M_BASE] = st.BASE_EMPTY
    confirm(m, slot, record, st.SOURCE_EMPTY)
    touch(m, slot, record)


@compiled
def is_stale(m, record, L, final):
    """Return whether a frame says nothing new of its minute."""
    state = m.state
    base = state[record + st.M_BASE]
    if base == st.BASE_REST and final:
        return False
    if base >= st.BASE_FINAL:
        return True
    if base == st.BASE_NONE:
        return False
    return L < state[record + st.M_BASE_L] or (L == state[record + st.M_BASE_L] and not final)


@compiled
def compare_stale(m, slot, record, final, cells):
    """Count a frame that came too late; a final one that contradicts what we hold is a contradiction."""
    count(m, _STALE, 1)
    if final and is_final(m, record) and not same_cells(m, record + st.M_BASE_CELLS, cells):
        if m.state[record + st.M_BASE] != st.BASE_EMPTY or m.state[cells + COUNT] > 0:
            count(m, _CONTRADICTIONS, 1)


@compiled
def is_unreachable(m, slot, record, L):
    """Return whether a frame ends before the oldest trade in the ring while the offset is exact without it."""
    state = m.state
    first = ring_first(m, slot)
    if first == 0 or not off_holds(m, slot, record):
        return False
    return L < state[ring_at(m, slot, first) + st.R_F]


@compiled
def finish(m, slot, record, source):
    """A minute's base is final: confirm it and pass its cut to the next."""
    state = m.state
    symbol = symbol_at(m, slot)
    time = state[record + st.M_TIME]
    state[record + st.M_BASE] = st.BASE_FINAL
    if time > state[symbol + st.S_FINAL_MINUTE]:
        state[symbol + st.S_FINAL_MINUTE] = time
        state[symbol + st.S_FINAL_L] = state[record + st.M_BASE_L]
    confirm(m, slot, record, source)
    touch(m, slot, record)
    pass_cut(m, slot, record)
    before = find_record(m, slot, time - MINUTE)
    if before != st.NONE:
        pass_cut(m, slot, before)
    if time >= state[symbol + st.S_OPEN_MINUTE]:
        advance(m, slot, time + MINUTE)


@compiled
def prove_by_first_id(m, slot, time, f):
    """A frame's first id follows the last id of an earlier minute: that minute is final, those between are empty."""
    state = m.state
    symbol = symbol_at(m, slot)
    for step in range(1, st.RECORDS - 2):
        earlier = find_record(m, slot, time - step * MINUTE)
        if earlier == st.NONE:
            break
        base = state[earlier + st.M_BASE]
        if base == st.BASE_FRAME or base == st.BASE_FINAL:
            if state[earlier + st.M_BASE_L] + 1 != f:
                return
            if base == st.BASE_FRAME:
                keep_settle(m, slot, earlier)
                finish(m, slot, earlier, st.SOURCE_NEXT_FRAME)
            if step > 1:
                prove_empty(m, slot, time - (step - 1) * MINUTE, time)
            return
        if state[earlier + st.M_HAS_TRADES] == 1 or base == st.BASE_REST:
            return
    if state[symbol + st.S_FINAL_MINUTE] != st.NONE and state[symbol + st.S_FINAL_L] + 1 == f:
        if state[symbol + st.S_FINAL_MINUTE] < time:
            prove_empty(m, slot, state[symbol + st.S_FINAL_MINUTE] + MINUTE, time)


@compiled
def note_official_id(m, slot, L):
    """The exchange has said that trades up to id `L` exist: watch whether they come."""
    state = m.state
    symbol = symbol_at(m, slot)
    if L > state[symbol + st.S_FRAME_L]:
        state[symbol + st.S_FRAME_L] = L
        if L > state[symbol + st.S_LAST_L] and state[symbol + st.S_AHEAD_SINCE] == st.NONE:
            state[symbol + st.S_AHEAD_SINCE] = state[st.C_NOW]


@compiled
def apply_final_bar(m, slot, record, cells):
    """Apply an official final bar whose trade ids are unknown (continuous klines)."""
    state = m.state
    if is_final(m, record):
        compare_stale(m, slot, record, True, cells)
        return
    keep_settle(m, slot, record)
    copy_cells(m, record + st.M_BASE_CELLS, cells, CELLS)
    state[record + st.M_BASE] = st.BASE_REST
    confirm(m, slot, record, st.SOURCE_FINAL_FRAME)
    touch(m, slot, record)
    if state[record + st.M_TIME] >= state[symbol_at(m, slot) + st.S_OPEN_MINUTE]:
        advance(m, slot, state[record + st.M_TIME] + MINUTE)


@compiled
def accept_frame(m, slot, record, E, f, L, final, cells):
    """Take a frame as the base of its minute, and let it close what it proves."""
    state = m.state
    symbol = symbol_at(m, slot)
    time = state[record + st.M_TIME]
    if state[symbol + st.S_JOINED] == st.FOREVER:
        state[symbol + st.S_JOINED] = E
    if not final and is_unreachable(m, slot, record, L):
        count(m, _SKIPPED, 1)
        return
    if final:
        keep_settle(m, slot, record)
        if state[record + st.M_BASE] == st.BASE_REST and not same_cells(m, record + st.M_BASE_CELLS, cells):
            count(m, _CONTRADICTIONS, 1)
            if state[record + st.M_BASE_CELLS + COUNT] > state[cells + COUNT]:
                return  # the larger count wins; REST is asked again
    copy_cells(m, record + st.M_BASE_CELLS, cells, CELLS)
    state[record + st.M_BASE] = st.BASE_FINAL if final else st.BASE_FRAME
    state[record + st.M_BASE_F] = f
    state[record + st.M_BASE_L] = L
    state[record + st.M_BASE_E] = E
    state[record + st.M_PEND] = 1
    state[symbol + st.S_LAST_EVENT] = max(state[symbol + st.S_LAST_EVENT], E)
    note_official_id(m, slot, L)
    touch(m, slot, record)
    settle_frame(m, slot, record)
    prove_by_first_id(m, slot, time, f)
    if final:
        finish(m, slot, record, st.SOURCE_FINAL_FRAME)


@compiled
def apply_frame(m, slot, E, time, f, L, final, cells):
    """Apply an official kline frame of a minute.

    Args:
        m: The memory.
        slot: Local slot.
        E: Event time, ms.
        time: Open time of the minute.
        f: First trade id of the minute, -1: none.
        L: Last trade id in the frame, -1: none.
        final: Whether the exchange says it is the minute's last frame.
        cells: First state word of its nine cells.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    count(m, _FRAMES, 1)
    state[symbol + st.S_FRAME_E] = max(state[symbol + st.S_FRAME_E], E)
    state[symbol + st.S_BEHIND_SINCE] = st.NONE
    if state[symbol + st.S_OPEN_MINUTE] == st.NONE:
        advance(m, slot, time)
    record = take_record(m, slot, time)
    if record == st.NONE:
        count(m, _STALE, 1)
        return
    if L == UNKNOWN_ID and state[cells + COUNT] > 0:
        apply_final_bar(m, slot, record, cells)
    elif L < 0 or state[cells + COUNT] == 0:
        apply_empty_frame(m, slot, record, final)
    elif not is_stale(m, record, L, final):
        accept_frame(m, slot, record, E, f, L, final, cells)
    else:
        compare_stale(m, slot, record, final, cells)
    if time > state[symbol + st.S_OPEN_MINUTE]:
        advance(m, slot, time)
    amend_touched(m, slot)
    list_slot(m, slot)


@compiled
def is_behind(m, slot, record, cells):
    """Return whether an official row has not caught up with what we hold already."""
    state = m.state
    if state[record + st.M_BASE] == st.BASE_NONE:
        return False
    base = record + st.M_BASE_CELLS
    return state[cells + COUNT] < state[base + COUNT] or state[cells + VOLUME] < state[base + VOLUME]


@compiled
def adopt_row(m, slot, record, cells, equal):
    """Let an official row stand for a minute; from now on trades add nothing to it."""
    state = m.state
    if not equal:
        count(m, _REST_ADOPTED, 1)
    last = state[record + st.M_BASE_L]
    keeps_id = equal and state[record + st.M_BASE] == st.BASE_FRAME and state[record + st.M_LAST] <= last
    copy_cells(m, record + st.M_BASE_CELLS, cells, CELLS)
    if state[cells + COUNT] == 0:
        state[record + st.M_BASE] = st.BASE_EMPTY
    elif keeps_id:
        state[record + st.M_BASE] = st.BASE_FINAL
    else:
        state[record + st.M_BASE] = st.BASE_REST
    touch(m, slot, record)
    if keeps_id:
        pass_cut(m, slot, record)


@compiled
def said_before(m, slot, interval, time, cells):
    """Return whether the last contradicting official row said the same, and remember this one."""
    state = m.state
    symbol = symbol_at(m, slot)
    digest = interval
    for k in range(CELLS):
        digest = (digest * 1_000_003) ^ state[cells + k]
        digest &= 0x3FFFFFFFFFF
    again = state[symbol + st.S_DIFFERS_TIME] == time and state[symbol + st.S_DIFFERS_SUM] == digest
    state[symbol + st.S_DIFFERS_TIME] = time
    state[symbol + st.S_DIFFERS_SUM] = digest
    return again


@compiled
def overrule(m, slot, record, age, cells):
    """An official row contradicts a confirmed minute: believe it when it is old and says so twice."""
    state = m.state
    count(m, _REST_DIFFERS, 1)
    if age < LAST_WORD_MS or not said_before(m, slot, 0, state[record + st.M_TIME], cells):
        return
    copy_cells(m, record + st.M_BASE_CELLS, cells, CELLS)
    state[record + st.M_BASE] = st.BASE_REST if state[cells + COUNT] > 0 else st.BASE_EMPTY
    state[record + st.M_CORRECTED] = 1
    count(m, _CORRECTED, 1)
    amend(m, slot, record, True)


@compiled
def apply_rest_minute(m, slot, record, age, cells):
    """Apply an official row to a closed minute that still has its record."""
    state = m.state
    confirmed = state[record + st.M_STATE] == STATE_CONFIRMED
    ours = scratch(m, 4)
    empty = is_empty(m, record)
    if empty:
        for k in range(VOLUME, COUNT + 1):
            state[ours + k] = 0
        equal = state[cells + COUNT] == 0
    else:
        compose(m, slot, record, ours)
        equal = same_cells(m, ours, cells)
    if confirmed:
        if not equal:
            overrule(m, slot, record, age, cells)
        return
    if age < LAST_WORD_MS and is_behind(m, slot, record, cells):
        count(m, _REST_STALE, 1)
        return
    partial = minute_flags(m, slot, record, True) & FLAG_PARTIAL != 0
    repeated = state[record + st.M_BASE] == st.BASE_REST and equal
    keep_settle(m, slot, record)
    proven = (
        age >= LAST_WORD_MS
        or (equal and not partial and age >= CONFIRMS_EQUAL_MS and not repeated)
        or (repeated and age >= CONFIRMS_REPEATED_MS)
    )
    if not equal or (partial and not empty) or proven:
        adopt_row(m, slot, record, cells, equal)
    if proven:
        confirm(m, slot, record, st.SOURCE_REST)


@compiled
def store_official(m, slot, interval, time, age, cells):
    """Store an official row that no minute record stands for: backfill, or a higher interval.

    A row that was missing is stored without a log entry (the historian has sent it to the archive
    itself); one that changes a bar we closed is logged.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    at = history_at(m, slot, interval, time)
    open_minute = state[symbol + st.S_OPEN_MINUTE]
    newest = open_minute if open_minute != st.NONE else time + state[st.C_LENGTH + interval]
    if time < newest - (state[st.C_HISTORY_ROWS + interval] - 2) * state[st.C_LENGTH + interval]:
        return  # older than memory reaches back
    if time + state[st.C_LENGTH + interval] > newest:
        return
    known = has_row(m, slot, interval, time)
    flags = FLAG_FILLED if state[cells + COUNT] == 0 else 0
    status = STATE_CONFIRMED if age >= CONFIRMS_REPEATED_MS else STATE_CLOSED
    revision = 1
    if known:
        ours = scratch(m, 4)
        restore(m, slot, at, ours)
        equal = same_cells(m, ours, cells)
        derived = row_flags(m.words, at) & FLAG_DERIVED != 0
        if derived and status == STATE_CONFIRMED:
            count(m, _FOLDS_COMPARED, 1)
            count(m, _FOLDS_EQUAL, 1 if equal else 0)
        was_confirmed = row_state(m.words, at) == STATE_CONFIRMED
        if equal and (status == STATE_CLOSED or (was_confirmed and not derived)):
            return
        if not equal:
            if was_confirmed and (age < LAST_WORD_MS or not said_before(m, slot, interval, time, cells)):
                count(m, _REST_DIFFERS, 1)
                return
            flags |= FLAG_CORRECTED
            count(m, _CORRECTED, 1)
        revision = row_revision(m.words, at) + 1
    pack(m, slot, interval, time, cells, status, flags, revision)
    write_history(m, slot, interval, time, known)
    refold_above(m, slot, interval, time, known, st.NONE)
    if interval == 0:
        if open_minute == st.NONE or time == open_minute - MINUTE:
            state[symbol + st.S_LAST_CLOSE] = state[cells + CLOSE]
        if known:
            move_need(m, slot)
        elif status == STATE_CLOSED and (
            state[symbol + st.S_NEED_FROM] == st.NONE or time < state[symbol + st.S_NEED_FROM]
        ):
            state[symbol + st.S_NEED_FROM] = time


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
    symbol = symbol_at(m, slot)
    count(m, _REST_ROWS, 1)
    age = read_ms - time - state[st.C_LENGTH + interval]
    if age < 0:
        return
    open_minute = state[symbol + st.S_OPEN_MINUTE]
    if interval == 0 and open_minute != st.NONE:
        if time >= open_minute:
            return  # our clock has not closed it yet; it will be asked for again
        record = find_record(m, slot, time)
        if record != st.NONE:
            apply_rest_minute(m, slot, record, age, cells)
            amend_touched(m, slot)
            list_slot(m, slot)
            return
    store_official(m, slot, interval, time, age, cells)
    list_slot(m, slot)
