"""Reading the bytes of a frame: fixed text, whole numbers, decimals, names; nothing but the plainest form of each.

Every reader takes a position and returns the next one. What it does not know for certain sends
it to the position `lost`, where zeros follow that nothing matches: a reader that is lost stays
lost, and only the last position has to be looked at.
"""

from __future__ import annotations

import numpy as np

from klshm.core.compiled import compiled
from klshm.core.state import PLACE


__all__ = []

MOST_DIGITS = 18
MOST_NAME = 64
ZERO, QUOTE, BACKSLASH, POINT, COMMA, SPACE = 48, 34, 92, 46, 44, 32
NAME_WORDS = 3
"""A symbol has at most 24 letters here; any other takes the long way."""


@compiled
def expect(data, at, text, lost):
    """Read exactly this text."""
    differs, first = np.uint8(0), at & PLACE
    for k in range(len(text)):
        differs |= data[first + k] ^ text[k]
    return at + len(text) if differs == 0 else lost


@compiled
def expect_after_comma(data, at, text, lost):
    """Read a comma, one space if there is one, and exactly this text."""
    first = at & PLACE
    if data[first] != COMMA:
        return lost
    return expect(data, at + 2 if data[first + 1] == SPACE else at + 1, text, lost)


@compiled
def digit_at(data, at):
    """Return the digit at a position; anything outside 0 to 9 is none."""
    return np.int64(data[at & PLACE]) - ZERO


@compiled
def read_whole(data, at, lost):
    """Read a whole number of at most 18 digits, without a sign or a needless zero.

    Returns:
        The number and the next position.
    """
    value, position, end = 0, at, at + MOST_DIGITS
    digit = digit_at(data, position)
    while 0 <= digit <= 9 and position < end:
        value = value * 10 + digit
        position += 1
        digit = digit_at(data, position)
    plain = position > at and not 0 <= digit <= 9 and (data[at] != ZERO or position == at + 1)
    return value, position if plain else lost


@compiled
def read_decimal(data, at, lost):
    """Read a plain decimal of at most 18 digits.

    Returns:
        Its digits as a whole number, how many stand behind the point, and the next position.
    """
    value, position, end = 0, at, at + MOST_DIGITS
    digit = digit_at(data, position)
    while 0 <= digit <= 9 and position < end:
        value = value * 10 + digit
        position += 1
        digit = digit_at(data, position)
    if position == at:
        return 0, 0, lost
    if data[position] != POINT:
        return value, 0, lost if 0 <= digit <= 9 else position
    point = position
    position += 1
    end += 1
    digit = digit_at(data, position)
    while 0 <= digit <= 9 and position < end:
        value = value * 10 + digit
        position += 1
        digit = digit_at(data, position)
    plain = position > point + 1 and not 0 <= digit <= 9
    return value, position - point - 1, position if plain else lost


@compiled
def skip_name(data, at, lost):
    """Read a name of plain letters up to its closing quote."""
    position = at
    while position < at + MOST_NAME and SPACE < data[position & PLACE] < 127:
        if data[position & PLACE] == QUOTE:
            return position
        if data[position & PLACE] == BACKSLASH:
            return lost
        position += 1
    return lost


@compiled
def read_name(data, at, lost):
    """Read a symbol up to its closing quote.

    Returns:
        Its letters in three words, and the next position.
    """
    first, second, third = np.int64(0), np.int64(0), np.int64(0)
    end = skip_name(data, at, lost)
    length = end - at
    if end == lost or length == 0 or length > 8 * NAME_WORDS:
        return first, second, third, lost
    for k in range(length):
        letter = np.int64(data[(at + k) & PLACE]) << (8 * (k & 7))
        if k < 8:
            first |= letter
        elif k < 16:
            second |= letter
        else:
            third |= letter
    return first, second, third, end
