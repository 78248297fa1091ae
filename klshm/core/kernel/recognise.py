"""The two frames that nearly all frames are, read straight from their bytes into events.

An aggregate trade and a 1m kline of a combined stream, in the exchange's own order of keys. What
differs in anything (an escape, a sign, an exponent, a key more or less, decimals that differ
within a bar, a symbol not known) is not recognised: `klshm.core.messages` reads it, and has the
last word on every frame. Whatever is recognised here is the same event there.
"""

from __future__ import annotations

import numpy as np

from klshm.core import events as ev
from klshm.core.compiled import compiled, entry, merged
from klshm.core.kernel.text import expect, expect_after_comma, read_decimal, read_name, read_whole, skip_name
from klshm.core.state import CELLS, CLOSE, COUNT, HIGH, LOW, OPEN, PLACE, QUOTE, TAKER_QUOTE, TAKER_VOLUME, VOLUME


__all__ = ["ENTRY_WORDS", "SLACK", "enter_name", "recognise"]

ENTRY_WORDS = 4
"""Words of the table of names: slot + 1 (0: free), then the letters."""
NEWLINE, LETTER_A, LETTER_T = 10, 97, 116
FACTOR = 1_640_531_527
LOW_BITS = (1 << 31) - 1
SLACK = 64
"""Zeros behind what is read; more than any fixed text is long."""


def _text(text):
    return np.frombuffer(text, dtype=np.uint8)


STREAM, DATA = _text(b'{"stream":"'), _text(b'","data":{"e":"')
TRADE_E, A, S, P, Q = _text(b'aggTrade","E":'), _text(b',"a":'), _text(b',"s":"'), _text(b'","p":"'), _text(b'","q":"')
NQ, F, L, T, M = _text(b'","nq":"'), _text(b'","f":'), _text(b',"l":'), _text(b',"T":'), _text(b',"m":')
ST, END = _text(b',"st":'), _text(b"}}\n")
YES, NO = _text(b"true"), _text(b"false")
KLINE_E, K_T = _text(b'kline","E":'), _text(b'","k":{"t":')
K_END, K_S, K_I, K_F, K_L = _text(b'"T":'), _text(b'"s":"'), _text(b'"i":"1m"'), _text(b'"f":'), _text(b'"L":')
K_O, K_C, K_H, K_LOW, K_V = _text(b'"o":"'), _text(b'"c":"'), _text(b'"h":"'), _text(b'"l":"'), _text(b'"v":"')
K_N, K_X, K_Q, K_TV, K_TQ = _text(b'"n":'), _text(b'"x":'), _text(b'"q":"'), _text(b'"V":"'), _text(b'"Q":"')
K_B, K_CLOSE, MARK = _text(b'"B":"'), _text(b'"}}}\n'), _text(b'"')


@compiled
def place_of_name(names, first, second, third):
    """Return the entry of a name in the table, or the free one where it belongs."""
    mask = len(names) // ENTRY_WORDS - 1
    mixed = first ^ second ^ third
    mixed = (mixed ^ (mixed >> 31)) & LOW_BITS
    place = ((mixed * FACTOR) >> 20) & mask
    while True:
        at = place * ENTRY_WORDS
        same = names[at + 1] == first and names[at + 2] == second and names[at + 3] == third
        if same or names[at] == 0:
            return at
        place = (place + 1) & mask


@compiled
def read_slot(data, at, names, lost):
    """Read a symbol and find its slot; an unknown one is lost.

    Returns:
        The slot and the next position.
    """
    first, second, third, end = read_name(data, at, lost)
    if end == lost:
        return 0, lost
    slot = names[place_of_name(names, first, second, third)] - 1
    return slot, end if slot >= 0 else lost


@compiled
def read_flag(data, at, lost):
    """Read true or false."""
    if data[at] == LETTER_T:
        return 1, expect(data, at, YES, lost)
    return 0, expect(data, at, NO, lost)


@merged
def recognise_trade(data, at, names, events, to, lost):
    """Read an aggregate trade from behind `"e":"`; return the next position."""
    events[to + ev.E_TIME], at = read_whole(data, expect(data, at, TRADE_E, lost), lost)
    events[to + ev.E_A], at = read_whole(data, expect(data, at, A, lost), lost)
    events[to + ev.E_SLOT], at = read_slot(data, expect(data, at, S, lost), names, lost)
    price, price_decimals, at = read_decimal(data, expect(data, at, P, lost), lost)
    quantity, quantity_decimals, at = read_decimal(data, expect(data, at, Q, lost), lost)
    _, _, at = read_decimal(data, expect(data, at, NQ, lost), lost)
    events[to + ev.E_F], at = read_whole(data, expect(data, at, F, lost), lost)
    events[to + ev.E_L], at = read_whole(data, expect(data, at, L, lost), lost)
    events[to + ev.E_OPEN_TIME], at = read_whole(data, expect(data, at, T, lost), lost)
    events[to + ev.E_FLAG], at = read_flag(data, expect(data, at, M, lost), lost)
    _, at = read_whole(data, expect(data, at, ST, lost), lost)
    events[to + ev.E_KIND] = ev.TRADE
    events[to + ev.E_PRICE_DECIMALS] = price_decimals
    events[to + ev.E_QUANTITY_DECIMALS] = quantity_decimals
    events[to + ev.E_QUOTE_DECIMALS] = 0
    for k in range(CELLS):
        events[to + ev.E_CELLS + k] = 0
    events[to + ev.E_CELLS + OPEN] = price
    events[to + ev.E_CELLS + VOLUME] = quantity
    return expect(data, at, END, lost)


@compiled
def read_cell(data, at, events, to, decimals, lost):
    """Read a decimal of a bar into an event.

    Args:
        data: The bytes.
        at: Position of the number.
        events: Where it goes.
        to: To which word.
        decimals: How many decimals it must have, -1: any.
        lost: Where to go if it is anything else.

    Returns:
        Its decimals and the next position.
    """
    events[to], found, at = read_decimal(data, at, lost)
    at = expect(data, at, MARK, lost)
    return found, at if decimals < 0 or decimals == found else lost


@merged
def recognise_prices(data, at, events, to, lost):
    """Read open, close, high and low; return the next position."""
    cells = to + ev.E_CELLS
    decimals, at = read_cell(data, expect_after_comma(data, at, K_O, lost), events, cells + OPEN, -1, lost)
    _, at = read_cell(data, expect_after_comma(data, at, K_C, lost), events, cells + CLOSE, decimals, lost)
    _, at = read_cell(data, expect_after_comma(data, at, K_H, lost), events, cells + HIGH, decimals, lost)
    _, at = read_cell(data, expect_after_comma(data, at, K_LOW, lost), events, cells + LOW, decimals, lost)
    events[to + ev.E_PRICE_DECIMALS] = decimals
    return at


@merged
def recognise_sums(data, at, events, to, lost):
    """Read volume, count, whether the bar is final, and the other sums; return the next position."""
    cells = to + ev.E_CELLS
    decimals, at = read_cell(data, expect_after_comma(data, at, K_V, lost), events, cells + VOLUME, -1, lost)
    events[cells + COUNT], at = read_whole(data, expect_after_comma(data, at, K_N, lost), lost)
    events[to + ev.E_FLAG], at = read_flag(data, expect_after_comma(data, at, K_X, lost), lost)
    quote, at = read_cell(data, expect_after_comma(data, at, K_Q, lost), events, cells + QUOTE, -1, lost)
    _, at = read_cell(data, expect_after_comma(data, at, K_TV, lost), events, cells + TAKER_VOLUME, decimals, lost)
    _, at = read_cell(data, expect_after_comma(data, at, K_TQ, lost), events, cells + TAKER_QUOTE, quote, lost)
    events[to + ev.E_QUANTITY_DECIMALS] = decimals
    events[to + ev.E_QUOTE_DECIMALS] = quote
    return at


@merged
def recognise_kline(data, at, names, events, to, lost):
    """Read a 1m kline from behind `"e":"`; return the next position."""
    events[to + ev.E_TIME], at = read_whole(data, expect(data, at, KLINE_E, lost), lost)
    events[to + ev.E_SLOT], at = read_slot(data, expect(data, at, S, lost), names, lost)
    events[to + ev.E_OPEN_TIME], at = read_whole(data, expect(data, at, K_T, lost), lost)
    _, at = read_whole(data, expect_after_comma(data, at, K_END, lost), lost)
    at = skip_name(data, expect_after_comma(data, at, K_S, lost), lost)
    at = expect_after_comma(data, expect(data, at, MARK, lost), K_I, lost)
    events[to + ev.E_F], at = read_whole(data, expect_after_comma(data, at, K_F, lost), lost)
    events[to + ev.E_L], at = read_whole(data, expect_after_comma(data, at, K_L, lost), lost)
    at = recognise_prices(data, at, events, to, lost)
    at = recognise_sums(data, at, events, to, lost)
    _, _, at = read_decimal(data, expect_after_comma(data, at, K_B, lost), lost)
    events[to + ev.E_KIND] = ev.FRAME
    events[to + ev.E_A] = 0
    return expect(data, at, K_CLOSE, lost)


@entry
def enter_name(names, data, slot):
    """Give a symbol its slot in the table of names.

    Args:
        names: The table, dtype int64, a power of two of entries, at least one of them free.
        data: The name, a quote, and SLACK zeros.
        slot: Local slot.

    Returns:
        Whether it is a name that frames can be recognised by.
    """
    lost = len(data) - SLACK + 1
    first, second, third, end = read_name(data, 0, lost)
    if end != len(data) - SLACK - 1:
        return False
    at = place_of_name(names, first, second, third)
    names[at] = slot + 1
    names[at + 1] = first
    names[at + 2] = second
    names[at + 3] = third
    return True


@entry
def recognise(data, at, lost, names, events, row, number):
    """Read frames, one per line, until one is not recognised.

    Args:
        data: Lines of one frame each, then more zeros than any fixed text is long.
        at: Where the first begins.
        lost: Where to go with what is not recognised: the second of the zeros. The last frame must end before the
            first: else one held a line end of its own, and was taken for two.
        names: The table of names.
        events: Where events go, dtype int64.
        row: The first event to write.
        number: How many frames.

    Returns:
        How many were recognised, each now one event (behind them may be halves of others); 0 if they do not end
        where they must.
    """
    for index in range(number):
        to = ((row + index) * ev.E_WORDS) & PLACE
        events[to + ev.E_INTERVAL] = 0
        events[to + ev.E_WORDS - 1] = 0
        at = expect(data, at, STREAM, lost)
        at = expect(data, skip_name(data, at, lost), DATA, lost)
        if data[at] == LETTER_A:
            at = recognise_trade(data, at, names, events, to, lost)
        else:
            at = recognise_kline(data, at, names, events, to, lost)
        if at == lost:
            return index
    return number if at == lost - 1 else 0
