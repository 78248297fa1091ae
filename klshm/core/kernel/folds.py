"""Higher intervals: every bar is the exact fold of bars of the interval it is made from.

A fold's open, high and low leave out children without trades (`C_SKIP_FILLED`): the exchange's
five-minute open is the first trade, not the flat price of an empty first minute (BARS section 9).
Its close is the last child's. If no child holds trades, it is flat at the close.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.rows import (
    count,
    has_row,
    history_at,
    image_differs,
    image_matters,
    image_values_differ,
    oldest_row,
    open_time_of,
    pack,
    restore,
    row_flags,
    row_revision,
    row_state,
    symbol_at,
    write_history,
    write_log,
)
from klshm.core.state import CLOSE, COUNT, HIGH, LOW, VOLUME
from klshm.shm.counters import WORKER
from klshm.shm.exact import MAX_SUM
from klshm.shm.layout import (
    FLAG_CORRECTED,
    FLAG_DERIVED,
    FLAG_FILLED,
    FLAG_LATE,
    FLAG_PARTIAL,
    FLAG_PROVISIONAL,
    ROW_WORDS,
    STATE_CLOSED,
    STATE_CONFIRMED,
)


__all__ = []

_REFOLDS = WORKER.index("refolds_total")
_OVERFLOWS = WORKER.index("overflows_total")
OF_BAR = FLAG_PARTIAL | FLAG_PROVISIONAL
"""What holds of a bar if it holds of any child."""
_OF_CHANGE = FLAG_LATE | FLAG_CORRECTED
"""What holds of a bar if a child changed after the bar had settled."""


@compiled
def fold_at(m, slot, interval):
    """Return the first state word of the running fold of a symbol's interval."""
    return (m.state[st.C_FOLDS] + (slot * m.state[st.C_INTERVALS] + interval) * st.F_WORDS) & st.PLACE


@compiled
def scratch(m, index):
    """Return the first of nine scratch words."""
    return (m.state[st.C_SCRATCH] + index * st.CELLS) & st.PLACE


@compiled
def scratch_fold(m, interval):
    """Return the first state word of the scratch fold of an interval."""
    return (m.state[st.C_SCRATCH] + st.SCRATCH_CELLS * st.CELLS + interval * st.F_WORDS) & st.PLACE


@merged
def start_fold(m, fold, open_time):
    """Empty a fold."""
    state = m.state
    for k in range(st.F_WORDS):
        state[fold + k] = 0
    state[fold + st.F_TIME] = open_time
    state[fold + st.F_UNTIL] = open_time


@compiled
def add_child(m, fold, cells, filled, flags, confirmed):
    """Add a child to a fold.

    Args:
        m: The memory.
        fold: First state word of the fold.
        cells: First state word of the child's cells.
        filled: The child holds no trades.
        flags: Its flags.
        confirmed: It is confirmed.
    """
    state = m.state
    to = fold + st.F_CELLS
    if not filled or state[st.C_SKIP_FILLED] == 0:
        if state[fold + st.F_PRICED] == 0:
            for k in range(CLOSE):
                state[to + k] = state[cells + k]
        else:
            state[to + HIGH] = max(state[to + HIGH], state[cells + HIGH])
            state[to + LOW] = min(state[to + LOW], state[cells + LOW])
        state[fold + st.F_PRICED] += 1
    elif state[fold + st.F_PRICED] == 0:
        for k in range(CLOSE):
            state[to + k] = state[cells + CLOSE]
    state[to + CLOSE] = state[cells + CLOSE]
    for k in range(VOLUME, COUNT + 1):
        if state[to + k] >= MAX_SUM - state[cells + k]:
            state[fold + st.F_FLAGS] |= FLAG_PARTIAL
            count(m, _OVERFLOWS, 1)
        else:
            state[to + k] += state[cells + k]
    state[fold + st.F_FLAGS] |= flags & (OF_BAR | _OF_CHANGE)
    state[fold + st.F_COUNT] += 1
    if not filled:
        state[fold + st.F_TRADED] += 1
    if confirmed:
        state[fold + st.F_CONFIRMED] += 1


@compiled
def gather(m, slot, interval, open_time, until, fold):
    """Fold the closed children of a bar that history holds.

    Args:
        m: The memory.
        slot: Local slot.
        interval: Index of the bar's interval, not 0.
        open_time: Open time of the bar.
        until: Open time of the first child not to be taken.
        fold: First state word of the fold to fill.

    Returns:
        How many children that the exchange can have are missing.
    """
    state, words = m.state, m.words
    child = state[st.C_SOURCE + interval]
    step = state[st.C_LENGTH + child]
    origin = open_time_of(m, child, state[symbol_at(m, slot) + st.S_ORIGIN])
    start_fold(m, fold, open_time)
    state[fold + st.F_UNTIL] = until
    missing = 0
    for time in range(open_time, until, step):
        if has_row(m, slot, child, time):
            at = history_at(m, slot, child, time)
            cells = scratch(m, 0)
            restore(m, slot, at, cells)
            flags = row_flags(words, at)
            add_child(m, fold, cells, flags & FLAG_FILLED != 0, flags, row_state(words, at) == STATE_CONFIRMED)
        elif time >= origin:
            missing += 1
    if missing > 0:
        state[fold + st.F_FLAGS] |= FLAG_PARTIAL
    return missing


@compiled
def fold_flags(m, fold):
    """Return the flags of the bar that a fold makes."""
    flags = FLAG_DERIVED | (m.state[fold + st.F_FLAGS] & OF_BAR)
    if m.state[fold + st.F_TRADED] == 0:
        flags |= FLAG_FILLED
    return flags


@compiled
def log_row(m, at):
    """Log a history row as it is."""
    image = m.state[st.C_IMAGE]
    for k in range(1, ROW_WORDS):
        m.state[image + k] = m.words[at + k]
    write_log(m)


@compiled
def refold(m, slot, interval, open_time, log):
    """Fold a closed bar anew after one of its children changed, or for the first time.

    A bar that the exchange itself has confirmed is left alone: its children cannot overrule it.

    Args:
        m: The memory.
        slot: Local slot.
        interval: Index of its interval, not 0.
        open_time: Its open time.
        log: Log it now if it changed; otherwise at the next moment that logs. A new bar is logged at once.
    """
    state, words = m.state, m.words
    symbol = symbol_at(m, slot)
    at = history_at(m, slot, interval, open_time)
    known = has_row(m, slot, interval, open_time)
    old_flags = row_flags(words, at) if known else 0
    official = known and old_flags & FLAG_DERIVED == 0
    if official and row_state(words, at) == STATE_CONFIRMED:
        return
    if known and open_time < oldest_row(m, slot, state[st.C_SOURCE + interval]):
        return  # history does not hold its children any more
    fold = scratch_fold(m, interval)
    end = open_time + state[st.C_LENGTH + interval]
    missing = gather(m, slot, interval, open_time, end, fold)
    count(m, _REFOLDS, 1)
    children = state[fold + st.F_COUNT]
    if children == 0 or (official and state[fold + st.F_FLAGS] & FLAG_PARTIAL):
        return  # an official row, however young, knows more than that
    flags = fold_flags(m, fold)
    status = STATE_CONFIRMED if missing == 0 and state[fold + st.F_CONFIRMED] == children else STATE_CLOSED
    revision = row_revision(words, at) + 1 if known else 1
    if known:
        flags |= old_flags & (FLAG_LATE | FLAG_CORRECTED)
    pack(m, slot, interval, open_time, fold + st.F_CELLS, status, flags, revision)
    if known and end <= state[st.C_SETTLED_THROUGH] and image_values_differ(m, at):
        flags |= state[fold + st.F_FLAGS] & _OF_CHANGE
        pack(m, slot, interval, open_time, fold + st.F_CELLS, status, flags, revision)
    unlogged = symbol + st.S_UNLOGGED + interval
    changed = not known or image_differs(m, at)
    if not changed:
        if log and state[unlogged] == open_time:
            log_row(m, at)
            state[unlogged] = st.NONE
        return
    matters = end > state[st.C_SETTLED_THROUGH] or image_matters(m, at)
    logged = log or not known or (matters and state[unlogged] != st.NONE and state[unlogged] != open_time)
    write_history(m, slot, interval, open_time, logged)
    if not logged:
        if matters:
            state[unlogged] = open_time
    elif state[unlogged] == open_time:
        state[unlogged] = st.NONE


@merged
def has_all_children(m, slot, interval, open_time):
    """Return whether history holds every child of a bar that the exchange can have."""
    state = m.state
    child = state[st.C_SOURCE + interval]
    step = state[st.C_LENGTH + child]
    origin = open_time_of(m, child, state[symbol_at(m, slot) + st.S_ORIGIN])
    for time in range(open_time, open_time + state[st.C_LENGTH + interval], step):
        if time >= origin and not has_row(m, slot, child, time):
            return False
    return True


@compiled
def refold_if_whole(m, slot, interval, open_time, log, end):
    """Fold a closed bar anew that history holds or has all children of, or that ends at `end`."""
    known = has_row(m, slot, interval, open_time) or open_time + m.state[st.C_LENGTH + interval] == end
    if known or has_all_children(m, slot, interval, open_time):
        refold(m, slot, interval, open_time, log)


@compiled
def refold_above(m, slot, interval, time, log, end):
    """Bring everything above a changed bar up to date, level by level.

    Closed bars are folded anew at once; open ones when the symbol's live rows are written next.

    Args:
        m: The memory.
        slot: Local slot.
        interval: Index of the interval of the bar that changed.
        time: Its open time.
        log: Whether this is a moment that logs.
        end: Bars that end here close now, whatever is missing of them; -1: none does.
    """
    state = m.state
    open_minute = state[symbol_at(m, slot) + st.S_OPEN_MINUTE]
    for parent in range(interval + 1, state[st.C_INTERVALS]):
        if state[st.C_LENGTH + parent] % state[st.C_LENGTH + interval] != 0:
            continue
        open_time = open_time_of(m, parent, time)
        if oldest_row(m, slot, parent) <= open_time <= open_minute - state[st.C_LENGTH + parent]:
            refold_if_whole(m, slot, parent, open_time, log, end)
