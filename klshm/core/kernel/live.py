"""The open bars of a symbol, written to the live table: the minute, and above it every interval's fold."""

from __future__ import annotations

import numpy as np

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import minute_cells
from klshm.core.kernel.flags import minute_flags
from klshm.core.kernel.folds import OF_BAR, fold_at, fold_flags, gather, scratch_fold
from klshm.core.kernel.numbers import SMALL
from klshm.core.kernel.records import take_record
from klshm.core.kernel.rows import count, live_at, mark_live, open_time_of, pack, symbol_at, write_live
from klshm.core.prefetch import prefetch
from klshm.core.state import CLOSE, COUNT, HIGH, LOW, OPEN, QUOTE, TAKER_QUOTE, TAKER_VOLUME, VOLUME
from klshm.shm import layout as lay
from klshm.shm.atomics import bits_of_float
from klshm.shm.counters import WORKER
from klshm.shm.exact import MAX_SUM, POWERS
from klshm.shm.layout import FLAG_FILLED, FLAG_PARTIAL, STATE_LIVE
from klshm.shm.rows import begin_row, end_row


__all__ = []

_OVERFLOWS = WORKER.index("overflows_total")


@merged
def holds(m, fold, interval, child, minute):
    """Return whether a running fold is that of the open bar, up to its open child; no division."""
    state = m.state
    in_bar = state[fold + st.F_TIME] <= minute < state[fold + st.F_TIME] + state[st.C_LENGTH + interval]
    return in_bar and state[fold + st.F_UNTIL] <= minute < state[fold + st.F_UNTIL] + state[st.C_LENGTH + child]


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
def write_open(m, slot, interval, bar, flags):
    """Write the live row of an open bar: as `pack` and `write_live` do, but straight from its cells into its place.

    Args:
        m: The memory.
        slot: Local slot.
        interval: Index of the interval.
        bar: First state word of the bar's fold.
        flags: Its flags.
    """
    state, words = m.state, m.words
    symbol = symbol_at(m, slot)
    cells = bar + st.F_CELLS
    opening, high, low, close = state[cells], state[cells + HIGH], state[cells + LOW], state[cells + CLOSE]
    volume, quote, trades = state[cells + VOLUME], state[cells + QUOTE], state[cells + COUNT]
    taker_volume, taker_quote = state[cells + TAKER_VOLUME], state[cells + TAKER_QUOTE]
    if opening | high | low | close | volume | quote | taker_volume | taker_quote >= SMALL:
        pack(m, slot, interval, state[bar + st.F_TIME], cells, STATE_LIVE, flags, 0)
        write_live(m, slot, interval)
        return
    price_decimals, quantity_decimals = state[symbol + st.S_PRICE_DECIMALS], state[symbol + st.S_QUANTITY_DECIMALS]
    price_scale, quantity_scale = np.float64(POWERS[price_decimals]), np.float64(POWERS[quantity_decimals])
    quote_scale = np.float64(POWERS[price_decimals + quantity_decimals])
    time, event_time = state[bar + st.F_TIME], state[symbol + st.S_LAST_EVENT]
    delay_us = min(max((state[st.C_NOW] - event_time) * 1000, -2147483648), 2147483647)
    last_a, last_l = state[symbol + st.S_LAST_A], state[symbol + st.S_COVERED_L]
    slot_word = (state[symbol + st.S_GLOBAL_SLOT] << 32) | (state[st.C_CODE + interval] << 48) | (STATE_LIVE << 56)
    flags_word = flags | (price_decimals << 16) | (quantity_decimals << 24)
    at = live_at(m, slot, interval)
    sequence = begin_row(words, at)
    words[at + lay.W_OPEN_TIME] = time
    words[at + lay.W_OPEN] = bits_of_float(np.float64(opening) / price_scale)
    words[at + lay.W_HIGH] = bits_of_float(np.float64(high) / price_scale)
    words[at + lay.W_LOW] = bits_of_float(np.float64(low) / price_scale)
    words[at + lay.W_CLOSE] = bits_of_float(np.float64(close) / price_scale)
    words[at + lay.W_VOLUME] = bits_of_float(np.float64(volume) / quantity_scale)
    words[at + lay.W_QUOTE_VOLUME] = bits_of_float(np.float64(quote) / quote_scale)
    words[at + lay.W_COUNT_DELAY] = (trades & 0xFFFFFFFF) | (delay_us << 32)
    words[at + lay.W_TAKER_BUY_VOLUME] = bits_of_float(np.float64(taker_volume) / quantity_scale)
    words[at + lay.W_TAKER_BUY_QUOTE_VOLUME] = bits_of_float(np.float64(taker_quote) / quote_scale)
    words[at + lay.W_LAST_AGG_ID] = last_a
    words[at + lay.W_LAST_TRADE_ID] = last_l
    words[at + lay.W_EVENT_TIME] = event_time
    words[at + lay.W_REVISION_SLOT] = slot_word
    words[at + lay.W_FLAGS] = flags_word
    end_row(words, at, sequence)
    mark_live(m, slot, interval)


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
        write_open(m, slot, interval, bar, said)


@merged
def fetch_column(m, slot):
    """Ask for the lines of the open bars and folds of the symbol that is written next."""
    state = m.state
    live, fold = live_at(m, slot, 0), fold_at(m, slot, 0)
    for line in range(state[st.C_INTERVALS] * (lay.ROW_WORDS // st.LINE)):
        prefetch(m.words, live + line * st.LINE)
        prefetch(state, fold + line * st.LINE)


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
    part = scratch_fold(m, 0)
    if minute_cells(m, slot, record, part + st.F_CELLS):
        flags = minute_flags(m, slot, record, False)
        state[part + st.F_TIME] = minute
        state[part + st.F_TRADED] = 0 if flags & FLAG_FILLED else 1
        state[part + st.F_FLAGS] = flags
        publish_column(m, slot, minute, flags)
