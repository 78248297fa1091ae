"""What the exchange's kline frames say of a minute (BARS section 3)."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import advance, amend_touched, catch_up, confirm
from klshm.core.kernel.intake import is_far_ahead
from klshm.core.kernel.proof import prove_empty
from klshm.core.kernel.records import find_record, off_holds, ring_at, ring_first, take_record, touch
from klshm.core.kernel.rows import copy_cells, count, same_cells, symbol_at
from klshm.core.kernel.splice import pass_cut, pass_cut_from, settle_frame
from klshm.core.state import CELLS, COUNT, MINUTE
from klshm.shm.counters import WORKER
from klshm.shm.layout import STATE_CONFIRMED


__all__ = []

_FRAMES = WORKER.index("frames_total")
_STALE = WORKER.index("frames_stale_total")
_SKIPPED = WORKER.index("frames_skipped_total")
_EMPTY = WORKER.index("frames_empty_total")
_CONTRADICTIONS = WORKER.index("contradictions_total")
_REFUSED = WORKER.index("refused_total")

UNKNOWN_ID = -2
"""Last trade id of an official bar that does not tell it."""


@compiled
def set_base(m, record, kind, f, L, cells):
    """Let official cells stand for a minute."""
    state = m.state
    copy_cells(m, record + st.M_BASE_CELLS, cells, CELLS)
    state[record + st.M_BASE] = kind
    state[record + st.M_BASE_F] = f
    state[record + st.M_BASE_L] = L
    state[record + st.M_OWN] = 0


@compiled
def end_open_minute(m, slot, record):
    """The exchange has ended a minute: close it, whatever our clock says."""
    time = m.state[record + st.M_TIME]
    if time >= m.state[symbol_at(m, slot) + st.S_OPEN_MINUTE]:
        advance(m, slot, time + MINUTE)


@compiled
def finish(m, slot, record, source):
    """A minute's base is final and its last id known: confirm it and pass its cut to the next."""
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
    pass_cut_from(m, slot, time - MINUTE)
    end_open_minute(m, slot, record)


@merged
def apply_empty_frame(m, slot, record, final, cells):
    """A frame without trades: proof of emptiness if it is final, a sign of life otherwise."""
    state = m.state
    count(m, _EMPTY, 1)
    base = state[record + st.M_BASE]
    if not final or base == st.BASE_EMPTY:
        return
    adopted_empty = base == st.BASE_REST and state[record + st.M_BASE_CELLS + COUNT] == 0
    if state[record + st.M_HAS_TRADES] == 1 or (base != st.BASE_NONE and not adopted_empty):
        count(m, _CONTRADICTIONS, 1)
        return
    set_base(m, record, st.BASE_EMPTY, st.NONE, st.NONE, cells)
    confirm(m, slot, record, st.SOURCE_EMPTY)
    touch(m, slot, record)
    end_open_minute(m, slot, record)


@merged
def is_unreachable(m, slot, record, L):
    """Return whether a frame ends before the oldest trade in the ring while the offset is exact without it."""
    first = ring_first(m, slot)
    if first == 0 or not off_holds(m, slot, record):
        return False
    return L < m.state[ring_at(m, slot, first) + st.R_F]


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
            if state[earlier + st.M_BASE_L] + 1 != f or state[earlier + st.M_OWN] == 1:
                return
            if base == st.BASE_FRAME:
                finish(m, slot, earlier, st.SOURCE_NEXT_FRAME)
            if step > 1:
                prove_empty(m, slot, time - (step - 1) * MINUTE, time)
            return
        if state[earlier + st.M_HAS_TRADES] == 1 or base == st.BASE_REST:
            return
    known = state[symbol + st.S_FINAL_MINUTE]
    if known != st.NONE and known < time and state[symbol + st.S_FINAL_L] + 1 == f:
        prove_empty(m, slot, known + MINUTE, time)


@compiled
def note_official_id(m, slot, L):
    """The exchange has said that trades up to id `L` exist: watch whether they come."""
    state = m.state
    symbol = symbol_at(m, slot)
    if L <= state[symbol + st.S_FRAME_L] or is_far_ahead(m, slot, L):
        return
    state[symbol + st.S_FRAME_L] = L
    if L > state[symbol + st.S_LAST_L] and state[symbol + st.S_AHEAD_SINCE] == st.NONE:
        state[symbol + st.S_AHEAD_SINCE] = state[st.C_NOW]
        state[symbol + st.S_AHEAD_FROM] = state[symbol + st.S_LAST_EVENT]


@merged
def apply_repeated_final(m, slot, record, f, L, cells):
    """Apply a final frame to a minute that is final already: nothing changes but that its last id may become known."""
    state = m.state
    count(m, _STALE, 1)
    if state[record + st.M_BASE] == st.BASE_EMPTY or not same_cells(m, record + st.M_BASE_CELLS, cells):
        count(m, _CONTRADICTIONS, 1)
    elif state[record + st.M_BASE] == st.BASE_REST and L != UNKNOWN_ID:
        set_base(m, record, st.BASE_FINAL, f, L, cells)
        finish(m, slot, record, st.SOURCE_FINAL_FRAME)


@merged
def is_new(m, record, L, final):
    """Return whether a frame says anything new of a minute that is not confirmed."""
    state = m.state
    base = state[record + st.M_BASE]
    if final or base == st.BASE_NONE:
        return final or base == st.BASE_NONE
    if base != st.BASE_FRAME:
        return False
    return L > state[record + st.M_BASE_L] or (L == state[record + st.M_BASE_L] and state[record + st.M_OWN] == 1)


@merged
def accept_final(m, slot, record, f, L, cells):
    """Take a minute's final frame, unless an adopted row knows of more trades."""
    state = m.state
    if state[record + st.M_BASE] == st.BASE_REST and state[record + st.M_OWN] == 0:
        if not same_cells(m, record + st.M_BASE_CELLS, cells):
            count(m, _CONTRADICTIONS, 1)
            if state[record + st.M_BASE_CELLS + COUNT] > state[cells + COUNT]:
                return  # REST is asked again
    if L == UNKNOWN_ID:
        set_base(m, record, st.BASE_REST, st.NONE, st.NONE, cells)
        confirm(m, slot, record, st.SOURCE_FINAL_FRAME)
        touch(m, slot, record)
        end_open_minute(m, slot, record)
        return
    set_base(m, record, st.BASE_FRAME, f, L, cells)
    state[record + st.M_PEND] = st.PEND_NEW
    settle_frame(m, slot, record)
    prove_by_first_id(m, slot, state[record + st.M_TIME], f)
    finish(m, slot, record, st.SOURCE_FINAL_FRAME)


@merged
def accept_frame(m, slot, record, f, L, cells):
    """Take a frame as the base of its minute, and let it prove what came before."""
    state = m.state
    touch(m, slot, record)
    if is_unreachable(m, slot, record, L):
        count(m, _SKIPPED, 1)
    else:
        set_base(m, record, st.BASE_FRAME, f, L, cells)
        state[record + st.M_PEND] = st.PEND_NEW
        settle_frame(m, slot, record)
    prove_by_first_id(m, slot, state[record + st.M_TIME], f)


@compiled
def apply_frame(m, slot, E, time, f, L, final, cells):
    """Apply an official kline frame of a minute.

    Args:
        m: The memory.
        slot: Local slot.
        E: Event time, ms.
        time: Open time of the minute.
        f: First trade id of the minute, -1: none.
        L: Last trade id in the frame, -1: none, -2: not told.
        final: Whether the exchange says it is the minute's last frame.
        cells: First state word of its nine cells.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    count(m, _FRAMES, 1)
    if L != UNKNOWN_ID:  # frames that tell no id come once a minute: their silence says nothing
        state[symbol + st.S_FRAME_E] = max(state[symbol + st.S_FRAME_E], E)
    state[symbol + st.S_BEHIND_SINCE] = st.NONE
    catch_up(m, slot, time)
    record = take_record(m, slot, time)
    if record == st.NONE:
        count(m, _STALE, 1)
        return
    confirmed = state[record + st.M_STATE] == STATE_CONFIRMED or state[record + st.M_SOURCE] != st.SOURCE_NONE
    if is_far_ahead(m, slot, L):
        count(m, _REFUSED, 1)
    elif state[cells + COUNT] == 0:
        apply_empty_frame(m, slot, record, final, cells)
    elif confirmed and final:
        apply_repeated_final(m, slot, record, f, L, cells)
    elif confirmed or not is_new(m, record, L, final):
        count(m, _STALE, 1)
    else:
        if state[symbol + st.S_JOINED] == st.FOREVER:
            state[symbol + st.S_JOINED] = E
        state[symbol + st.S_LAST_EVENT] = max(state[symbol + st.S_LAST_EVENT], E)
        state[symbol + st.S_COVERED_L] = max(state[symbol + st.S_COVERED_L], L)
        note_official_id(m, slot, L)
        if final:
            accept_final(m, slot, record, f, L, cells)
        else:
            accept_frame(m, slot, record, f, L, cells)
    if time > state[symbol + st.S_OPEN_MINUTE]:
        advance(m, slot, time)
    amend_touched(m, slot)
