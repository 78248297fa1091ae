"""The three moments of a bar: closed by the clock, settled, confirmed; and changes in between.

Each moment logs at most one entry; changes between moments show in history at once and are
logged at the next one. A change of a closed minute re-derives everything that stands on it: the
filled minutes behind it and the whole column above it.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled
from klshm.core.kernel.flags import class_of, minute_flags
from klshm.core.kernel.folds import log_row, publish_column, refold_above, scratch
from klshm.core.kernel.records import compose, find_record, is_empty, take_record
from klshm.core.kernel.rows import (
    copy_cells,
    count,
    has_row,
    history_at,
    image_differs,
    pack,
    record_at,
    restore,
    row_flags,
    row_revision,
    row_state,
    symbol_at,
    write_history,
)
from klshm.core.state import CELLS, CLOSE, COUNT, MINUTE, VOLUME
from klshm.shm import layout as lay
from klshm.shm.counters import WORKER
from klshm.shm.layout import STATE_CLOSED, STATE_CONFIRMED


__all__ = []

_CLOSED = WORKER.index("closed_total")
_FILLED = WORKER.index("filled_total")
_PARTIAL = WORKER.index("partial_total")
_LATE = WORKER.index("late_total")
_CORRECTED = WORKER.index("corrected_total")
_CONFIRMED_BY = WORKER.index("confirmed_by_final_frame_total")
_MATCH = WORKER.index("match_tick_traded_compared_total")
_MATCH_SETTLE = WORKER.index("match_settle_traded_compared_total")
_UNEQUAL = WORKER.index("match_tick_unequal_open_total")
_UNEQUAL_SETTLE = WORKER.index("match_settle_unequal_open_total")
_PURE_COMPARED = WORKER.index("match_aggtrade_compared_total")
_PURE_EQUAL = WORKER.index("match_aggtrade_equal_total")


@compiled
def list_slot(m, slot):
    """Remember that a symbol's live rows must be written at the end of the batch."""
    state = m.state
    symbol = symbol_at(m, slot)
    if state[symbol + st.S_LISTED] == 0:
        state[symbol + st.S_LISTED] = 1
        state[state[st.C_TOUCHED_LIST] + state[st.C_TOUCHED]] = slot
        state[st.C_TOUCHED] += 1


@compiled
def close_before(m, slot, time):
    """Return the close of the bar before a minute, -1 if it is unknown."""
    state = m.state
    if has_row(m, slot, 0, time - MINUTE):
        cells = scratch(m, 2)
        restore(m, slot, history_at(m, slot, 0, time - MINUTE), cells)
        return state[cells + CLOSE]
    if time <= state[symbol_at(m, slot) + st.S_OPEN_MINUTE] - MINUTE:
        return st.NONE
    return state[symbol_at(m, slot) + st.S_LAST_CLOSE]


@compiled
def minute_cells(m, slot, record, cells):
    """Read a minute's nine cells, flat at the close before it if it holds no trades.

    Returns:
        Whether there is a bar at all: without any price known there is none.
    """
    state = m.state
    if not is_empty(m, record):
        compose(m, slot, record, cells)
        return True
    price = close_before(m, slot, state[record + st.M_TIME])
    if price == st.NONE and state[record + st.M_BASE_CELLS + CLOSE] > 0:
        price = state[record + st.M_BASE_CELLS + CLOSE]  # an official row without trades names it
    for k in range(VOLUME):
        state[cells + k] = price
    for k in range(VOLUME, COUNT + 1):
        state[cells + k] = 0
    return price != st.NONE


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


@compiled
def snapshot_match(m, record, cells, has, to, flags):
    """Keep what the bar said at a moment, to compare it with the exchange's own later."""
    state = m.state
    if state[record + st.M_STATE] == STATE_CONFIRMED or state[record + has] == 1:
        return
    state[record + has] = 1
    copy_cells(m, record + to, cells, CELLS)
    state[record + to + CELLS] = class_of(flags)


@compiled
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
    if state[record + st.M_STATE] != STATE_CONFIRMED and state[symbol + st.S_NEED_FROM] == st.NONE:
        state[symbol + st.S_NEED_FROM] = time
    if not there:
        return
    flags = minute_flags(m, slot, record, True)
    count(m, _CLOSED, 1)
    if flags & lay.FLAG_FILLED:
        count(m, _FILLED, 1)
    if flags & lay.FLAG_PARTIAL:
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
    symbol = symbol_at(m, slot)
    if m.state[symbol + st.S_OPEN_MINUTE] == st.NONE:
        m.state[symbol + st.S_OPEN_MINUTE] = minute
        list_slot(m, slot)
    while m.state[symbol + st.S_OPEN_MINUTE] < minute:
        close_minute(m, slot)


@compiled
def values_differ(m, at):
    """Return whether the record in the image has other values than the one at `at`."""
    image = m.state[st.C_IMAGE]
    for k in range(lay.W_OPEN, lay.W_COUNT_DELAY):
        if m.words[at + k] != m.state[image + k]:
            return True
    return (
        (m.words[at + lay.W_COUNT_DELAY] & 0xFFFFFFFF) != (m.state[image + lay.W_COUNT_DELAY] & 0xFFFFFFFF)
        or m.words[at + lay.W_TAKER_BUY_VOLUME] != m.state[image + lay.W_TAKER_BUY_VOLUME]
        or m.words[at + lay.W_TAKER_BUY_QUOTE_VOLUME] != m.state[image + lay.W_TAKER_BUY_QUOTE_VOLUME]
    )


@compiled
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
    confirmed = state[record + st.M_STATE] == STATE_CONFIRMED
    pack(m, slot, 0, time, cells, state[record + st.M_STATE], minute_flags(m, slot, record, True), revision)
    if known and not image_differs(m, at):
        if log and state[record + st.M_UNLOGGED] == 1:
            log_row(m, at)
            state[record + st.M_UNLOGGED] = 0
            refold_above(m, slot, 0, time, log, st.NONE)
        return False
    if known and state[record + st.M_SETTLED] == 1 and values_differ(m, at):
        if confirmed or state[record + st.M_BASE] == st.BASE_REST:
            if state[record + st.M_CORRECTED] == 0:
                count(m, _CORRECTED, 1)
            state[record + st.M_CORRECTED] = 1
        else:
            if state[record + st.M_LATE] == 0:
                count(m, _LATE, 1)
            state[record + st.M_LATE] = 1
        pack(m, slot, 0, time, cells, state[record + st.M_STATE], minute_flags(m, slot, record, True), revision)
    moved = known and m.words[at + lay.W_CLOSE] != state[state[st.C_IMAGE] + lay.W_CLOSE]
    write_history(m, slot, 0, time, log)
    state[record + st.M_UNLOGGED] = 0 if log else 1
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
    open_minute = state[symbol_at(m, slot) + st.S_OPEN_MINUTE]
    while amend_one(m, slot, record, log):
        after = find_record(m, slot, state[record + st.M_TIME] + MINUTE)
        if after == st.NONE or state[after + st.M_TIME] >= open_minute or not is_empty(m, after):
            return
        record = after


@compiled
def settle_minute(m, slot, record):
    """Let a closed minute settle: what readers get by default is what it says now."""
    state = m.state
    if state[record + st.M_SETTLED] == 1:
        return
    cells = scratch(m, 1)
    if minute_cells(m, slot, record, cells):
        flags = minute_flags(m, slot, record, True)
        snapshot_match(m, record, cells, st.M_HAS_SETTLE, st.M_SETTLE_CELLS, flags)
    amend(m, slot, record, True)
    state[record + st.M_SETTLED] = 1


@compiled
def compare_moment(m, record, final, has, cells, compared, unequal):
    """Count whether what a bar said at a moment equals the exchange's own."""
    state = m.state
    if state[record + has] == 0:
        return
    group = state[record + cells + CELLS]
    count(m, compared + 2 * group, 1)
    equal = True
    for k in range(CELLS):
        if state[record + cells + k] != state[final + k]:
            equal = False
            if group != st.CLASS_PROVISIONAL:
                # counters follow the exchange's order: count stands before the taker's cells
                count(m, unequal + (k if k < 6 else (6 if k == COUNT else k + 1)), 1)
    if equal:
        count(m, compared + 2 * group + 1, 1)


@compiled
def compare(m, slot, record, final):
    """Compare a minute that has just been confirmed with what was said of it before."""
    state = m.state
    compare_moment(m, record, final, st.M_HAS_TICK, st.M_TICK_CELLS, _MATCH, _UNEQUAL)
    compare_moment(m, record, final, st.M_HAS_SETTLE, st.M_SETTLE_CELLS, _MATCH_SETTLE, _UNEQUAL_SETTLE)
    joined = state[symbol_at(m, slot) + st.S_JOINED] <= state[record + st.M_TIME]
    if state[record + st.M_PURE_CLEAN] == 1 and joined and state[final + COUNT] > 0:
        count(m, _PURE_COMPARED, 1)
        equal = True
        for k in range(CELLS):
            equal = equal and state[record + st.M_PURE + k] == state[final + k]
        if equal:
            count(m, _PURE_EQUAL, 1)


@compiled
def move_need(m, slot):
    """Move the oldest unconfirmed bar of a symbol forward past those that are confirmed."""
    state = m.state
    symbol = symbol_at(m, slot)
    time = state[symbol + st.S_NEED_FROM]
    if time == st.NONE:
        return
    while time < state[symbol + st.S_OPEN_MINUTE]:
        at = history_at(m, slot, 0, time)
        if not has_row(m, slot, 0, time) or row_state(m.words, at) != STATE_CONFIRMED:
            state[symbol + st.S_NEED_FROM] = time
            return
        time += MINUTE
    state[symbol + st.S_NEED_FROM] = st.NONE


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
    if state[record + st.M_STATE] == STATE_CONFIRMED:
        return
    closed = state[record + st.M_TIME] < state[symbol + st.S_OPEN_MINUTE]
    state[record + st.M_SOURCE] = source
    count(m, _CONFIRMED_BY + source - 1, 1)
    cells = scratch(m, 3)
    if minute_cells(m, slot, record, cells):
        compare(m, slot, record, cells)
    if not closed:
        return  # it will be confirmed when it closes
    state[record + st.M_STATE] = STATE_CONFIRMED
    amend(m, slot, record, True)
    state[record + st.M_SETTLED] = 1
    move_need(m, slot)


@compiled
def amend_touched(m, slot):
    """Bring every minute that the last event changed up to date."""
    state = m.state
    symbol = symbol_at(m, slot)
    touched = state[symbol + st.S_TOUCHED]
    if touched == 0:
        return
    state[symbol + st.S_TOUCHED] = 0
    list_slot(m, slot)
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        if touched >> index & 1 and state[record + st.M_TIME] < state[symbol + st.S_OPEN_MINUTE]:
            amend(m, slot, record, False)


@compiled
def confirm_stored_empty(m, slot, time):
    """Confirm a filled bar that is too old to have a record."""
    at = history_at(m, slot, 0, time)
    if not has_row(m, slot, 0, time) or row_state(m.words, at) == STATE_CONFIRMED:
        return
    if row_flags(m.words, at) & lay.FLAG_FILLED == 0:
        return
    cells = scratch(m, 1)
    restore(m, slot, at, cells)
    pack(m, slot, 0, time, cells, STATE_CONFIRMED, lay.FLAG_FILLED, row_revision(m.words, at) + 1)
    count(m, _CONFIRMED_BY + st.SOURCE_EMPTY - 1, 1)
    write_history(m, slot, 0, time, True)
    refold_above(m, slot, 0, time, True, st.NONE)


@compiled
def prove_empty(m, slot, first, end):
    """The ids leave no room for a trade in the minutes from `first` to before `end`: confirm them empty."""
    state = m.state
    symbol = symbol_at(m, slot)
    oldest = state[symbol + st.S_OPEN_MINUTE] - (st.RECORDS - 3) * MINUTE
    reach = state[symbol + st.S_OPEN_MINUTE] - (state[st.C_HISTORY_ROWS] - 2) * MINUTE
    for time in range(max(first, reach), end, MINUTE):
        if time < oldest:
            confirm_stored_empty(m, slot, time)
            continue
        record = take_record(m, slot, time)
        if record != st.NONE and state[record + st.M_BASE] == st.BASE_NONE and is_empty(m, record):
            state[record + st.M_BASE] = st.BASE_EMPTY
            confirm(m, slot, record, st.SOURCE_EMPTY)
    move_need(m, slot)


@compiled
def prove_empty_before(m, slot, T):
    """A contiguous trade at `T` proves the whole minutes since the trade before it empty.

    But not a minute that the earlier group may reach into: it was sent after the minute began,
    and its own minute is not known to end with it.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    own = state[symbol + st.S_LAST_T] // MINUTE * MINUTE
    first = own + MINUTE
    end = T // MINUTE * MINUTE
    if first >= end:
        return
    record = find_record(m, slot, own)
    ends_there = (
        record != st.NONE
        and state[record + st.M_BASE] == st.BASE_FINAL
        and state[symbol + st.S_LAST_L] <= state[record + st.M_BASE_L]
    )
    if not ends_there and state[symbol + st.S_LAST_E] >= first:
        first = state[symbol + st.S_LAST_E] // MINUTE * MINUTE + MINUTE
    prove_empty(m, slot, first, end)
