"""Between integer cells and 128-byte records: packing, restoring, writing, counting."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.numbers import pack_numbers
from klshm.core.state import CELLS, COUNT, OPEN, QUOTE, TAKER_QUOTE, TAKER_VOLUME, VOLUME
from klshm.shm import layout as lay
from klshm.shm.atomics import float_of_bits
from klshm.shm.counters import WORKER
from klshm.shm.crash import HISTORY_WRITTEN, LOG_WRITTEN
from klshm.shm.crash_here import crash_here
from klshm.shm.exact import MAX_SUM, POWERS, split
from klshm.shm.halves import D_CRASH, mark_row
from klshm.shm.layout import ROW_WORDS
from klshm.shm.ring import write_entry
from klshm.shm.rows import history_index, row_is, write_row


__all__ = []

_LOG_ROWS = WORKER.index("log_rows_total")


@compiled
def count(m, counter, amount):
    """Add to a counter of the worker."""
    m.words[(m.state[st.C_COUNTERS] + counter) & st.PLACE] += amount


@compiled
def symbol_at(m, slot):
    """Return the first state word of a symbol."""
    return (m.state[st.C_SYMBOLS] + slot * st.S_WORDS) & st.PLACE


@compiled
def record_at(m, slot, index):
    """Return the first state word of one of a symbol's eight minute records."""
    return (m.state[st.C_RECORDS] + (slot * st.RECORDS + index) * st.M_WORDS) & st.PLACE


@compiled
def history_at(m, slot, interval, open_time):
    """Return the first segment word of the history row of an open time."""
    state = m.state
    rows = state[st.C_HISTORY_ROWS + interval]
    index = history_index(open_time, state[st.C_ANCHOR + interval], state[st.C_LENGTH + interval], rows)
    first = state[st.C_HISTORY_BASE + interval] + slot * rows
    return (state[st.C_HISTORY] + (first + index) * ROW_WORDS) & st.PLACE


@compiled
def live_at(m, slot, interval):
    """Return the first segment word of a live row."""
    return (m.state[st.C_LIVE] + (slot * m.state[st.C_INTERVALS] + interval) * ROW_WORDS) & st.PLACE


@compiled
def open_time_of(m, interval, time):
    """Return the open time of the bar of an interval that holds a time."""
    anchor, length = m.state[st.C_ANCHOR + interval], m.state[st.C_LENGTH + interval]
    return (time - anchor) // length * length + anchor


@compiled
def oldest_row(m, slot, interval):
    """Return the open time of the oldest closed bar that history can hold; an older one would overwrite a newer."""
    state = m.state
    rows = state[st.C_HISTORY_ROWS + interval]
    return state[symbol_at(m, slot) + st.S_OPEN_MINUTE] - (rows - 2) * state[st.C_LENGTH + interval]


@compiled
def row_state(words, at):
    """Return the state of the row at `at`."""
    return (words[at + lay.W_REVISION_SLOT] >> 56) & 0xFF


@compiled
def row_flags(words, at):
    """Return the flags of the row at `at`."""
    return words[at + lay.W_FLAGS] & 0xFFFF


@compiled
def row_revision(words, at):
    """Return the revision of the row at `at`."""
    return words[at + lay.W_REVISION_SLOT] & 0xFFFFFFFF


@merged
def row_slot(words, at):
    """Return the slot in the symbols table of the row at `at`."""
    return (words[at + lay.W_REVISION_SLOT] >> 32) & 0xFFFF


@compiled
def has_row(m, slot, interval, open_time):
    """Return whether history holds the bar of an open time."""
    return row_is(m.words, history_at(m, slot, interval, open_time), open_time)


@compiled
def pack(m, slot, interval, open_time, cells, status, flags, revision):
    """Make the record of a bar in the image.

    Args:
        m: The memory.
        slot: Local slot.
        interval: Index of the interval.
        open_time: UTC ms.
        cells: First state word of its nine cells, in units of the symbol's decimals.
        status: `STATE_...`.
        flags: `FLAG_...`.
        revision: Its revision.
    """
    state = m.state
    image = state[st.C_IMAGE] & st.PLACE
    symbol = symbol_at(m, slot)
    price_decimals, quantity_decimals = state[symbol + st.S_PRICE_DECIMALS], state[symbol + st.S_QUANTITY_DECIMALS]
    state[image + lay.W_OPEN_TIME] = open_time
    residuals = pack_numbers(m, image, cells, price_decimals, quantity_decimals)
    event_time = state[symbol + st.S_LAST_EVENT]
    delay_us = min(max((state[st.C_NOW] - event_time) * 1000, -2147483648), 2147483647)
    state[image + lay.W_COUNT_DELAY] = (state[cells + COUNT] & 0xFFFFFFFF) | (delay_us << 32)
    state[image + lay.W_LAST_AGG_ID] = state[symbol + st.S_LAST_A]
    state[image + lay.W_LAST_TRADE_ID] = state[symbol + st.S_COVERED_L]
    state[image + lay.W_EVENT_TIME] = event_time
    state[image + lay.W_REVISION_SLOT] = (
        (revision & 0xFFFFFFFF)
        | (state[symbol + st.S_GLOBAL_SLOT] << 32)
        | (state[st.C_CODE + interval] << 48)
        | (status << 56)
    )
    state[image + lay.W_FLAGS] = flags | (price_decimals << 16) | (quantity_decimals << 24) | residuals


@compiled
def in_finer_units(value, factor):
    """Return a sum in finer units; what does not fit becomes the bound that every fold counts as overflow."""
    return value * factor if value <= MAX_SUM // factor else MAX_SUM


@compiled
def restore(m, slot, at, cells):
    """Read the integer cells of the record at segment word `at`, in units of the symbol's decimals today.

    Args:
        m: The memory.
        slot: Local slot of the symbol.
        at: First segment word of the record.
        cells: First state word of the nine cells to fill.
    """
    words, state = m.words, m.state
    symbol = symbol_at(m, slot)
    packed = words[at + lay.W_FLAGS]
    price_decimals, quantity_decimals = (packed >> 16) & 0xFF, (packed >> 24) & 0xFF
    price_scale, quantity_scale = POWERS[price_decimals], POWERS[quantity_decimals]
    quote_scale = POWERS[price_decimals + quantity_decimals]
    residual = (packed >> 32) & 0xFFFF
    if residual >= 0x8000:
        residual -= 0x10000
    taker_residual = (packed >> 48) & 0xFFFF
    if taker_residual >= 0x8000:
        taker_residual -= 0x10000
    more_price = POWERS[state[symbol + st.S_PRICE_DECIMALS] - price_decimals]
    more_quantity = POWERS[state[symbol + st.S_QUANTITY_DECIMALS] - quantity_decimals]
    for k in range(4):
        price = split(float_of_bits(words[at + lay.W_OPEN + k]), price_scale)
        state[cells + OPEN + k] = in_finer_units(price, more_price)
    volume = split(float_of_bits(words[at + lay.W_VOLUME]), quantity_scale)
    state[cells + VOLUME] = in_finer_units(volume, more_quantity)
    taker_volume = split(float_of_bits(words[at + lay.W_TAKER_BUY_VOLUME]), quantity_scale)
    state[cells + TAKER_VOLUME] = in_finer_units(taker_volume, more_quantity)
    more_quote = more_price * more_quantity
    quote = split(float_of_bits(words[at + lay.W_QUOTE_VOLUME]), quote_scale) + residual
    taker_quote = split(float_of_bits(words[at + lay.W_TAKER_BUY_QUOTE_VOLUME]), quote_scale) + taker_residual
    state[cells + QUOTE] = in_finer_units(quote, more_quote)
    state[cells + TAKER_QUOTE] = in_finer_units(taker_quote, more_quote)
    state[cells + COUNT] = words[at + lay.W_COUNT_DELAY] & 0xFFFFFFFF


@compiled
def same_cells(m, one, other):
    """Return whether two bars are equal in all nine cells."""
    for k in range(CELLS):
        if m.state[one + k] != m.state[other + k]:
            return False
    return True


@compiled
def copy_cells(m, to, source, number):
    """Copy state words."""
    for k in range(number):
        m.state[to + k] = m.state[source + k]


@compiled
def image_values_differ(m, at):
    """Return whether the record in the image has other values than the one at `at`."""
    words, state = m.words, m.state
    image = state[st.C_IMAGE] & st.PLACE
    for k in range(lay.W_OPEN, lay.W_COUNT_DELAY):
        if words[at + k] != state[image + k]:
            return True
    return (
        (words[at + lay.W_COUNT_DELAY] & 0xFFFFFFFF) != (state[image + lay.W_COUNT_DELAY] & 0xFFFFFFFF)
        or words[at + lay.W_TAKER_BUY_VOLUME] != state[image + lay.W_TAKER_BUY_VOLUME]
        or words[at + lay.W_TAKER_BUY_QUOTE_VOLUME] != state[image + lay.W_TAKER_BUY_QUOTE_VOLUME]
        or (words[at + lay.W_FLAGS] ^ state[image + lay.W_FLAGS]) >> 16 != 0
    )


@compiled
def image_differs(m, at):
    """Return whether the record in the image says something else about its bar than the one at `at`.

    Compared are open time, the nine values, state, flags and residuals; not ids, times or revision.
    """
    words, image = m.words, m.state[st.C_IMAGE]
    return (
        words[at + lay.W_OPEN_TIME] != m.state[image + lay.W_OPEN_TIME]
        or image_values_differ(m, at)
        or (words[at + lay.W_REVISION_SLOT] >> 56) != (m.state[image + lay.W_REVISION_SLOT] >> 56)
        or words[at + lay.W_FLAGS] != m.state[image + lay.W_FLAGS]
    )


@compiled
def image_matters(m, at):
    """Return whether the image differs from the record at `at` in more than being provisional."""
    state = m.state
    image = state[st.C_IMAGE] & st.PLACE
    return (
        image_values_differ(m, at)
        or (m.words[at + lay.W_REVISION_SLOT] >> 56) != (state[image + lay.W_REVISION_SLOT] >> 56)
        or (m.words[at + lay.W_FLAGS] ^ state[image + lay.W_FLAGS]) & ~lay.FLAG_PROVISIONAL != 0
    )


@compiled
def mark_live(m, slot, interval):
    """Remember that a live row changed."""
    state = m.state
    intervals = state[st.C_INTERVALS]
    mark_row(state, state[st.C_TRACKER], state[st.C_SLOTS] * intervals, slot * intervals + interval)


@compiled
def write_live(m, slot, interval):
    """Write the image to the live row and remember that it changed."""
    write_row(m.words, live_at(m, slot, interval), m.state, m.state[st.C_IMAGE])
    mark_live(m, slot, interval)


@compiled
def list_slot(m, slot):
    """Remember that a symbol's live rows must be written at the end of the batch."""
    state = m.state
    symbol = symbol_at(m, slot)
    if state[symbol + st.S_LISTED] == 0:
        state[symbol + st.S_LISTED] = 1
        state[(state[st.C_TOUCHED_LIST] + state[st.C_TOUCHED]) & st.PLACE] = slot
        state[st.C_TOUCHED] += 1


@compiled
def write_log(m):
    """Append the image to the closed-bar log; the tail moves at the end of the batch."""
    state = m.state
    write_entry(m.words, state[st.C_LOG], state[st.C_LOG_ROWS], state[st.C_LOG_POSITION], state, state[st.C_IMAGE])
    state[st.C_LOG_POSITION] += 1
    count(m, _LOG_ROWS, 1)
    crash_here(state, state[st.C_TRACKER] + D_CRASH, LOG_WRITTEN)


@compiled
def write_history(m, slot, interval, open_time, logged):
    """Store the image as the closed bar of an open time; the log entry, if any, comes first."""
    if logged:
        write_log(m)
    state = m.state
    write_row(m.words, history_at(m, slot, interval, open_time), state, state[st.C_IMAGE])
    crash_here(state, state[st.C_TRACKER] + D_CRASH, HISTORY_WRITTEN)
    folds = m.state[st.C_FOLDS] + slot * m.state[st.C_INTERVALS] * st.F_WORDS
    for parent in range(interval + 1, m.state[st.C_INTERVALS]):
        if m.state[st.C_SOURCE + parent] == interval:
            m.state[folds + parent * st.F_WORDS + st.F_TIME] = st.NONE
