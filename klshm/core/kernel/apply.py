"""The one way in: a batch of events, applied in order, then published.

Order of publication (SHM section 3): log entries, history rows, live rows, swap (after a closing
wave), tail. Whoever sees a log entry finds it in history; whoever sees a live bar finds the
closed one before it.
"""

from __future__ import annotations

from klshm.core import events as ev
from klshm.core import state as st
from klshm.core.compiled import compiled, entry, merged
from klshm.core.kernel.closing import advance, log_late_changes, settle_minute
from klshm.core.kernel.frames import UNKNOWN_ID, apply_frame, note_official_id
from klshm.core.kernel.holes import prune_holes
from klshm.core.kernel.lifecycle import add_symbol, remove_symbol, set_origin
from klshm.core.kernel.live import fetch_column, publish_open
from klshm.core.kernel.needs import check_streams, set_doubt, write_needs
from klshm.core.kernel.rest import apply_rest_row
from klshm.core.kernel.rows import count, record_at, symbol_at
from klshm.core.kernel.scaling import read_cells, read_trade
from klshm.core.kernel.steady import AHEAD, FUTURE_MS, MOST_FILLS, apply_steady, fetch_ahead
from klshm.core.kernel.stored import give_up_minute
from klshm.core.kernel.trades import apply_trade
from klshm.core.state import CELLS, MINUTE, SUMS, Memory
from klshm.shm.counters import WORKER
from klshm.shm.crash import LIVE_WRITTEN, TAIL_MOVED
from klshm.shm.crash_here import crash_here
from klshm.shm.halves import D_CRASH, swap
from klshm.shm.layout import (
    B_SETTLED_THROUGH_MS,
    B_TAIL,
    CUT_BATCH,
    CUT_CLOSED_THROUGH_MS,
    CUT_EXCHANGE_MS,
    CUT_MONO_NS,
    STATE_CLOSED,
)
from klshm.shm.ring import publish_tail


__all__ = ["apply_events", "publish_halves"]

_REFUSED = WORKER.index("refused_total")
_SWAPS = WORKER.index("swaps_total")

MOST_TRADES = 1 << 31
"""No bar of any interval holds so many trades."""


@compiled
def event_cells(m):
    """Return nine scratch words for the cells of the event being applied."""
    return (m.state[st.C_SCRATCH] + 6 * CELLS) & st.PLACE


@merged
def on_trade(m, events, at):
    """Check a trade event and apply it."""
    state = m.state
    slot, E, T = events[at + ev.E_SLOT], events[at + ev.E_TIME], events[at + ev.E_OPEN_TIME]
    if apply_steady(m, slot, events, at):
        return
    sums = event_cells(m)
    state[symbol_at(m, slot) + st.S_STEADY] = st.FOREVER
    a, f, l = events[at + ev.E_A], events[at + ev.E_F], events[at + ev.E_L]
    latest = state[st.C_NOW] + FUTURE_MS
    if a < 0 or f < 0 or l < f or l - f >= MOST_FILLS or T <= 0 or T > latest or E <= 0 or E > latest:
        count(m, _REFUSED, 1)
        return
    price = read_trade(m, slot, events, at, sums, events[at + ev.E_FLAG] != 0)
    if price < 0:
        return
    state[sums + SUMS - 1] = l - f + 1
    E = max(E, T)
    symbol = symbol_at(m, slot)
    state[symbol + st.S_LAST_EVENT] = max(state[symbol + st.S_LAST_EVENT], E)
    apply_trade(m, slot, a, f, l, T, E, price, state[sums], sums)


@merged
def is_sane(events, at):
    """Return whether an event's nine cells can be a bar at all."""
    cells = at + ev.E_CELLS
    opening, high, low, close = events[cells], events[cells + 1], events[cells + 2], events[cells + 3]
    volume, quote, number = events[cells + st.VOLUME], events[cells + st.QUOTE], events[cells + st.COUNT]
    return (
        0 < low <= opening <= high
        and low <= close <= high
        and 0 <= events[cells + st.TAKER_VOLUME] <= volume
        and 0 <= events[cells + st.TAKER_QUOTE] <= quote
        and 0 <= number < MOST_TRADES
        and (number > 0) == (volume > 0)
        and (number > 0) == (quote > 0)
    )


@compiled
def read_bar(m, events, at, cells):
    """Check an official bar and read its cells; a refusal is counted."""
    if is_sane(events, at) and read_cells(m, events[at + ev.E_SLOT], events, at, cells):
        return True
    count(m, _REFUSED, 1)
    return False


@merged
def on_frame(m, events, at):
    """Check an official frame and apply it."""
    time, E = events[at + ev.E_OPEN_TIME], events[at + ev.E_TIME]
    first, last, number = events[at + ev.E_F], events[at + ev.E_L], events[at + ev.E_CELLS + st.COUNT]
    latest = m.state[st.C_NOW] + FUTURE_MS
    bad_ids = number > 0 and last != UNKNOWN_ID and not (0 <= first <= last and number <= last - first + 1)
    if time <= 0 or time % MINUTE != 0 or time > latest or E > latest or bad_ids:
        count(m, _REFUSED, 1)
        return
    cells = event_cells(m)
    if read_bar(m, events, at, cells):
        apply_frame(m, events[at + ev.E_SLOT], E, time, first, last, events[at + ev.E_FLAG] != 0, cells)


@merged
def on_rest_row(m, events, at):
    """Check an official row read by REST and apply it."""
    state = m.state
    interval, time = events[at + ev.E_INTERVAL], events[at + ev.E_OPEN_TIME]
    known = 0 <= interval < state[st.C_INTERVALS]
    if not known or time <= 0 or (time - state[st.C_ANCHOR + interval]) % state[st.C_LENGTH + interval] != 0:
        count(m, _REFUSED, 1)
        return
    cells = event_cells(m)
    if read_bar(m, events, at, cells):
        apply_rest_row(m, events[at + ev.E_SLOT], interval, time, events[at + ev.E_TIME], cells)


@compiled
def on_tick(m, time):
    """Close every minute that has ended, for every symbol, traded or not.

    Returns:
        Whether any bar was closed.
    """
    state = m.state
    minute = time // MINUTE * MINUTE
    closed = False
    for slot in range(state[st.C_SLOTS]):
        symbol = symbol_at(m, slot)
        if state[symbol + st.S_ACTIVE] == 0:
            continue
        state[symbol + st.S_STEADY] = st.FOREVER
        closed = closed or state[symbol + st.S_OPEN_MINUTE] < minute
        advance(m, slot, minute)
        log_late_changes(m, slot)
        prune_holes(m, slot)
    state[st.C_CLOSED_THROUGH] = max(state[st.C_CLOSED_THROUGH], minute)
    return closed


@compiled
def on_settle(m, through):
    """Settle every minute that ended by `through`."""
    state = m.state
    for slot in range(state[st.C_SLOTS]):
        symbol = symbol_at(m, slot)
        if state[symbol + st.S_ACTIVE] == 0:
            continue
        state[symbol + st.S_STEADY] = st.FOREVER
        for index in range(st.RECORDS):
            record = record_at(m, slot, index)
            ended = state[record + st.M_TIME] + MINUTE <= through
            if ended and state[record + st.M_STATE] == STATE_CLOSED:
                settle_minute(m, slot, record)
    state[st.C_SETTLED_THROUGH] = max(state[st.C_SETTLED_THROUGH], through)


@merged
def dispatch_moment(m, kind, events, at):
    """Apply a moment of the clock, or what concerns every symbol; return whether it was a tick that closed bars."""
    if kind == ev.TICK:
        return on_tick(m, events[at + ev.E_TIME])
    if kind == ev.SETTLE:
        on_settle(m, events[at + ev.E_OPEN_TIME])
    elif kind == ev.STREAM_DOWN:
        set_doubt(m, events[at + ev.E_SLOT], events[at + ev.E_TIME])
    else:
        check_streams(m)
        write_needs(m)
    return False


@merged
def dispatch_symbol(m, kind, events, at):
    """Apply an event of one symbol that is no trade; the next trade takes the long way."""
    slot = events[at + ev.E_SLOT]
    m.state[symbol_at(m, slot) + st.S_STEADY] = st.FOREVER
    if kind == ev.FRAME:
        on_frame(m, events, at)
    elif kind == ev.REST_ROW:
        on_rest_row(m, events, at)
    elif kind == ev.TICKER:
        note_official_id(m, slot, events[at + ev.E_L])
    elif kind == ev.SYMBOL_REMOVE:
        remove_symbol(m, slot)
    elif kind == ev.NO_ROW:
        give_up_minute(m, slot, events[at + ev.E_OPEN_TIME])
    elif kind == ev.SYMBOL_ORIGIN:
        set_origin(m, slot, events[at + ev.E_OPEN_TIME])
    else:
        count(m, _REFUSED, 1)


@merged
def dispatch(m, events, at):
    """Apply one event; return whether it was a tick that closed bars."""
    state = m.state
    kind, slot = events[at + ev.E_KIND], events[at + ev.E_SLOT]
    if ev.TICK <= kind <= ev.STREAM_DOWN or kind == ev.CHECK:
        return dispatch_moment(m, kind, events, at)
    if slot < 0 or slot >= state[st.C_SLOTS]:
        count(m, _REFUSED, 1)
    elif kind == ev.SYMBOL_ADD:
        add_symbol(m, slot, events, at)
    elif state[symbol_at(m, slot) + st.S_ACTIVE] == 0:
        count(m, _REFUSED, 1)
    elif kind == ev.TRADE:
        on_trade(m, events, at)
    else:
        dispatch_symbol(m, kind, events, at)
    return False


@compiled
def publish_cut(m, mono_ns):
    """Publish the rows that changed since the last two publications; return how many."""
    state = m.state
    cut = state[st.C_CUT]
    state[cut + CUT_MONO_NS] = mono_ns
    state[cut + CUT_EXCHANGE_MS] = state[st.C_NOW]
    state[cut + CUT_CLOSED_THROUGH_MS] = state[st.C_CLOSED_THROUGH]
    state[cut + CUT_BATCH] = state[st.C_BATCH]
    rows = state[st.C_SLOTS] * state[st.C_INTERVALS]
    halves = (state[st.C_HALF_0], state[st.C_HALF_1])
    tracker = state[st.C_TRACKER]
    copied = swap(m.words, state[st.C_BLOCK], state[st.C_LIVE], halves[0], halves[1], state, tracker, rows, cut)
    count(m, _SWAPS, 1)
    return copied


@entry
def publish_halves(words, state, mono_ns):
    """Publish the rows that changed since the last two publications; return how many."""
    return publish_cut(Memory(words, state), mono_ns)


@entry
def apply_events(words, state, events, number, now_ms, mono_ns):
    """Apply a batch of events and publish what changed.

    Args:
        words: The segment, dtype int64 (two arrays are handed over far faster than a tuple of them).
        state: The private memory, dtype int64.
        events: The events as words, dtype int64.
        number: How many.
        now_ms: The exchange's time.
        mono_ns: CLOCK_MONOTONIC, for the cut.

    Returns:
        How many log entries became visible.
    """
    m = Memory(words, state)
    state[st.C_NOW] = now_ms
    state[st.C_BATCH] += 1
    before = state[st.C_LOG_POSITION]
    wave = False
    for index in range(number):
        if index + AHEAD < number:
            fetch_ahead(m, events, ((index + AHEAD) * ev.E_WORDS) & st.PLACE)
        wave = dispatch(m, events, (index * ev.E_WORDS) & st.PLACE) or wave
    crash = state[st.C_TRACKER] + D_CRASH
    for index in range(state[st.C_TOUCHED]):
        if index + 1 < state[st.C_TOUCHED]:
            fetch_column(m, state[state[st.C_TOUCHED_LIST] + index + 1])
        publish_open(m, state[state[st.C_TOUCHED_LIST] + index])
        if wave:
            crash_here(state, crash, LIVE_WRITTEN)
    state[st.C_TOUCHED] = 0
    if wave:
        publish_cut(m, mono_ns)
    block = state[st.C_BLOCK]
    if state[st.C_LOG_POSITION] != before:
        publish_tail(m.words, block + B_TAIL, state[st.C_LOG_POSITION])
        crash_here(state, crash, TAIL_MOVED)
    if m.words[block + B_SETTLED_THROUGH_MS] != state[st.C_SETTLED_THROUGH]:
        publish_tail(m.words, block + B_SETTLED_THROUGH_MS, state[st.C_SETTLED_THROUGH])
    return state[st.C_LOG_POSITION] - before
