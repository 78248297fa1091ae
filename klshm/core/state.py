"""The engine's private memory: one int64 array, and where everything in it lies.

Per symbol: the identity of the newest trade, the running prefix P of all applied trades, the
newest 512 trades (ring), the known holes, eight minute records and one running fold per higher
interval. The words and their meaning follow BARS section 3.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from klshm.shm.halves import tracker_words
from klshm.shm.layout import CUT_WORDS, ROW_WORDS


__all__ = ["CELLS", "Memory", "new_memory"]

Words = np.ndarray[Any, np.dtype[np.int64]]

NONE: Final = -1
FOREVER: Final = 1 << 62
MINUTE: Final = 60_000
MAX_INTERVALS: Final = 16

LINE: Final = 8
"""Words of a cache line."""

PLACE: Final = (1 << 62) - 1
"""Mask of the index of a record: the compiler then sees that no word of it has a negative index, which Python
counts from the end, and leaves out asking at every access: a fifth of the time of a trade. Whoever calculates an
index has made sure that it is one: a wrong one reaches other memory, or none."""

CELLS: Final = 9
"""A bar in integer units: open, high, low, close, volume, quote, taker buy volume, taker buy quote, count."""
OPEN: Final = 0
HIGH: Final = 1
LOW: Final = 2
CLOSE: Final = 3
VOLUME: Final = 4
QUOTE: Final = 5
TAKER_VOLUME: Final = 6
TAKER_QUOTE: Final = 7
COUNT: Final = 8

SUMS: Final = 5
"""A prefix: volume, quote, taker buy volume, taker buy quote, count; the cells from VOLUME on."""

# ---------------------------------------------------------------------------------------
# Header of the array: what the engine is configured to, and where regions begin

C_SLOTS: Final = 0
C_INTERVALS: Final = 1
C_BLOCK: Final = 2  # first word of the worker's block in the segment
C_LIVE: Final = 3
C_HISTORY: Final = 4
C_NEEDS: Final = 5
C_LOG: Final = 6
C_LOG_ROWS: Final = 7
C_LOG_POSITION: Final = 8  # next entry to write; the tail follows it
C_COUNTERS: Final = 9  # first counter word
C_LAG_MS: Final = 10  # measured lag of the streams
C_AMEND_MS: Final = 11  # how long after its end a minute keeps its record
C_NOW: Final = 12  # exchange time of the batch being applied, ms
C_CLOSED_THROUGH: Final = 13
C_SETTLED_THROUGH: Final = 14
C_SKIP_FILLED: Final = 15  # folds leave filled children out of open, high and low
C_BATCH: Final = 16
C_TOUCHED: Final = 17  # number of slots in the touched list
C_SYMBOLS: Final = 18  # where the regions begin
C_RECORDS: Final = 19
C_RING: Final = 20
C_HOLES: Final = 21
C_FOLDS: Final = 22
C_TOUCHED_LIST: Final = 23
C_SCRATCH: Final = 24
C_HALF_0: Final = 25
C_HALF_1: Final = 26
C_IMAGE: Final = 27  # one row being made
C_TRACKER: Final = 28  # which live rows changed (`klshm.shm.halves`)
C_CUT: Final = 29
C_LENGTH: Final = 32  # MAX_INTERVALS words each from here on
C_ANCHOR: Final = 48
C_SOURCE: Final = 64
C_HISTORY_ROWS: Final = 80
C_HISTORY_BASE: Final = 96  # first row of the interval's series, in rows
C_CODE: Final = 112
C_WORDS: Final = 128

SCRATCH_CELLS: Final = 8
"""Bars of scratch; after them one scratch fold per interval."""

# ---------------------------------------------------------------------------------------
# Words of a symbol; most trades need its first lines only

S_LINES: Final = 3

S_ACTIVE: Final = 0
S_STEADY: Final = 1  # the open minute whose next trade may take the short way (`kernel.steady`), FOREVER: none
S_PRICE_DECIMALS: Final = 2
S_QUANTITY_DECIMALS: Final = 3
S_LAST_A: Final = 4  # newest aggregate trade id, -1: none yet
S_LAST_L: Final = 5  # newest trade id
S_LAST_T: Final = 6
S_LAST_E: Final = 7
S_COVERED_L: Final = 8  # newest trade id that trades or official frames cover
S_PREFIX: Final = 9  # SUMS words
S_EPOCH: Final = 14  # grows at every hole: prefixes compare within one epoch only
S_RING_COUNT: Final = 15  # trades ever pushed
S_FRAME_E: Final = 16  # event time of the newest frame
S_FRAME_L: Final = 17
S_AHEAD_SINCE: Final = 18  # since when official ids are ahead of the trades, -1
S_BEHIND_SINCE: Final = 19  # since when trades are ahead of the official frames, -1
S_LAST_EVENT: Final = 20  # newest event time of either stream
S_LISTED: Final = 21  # in the touched list
S_RESETS: Final = 22  # suspicious trades in a row
S_JOINED: Final = 23  # when the first trade or frame came, ms; FOREVER: not yet
S_GLOBAL_SLOT: Final = 24
S_OPEN_MINUTE: Final = 25  # open time of the live 1m bar; -1: none yet
S_TOUCHED: Final = 26  # bit per minute record that changed in this event
S_DOUBT: Final = 27  # since when the trade stream is in doubt, ms; -1: it is not
S_HOLES: Final = 28
S_UNFILLED: Final = 29  # first trade id after the newest hole that was given up
S_ORIGIN: Final = 30  # first minute the exchange can have, ms
S_LAST_CLOSE: Final = 31  # price of the newest close known, -1: unknown
S_FINAL_MINUTE: Final = 32  # newest minute that is final with a known L
S_FINAL_L: Final = 33
S_NEED_FROM: Final = 34  # oldest closed bar that is not confirmed, -1: none
S_AHEAD_FROM: Final = 35  # event time of the newest thing known when official ids first ran ahead
S_CONTRADICTED: Final = 36  # number of contradictions of confirmed bars, then their digests
S_DIGESTS: Final = 37  # DIGESTS words
S_UNLOGGED: Final = 41  # MAX_INTERVALS words: open time of a closed fold with unlogged changes, -1
S_START: Final = 57  # SUMS words: the prefix before the oldest trade ever held
S_WORDS: Final = 64

DIGESTS: Final = 4

# ---------------------------------------------------------------------------------------
# Words of a minute record (eight per symbol, at (minute number) & 7); most trades need its first lines only

M_LINES: Final = 4

RECORDS: Final = 8
M_TIME: Final = 0  # open time, -1: unused
M_PEND: Final = 1  # PEND_...: the base frame has not met its trades yet
M_BASE_L: Final = 2
M_OFF: Final = 3  # SUMS words: the prefix at the minute's lower cut
M_HAS_TRADES: Final = 8
M_FIRST: Final = 9  # first trade id held
M_OPEN: Final = 10  # prices of the trades held
M_HIGH: Final = 11
M_LOW: Final = 12
M_CLOSE: Final = 13
M_LAST: Final = 14  # last trade id held
M_LAST_E: Final = 15
M_END: Final = 16  # SUMS words: the prefix after the last trade held
M_LAST_MULTI: Final = 21  # the last group held has more than one id
M_MULTI_L: Final = 22  # last id of the newest group with more than one id
M_PURE: Final = 23  # CELLS words: the aggregate trades by T alone
M_BASE: Final = 32  # BASE_...
M_BASE_F: Final = 33
M_OWN: Final = 34  # the base is not the exchange's but our own row, found after a restart
M_HAS_OFF: Final = 35
M_OFF_EXACT: Final = 36
M_OFF_EPOCH: Final = 37
M_OFF_L: Final = 38  # the official id it was measured at, -1: it comes from trades or from the minute before
M_STATE: Final = 39  # STATE_LIVE, STATE_CLOSED, STATE_CONFIRMED
M_HOLED: Final = 40  # first trade id after trades that are known to be lost for good
M_NEXT_SEEN: Final = 41  # a contiguous trade of a later minute has been seen
M_BASE_CELLS: Final = 42  # CELLS words
M_CLEAN_L: Final = 51  # the last clean frame, to measure again when a hole was filled
M_CLEAN_SUMS: Final = 52  # SUMS words
M_SETTLED: Final = 57
M_UNLOGGED: Final = 58  # the history row changed since it was logged
M_SOURCE: Final = 59  # SOURCE_... of the confirmation
M_CORRECTED: Final = 60
M_LATE: Final = 61
M_PURE_CLEAN: Final = 62  # no hole touched it
M_HAS_TICK: Final = 63
M_TICK_CELLS: Final = 64  # CELLS words and a CLASS_...
M_HAS_SETTLE: Final = 74
M_SETTLE_CELLS: Final = 75  # CELLS words and a CLASS_...
M_WORDS: Final = 88

PEND_NO: Final = 0
PEND_NEW: Final = 1
PEND_AGAIN: Final = 2  # it has met trades before, but a missing one has been filled in since

BASE_NONE: Final = 0
BASE_FRAME: Final = 1  # an official frame, the minute goes on
BASE_FINAL: Final = 2  # x:true, or proven by the adjacent frame
BASE_REST: Final = 3  # a REST row stands in; its last trade id is unknown
BASE_EMPTY: Final = 4  # proven to have no trades

SOURCE_NONE: Final = 0
SOURCE_FINAL_FRAME: Final = 1
SOURCE_NEXT_FRAME: Final = 2
SOURCE_REST: Final = 3
SOURCE_EMPTY: Final = 4

CLASS_TRADED: Final = 0
CLASS_FILLED: Final = 1
CLASS_PARTIAL: Final = 2
CLASS_PROVISIONAL: Final = 3

# ---------------------------------------------------------------------------------------
# Words of a ring entry (512 per symbol) and of a hole (16 per symbol)

RING: Final = 512
R_F: Final = 0
R_L: Final = 1
R_T: Final = 2
R_E: Final = 3
R_EPOCH: Final = 4
R_PRICE: Final = 5
R_QUANTITY: Final = 6
R_PREFIX: Final = 7  # SUMS words: the prefix after it
R_WORDS: Final = 12

HOLES: Final = 16
H_FIRST_A: Final = 0
H_LAST_A: Final = 1
H_BEFORE_L: Final = 2  # -1: the trade before it is from before a restart
H_BEFORE_T: Final = 3
H_AFTER_F: Final = 4
H_AFTER_T: Final = 5
H_WORDS: Final = 6

# ---------------------------------------------------------------------------------------
# Words of a running fold (one per symbol and interval): the closed children of the open bar

F_TIME: Final = 0  # open time of the parent, -1: not built
F_UNTIL: Final = 1  # open time of the first child not in it
F_COUNT: Final = 2  # children in it
F_CELLS: Final = 3  # CELLS words
F_TRADED: Final = 12  # children that hold trades
F_PRICED: Final = 13  # children whose open, high and low count
F_FLAGS: Final = 14  # partial, provisional, late and corrected of any
F_CONFIRMED: Final = 15  # children confirmed
F_WORDS: Final = 16


class Memory(NamedTuple):
    """The two arrays a kernel works on.

    Attributes:
        words: The segment (or private memory of the same layout), dtype int64.
        state: The private array described here, dtype int64.
    """

    words: Words
    state: Words


def new_memory(words: Words, slots: int, intervals: int) -> Memory:
    """Return memory for an engine of so many symbols, nothing in it.

    Args:
        words: The segment, dtype int64.
        slots: Symbols this engine can hold.
        intervals: Kept intervals.
    """
    sizes = (
        (C_SYMBOLS, slots * S_WORDS),
        (C_RECORDS, slots * RECORDS * M_WORDS),
        (C_RING, slots * RING * R_WORDS),
        (C_HOLES, slots * HOLES * H_WORDS),
        (C_FOLDS, slots * intervals * F_WORDS),
        (C_TOUCHED_LIST, slots),
        (C_SCRATCH, SCRATCH_CELLS * CELLS + (1 + MAX_INTERVALS) * F_WORDS),
        (C_IMAGE, ROW_WORDS),
        (C_TRACKER, tracker_words(slots * intervals)),
        (C_CUT, CUT_WORDS),
    )
    starts, at = {}, C_WORDS
    for word, size in sizes:
        starts[word] = at
        at += size
    room = np.zeros(at + LINE, dtype=np.int64)
    first = -room.ctypes.data // 8 % LINE  # records of whole lines begin with one
    state = room[first : first + at]
    state[C_SLOTS], state[C_INTERVALS] = slots, intervals
    for word, start in starts.items():
        state[word] = start
    return Memory(words, state)
