"""The only module that knows where a byte of the segment lies.

File layout (`/dev/shm/klshm.<instance>`), every region on a page of its own::

    +---------------------------+ 0
    | header            4 KiB   |  magic, layout hash, uuid, sizes, offsets; version last
    +---------------------------+
    | configuration    28 KiB   |  resolved configuration, JSON
    +---------------------------+
    | launcher block    2 KiB   |  life line of the launcher, counters
    | historian block   2 KiB   |  exchange clock, log tail, symbol count, life, counters
    | persister block   2 KiB   |  cursor of the historian's log, life, counters
    | web block         2 KiB   |  life, counters
    +---------------------------+
    | symbols                   |  max_symbols rows of 256 B, written by the historian
    +---------------------------+
    | historian log             |  ring of backfilled rows on their way to the archive
    +---------------------------+
    | partition of worker 0     |  block 2 KiB (padded to a page)
    |                           |  live    [slot][interval]      128 B rows, fixed addresses
    |                           |  half 0  [slot][interval]      published copies
    |                           |  half 1  [slot][interval]
    |                           |  needs   [slot]                what it wants repaired
    |                           |  inbox   ring, written by the historian
    |                           |  log     ring of bars that closed or changed after closing
    |                           |  history [slot][interval][N]   closed bars, indexed by time
    +---------------------------+
    | partition of worker 1 ... |

Role block (2 KiB, lines of 128 B)::

    line 0  publish    generation, intent, cut of half 0, cut of half 1   (historian: clock)
    line 1  log        tail (its low 32 bits are the futex word), settled_through_ms
    line 2  cursors    positions this role has consumed, where a producer waits for it
    line 3  life       heartbeat, incarnation, pid, state
    line 4-11          128 counters, named in `klshm.shm.counters`
    line 12-15         last error: time_ms, length, UTF-8 text

All shared words are int64 in the machine's order; kernels write whole words. Each region has
exactly one writer (the table stands in ARCHITECTURE.md).

Longer than other modules on purpose: an offset and the words that lie there are read together.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from klshm.errors import LayoutMismatch, SegmentDamaged
from klshm.intervals import CODES


__all__ = [
    "BLOCK_BYTES",
    "CONFIG_BYTES",
    "FLAG_NAMES",
    "HEADER_BYTES",
    "KLINE",
    "LAYOUT_HASH",
    "MAGIC",
    "NEED",
    "ROW_BYTES",
    "ROW_WORDS",
    "STATE_NAMES",
    "SYMBOL",
    "VERSION",
    "Layout",
]

MAGIC: Final = int.from_bytes(b"KLSHMSEG", "little")
VERSION_MAJOR: Final = 1
VERSION_MINOR: Final = 0
VERSION: Final = VERSION_MAJOR << 16 | VERSION_MINOR

PAGE_BYTES: Final = 4096
HEADER_BYTES: Final = PAGE_BYTES
CONFIG_BYTES: Final = 7 * PAGE_BYTES
BLOCK_BYTES: Final = 2048
BLOCK_WORDS: Final = BLOCK_BYTES // 8
LINE_WORDS: Final = 16
ROW_BYTES: Final = 128
ROW_WORDS: Final = 16
SYMBOL_BYTES: Final = 256
SYMBOL_WORDS: Final = 32
MAX_INTERVALS: Final = 16
MAX_WORKERS: Final = 64

# ---------------------------------------------------------------------------------------
# Header words

H_MAGIC: Final = 0
H_VERSION: Final = 1
H_LAYOUT_HASH: Final = 2
H_UUID: Final = 3  # two words
H_TOTAL_BYTES: Final = 5
H_STATE: Final = 6
H_CREATED_MS: Final = 7
H_MAX_SYMBOLS: Final = 8
H_WORKERS: Final = 9
H_SLOTS: Final = 10
H_INTERVALS: Final = 11
H_LOG_ROWS: Final = 12
H_INBOX_ROWS: Final = 13
H_HISTORIAN_LOG_ROWS: Final = 14
H_CONFIG_BYTES: Final = 15
H_SWAP_INTERVAL_MS: Final = 16
H_INTERVAL_CODE: Final = 32  # MAX_INTERVALS words
H_HISTORY_ROWS: Final = 48  # MAX_INTERVALS words

# A bar is closed as well: `STATE_CLOSED`, among the states of a record below, has the same number.
STATE_STARTING: Final = 0
STATE_SERVING: Final = 1
STATE_DRAINING: Final = 3
STATE_SUPERSEDED: Final = 4
SEGMENT_STATE_NAMES: Final = ("starting", "serving", "closed", "draining", "superseded")

# ---------------------------------------------------------------------------------------
# Words of a role block, relative to the block

B_GENERATION: Final = 0
B_INTENT: Final = 1
B_CUT: Final = 2  # two entries of CUT_WORDS
CUT_WORDS: Final = 4
CUT_MONO_NS: Final = 0
CUT_EXCHANGE_MS: Final = 1
CUT_CLOSED_THROUGH_MS: Final = 2
CUT_BATCH: Final = 3

# The historian publishes no halves: its line 0 is the exchange clock, under a sequence.
B_CLOCK_SEQUENCE: Final = 0
B_CLOCK_OFFSET_NS: Final = 1  # exchange time - CLOCK_MONOTONIC
B_CLOCK_ERROR_NS: Final = 2
B_CLOCK_SYNCED_NS: Final = 3  # CLOCK_MONOTONIC of the sample; 0: never
B_CLOCK_ROUND_TRIP_NS: Final = 4

B_TAIL: Final = 16
B_SETTLED_THROUGH_MS: Final = 17  # worker: every bar that ended by then has settled
B_SYMBOL_COUNT: Final = 17  # historian: rows of the symbols table in use
B_SYMBOLS_VERSION: Final = 18  # historian: grows with every change of the table

B_CURSOR: Final = 32

B_HEARTBEAT_NS: Final = 48  # CLOCK_MONOTONIC
B_INCARNATION: Final = 49
B_PID: Final = 50
B_ROLE_STATE: Final = 51
B_START_TICKS: Final = 52  # start time of the process, /proc/<pid>/stat field 22
B_LAST_TURN_NS: Final = 53
B_CPU: Final = 54  # core the role is pinned to, -1: none

ROLE_ABSENT: Final = 0
ROLE_STARTING: Final = 1
ROLE_CONNECTING: Final = 2
ROLE_LIVE: Final = 3
ROLE_DRAINING: Final = 4
ROLE_STOPPED: Final = 5
ROLE_STATE_NAMES: Final = ("absent", "starting", "connecting", "live", "draining", "stopped")

B_COUNTERS: Final = 64
COUNTERS: Final = 128

B_INBOX_TAILS: Final = B_COUNTERS + COUNTERS - MAX_WORKERS
"""Tails of the workers' inboxes, in the historian's block: it is their only writer."""

B_ERROR_MS: Final = 192
B_ERROR_LENGTH: Final = 193
B_ERROR_TEXT: Final = 194
ERROR_TEXT_BYTES: Final = (BLOCK_WORDS - B_ERROR_TEXT) * 8

# ---------------------------------------------------------------------------------------
# The record

KLINE: Final = np.dtype(
    [
        ("sequence", "<i8"),
        ("open_time", "<i8"),
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("volume", "<f8"),
        ("quote_volume", "<f8"),
        ("trade_count", "<u4"),
        ("publish_delay_us", "<i4"),
        ("taker_buy_volume", "<f8"),
        ("taker_buy_quote_volume", "<f8"),
        ("last_agg_id", "<i8"),
        ("last_trade_id", "<i8"),
        ("event_time", "<i8"),
        ("revision", "<u4"),
        ("slot", "<u2"),
        ("interval", "u1"),
        ("state", "u1"),
        ("flags", "<u2"),
        ("price_decimals", "u1"),
        ("quantity_decimals", "u1"),
        ("quote_residual", "<i2"),
        ("taker_quote_residual", "<i2"),
    ]
)
"""One bar, 128 bytes; SHM section 2 says what each field holds."""

W_SEQUENCE: Final = 0
W_OPEN_TIME: Final = 1
W_OPEN: Final = 2
W_HIGH: Final = 3
W_LOW: Final = 4
W_CLOSE: Final = 5
W_VOLUME: Final = 6
W_QUOTE_VOLUME: Final = 7
W_COUNT_DELAY: Final = 8  # trade_count | publish_delay_us << 32
W_TAKER_BUY_VOLUME: Final = 9
W_TAKER_BUY_QUOTE_VOLUME: Final = 10
W_LAST_AGG_ID: Final = 11
W_LAST_TRADE_ID: Final = 12
W_EVENT_TIME: Final = 13
W_REVISION_SLOT: Final = 14  # revision | slot << 32 | interval << 48 | state << 56
W_FLAGS: Final = 15  # flags | decimals << 16, 24 | residuals << 32, 48

STATE_EMPTY: Final = 0
STATE_LIVE: Final = 1
STATE_CLOSED: Final = 2
STATE_CONFIRMED: Final = 3
STATE_NAMES: Final = ("empty", "live", "closed", "confirmed")

FLAG_FILLED: Final = 1
FLAG_PARTIAL: Final = 2
FLAG_PROVISIONAL: Final = 4
FLAG_LATE: Final = 8
FLAG_CORRECTED: Final = 16
FLAG_DERIVED: Final = 32
FLAG_NAMES: Final = ("filled", "partial", "provisional", "late", "corrected", "derived")

INTERVAL_COMMAND: Final = 255
"""An inbox entry with this interval is a command; its `state` byte says which."""

COMMAND_ADD: Final = 1  # slot, decimals; open_time = first minute to expect (listing)
COMMAND_REMOVE: Final = 2  # slot
COMMAND_ORIGIN: Final = 3  # slot; open_time = first minute the exchange has a row for
COMMAND_HISTORY_DONE: Final = 4  # slot; the history asked for at start has been sent
COMMAND_DOUBT: Final = 5  # slot; open_time = since when its streams seem mute, exchange time
COMMAND_NO_ROW: Final = 6  # slot; open_time = a minute that the exchange itself has no row of

# ---------------------------------------------------------------------------------------
# Rows of the symbols table and of the needs table

SYMBOL: Final = np.dtype(
    [
        ("sequence", "<i8"),
        ("generation", "<i8"),  # grows when the slot is given to another symbol
        ("status", "<i8"),
        ("worker", "<i8"),
        ("local_slot", "<i8"),
        ("price_decimals", "<i8"),
        ("quantity_decimals", "<i8"),
        ("onboard_ms", "<i8"),
        ("delivery_ms", "<i8"),
        ("trades_24h", "<i8"),
        ("contract", "<i8"),
        ("name", "S64"),  # UTF-8, as the exchange spells it
        ("pair", "S64"),
        ("reserved", "<i8", (5,)),
    ]
)

SYMBOL_EMPTY: Final = 0
SYMBOL_PENDING: Final = 1
SYMBOL_TRADING: Final = 2
SYMBOL_HALTED: Final = 3
SYMBOL_DELISTED: Final = 4
SYMBOL_STATUS_NAMES: Final = ("empty", "pending", "trading", "halted", "delisted")

CONTRACT_NAMES: Final = ("OTHER", "PERPETUAL", "TRADIFI_PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER")

NEED: Final = np.dtype(
    [
        ("sequence", "<i8"),
        ("slot", "<i8"),
        ("first_agg_id", "<i8"),
        ("last_agg_id", "<i8"),
        ("from_ms", "<i8"),  # open time of the first minute concerned
        ("to_ms", "<i8"),  # open time of the last minute concerned
        ("reason", "<i8"),  # bits, 0: nothing needed
        ("since_ms", "<i8"),
        ("trades_total", "<i8"),  # trades taken since the symbol joined; no need, but kept per symbol like one
        ("reserved", "<i8", (7,)),
    ]
)

NEED_HOLE: Final = 1  # missing aggregate trades
NEED_DOUBT: Final = 2  # the stream is down or mute
NEED_UNCONFIRMED: Final = 4  # closed bars wait for the exchange's own
NEED_LOST_FRAME: Final = 8  # a closed bar's final frame cannot come any more: the next minute's have
NEED_EMPTY: Final = 16  # closed bars without trades wait to be proven; alone, they can wait long


def _layout_hash() -> int:
    text = repr((KLINE.descr, SYMBOL.descr, NEED.descr, VERSION_MAJOR, BLOCK_BYTES, CONFIG_BYTES))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


LAYOUT_HASH: Final = _layout_hash()
"""Fingerprint of the records; differs whenever a field of a record moves."""


def _pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


@dataclass(frozen=True)
class Layout:
    """Sizes of one segment, and from them the offset of every region.

    Args:
        max_symbols: Rows of the symbols table.
        workers: Number of partitions.
        slots: Symbols that one partition can hold.
        interval_codes: Kept intervals (codes of `klshm.intervals`), shortest first.
        history_rows: Closed bars kept per symbol, one number per interval, multiples of 32.
        log_rows: Capacity of each worker's closed-bar log, a power of two.
        inbox_rows: Capacity of each worker's inbox, a power of two.
        historian_log_rows: Capacity of the historian's log, a power of two.
        swap_interval_ms: Time between two publications.
    """

    max_symbols: int
    workers: int
    slots: int
    interval_codes: tuple[int, ...]
    history_rows: tuple[int, ...]
    log_rows: int
    inbox_rows: int
    historian_log_rows: int
    swap_interval_ms: int

    # -- sizes ------------------------------------------------------------------------------

    @property
    def intervals(self) -> int:
        """Number of kept intervals."""
        return len(self.interval_codes)

    @property
    def table_bytes(self) -> int:
        """Size of a [slot][interval] table of rows."""
        return _pages(self.slots * self.intervals * ROW_BYTES)

    @property
    def history_rows_per_symbol(self) -> int:
        """History rows of one symbol over all intervals."""
        return sum(self.history_rows)

    @property
    def partition_bytes(self) -> int:
        """Size of one worker's partition."""
        return self.history_offset(0) - self.partition_offset(0) + _pages(
            self.slots * self.history_rows_per_symbol * ROW_BYTES
        )

    @property
    def total_bytes(self) -> int:
        """Size of the whole segment."""
        return self.partition_offset(self.workers)

    # -- offsets in bytes ---------------------------------------------------------------------

    config_offset = HEADER_BYTES
    launcher_offset = HEADER_BYTES + CONFIG_BYTES
    historian_offset = launcher_offset + BLOCK_BYTES
    persister_offset = historian_offset + BLOCK_BYTES
    web_offset = persister_offset + BLOCK_BYTES
    symbols_offset = web_offset + BLOCK_BYTES

    @property
    def historian_log_offset(self) -> int:
        """Offset of the historian's log."""
        return self.symbols_offset + _pages(self.max_symbols * SYMBOL_BYTES)

    def partition_offset(self, worker: int) -> int:
        """Return the offset of a worker's partition, which begins with its role block."""
        first = self.historian_log_offset + self.historian_log_rows * ROW_BYTES
        return first if worker == 0 else first + worker * self.partition_bytes

    def live_offset(self, worker: int) -> int:
        """Return the offset of a worker's live table."""
        return self.partition_offset(worker) + PAGE_BYTES

    def half_offset(self, worker: int, half: int) -> int:
        """Return the offset of one of a worker's two published halves."""
        return self.live_offset(worker) + (1 + half) * self.table_bytes

    def needs_offset(self, worker: int) -> int:
        """Return the offset of a worker's needs table."""
        return self.half_offset(worker, 2)

    def inbox_offset(self, worker: int) -> int:
        """Return the offset of a worker's inbox ring."""
        return self.needs_offset(worker) + _pages(self.slots * ROW_BYTES)

    def log_offset(self, worker: int) -> int:
        """Return the offset of a worker's closed-bar log."""
        return self.inbox_offset(worker) + _pages(self.inbox_rows * ROW_BYTES)

    def history_offset(self, worker: int) -> int:
        """Return the offset of a worker's history."""
        return self.log_offset(worker) + _pages(self.log_rows * ROW_BYTES)

    def history_row(self, local_slot: int, interval: int) -> int:
        """Return the first row of a series, counted in rows from the history's offset.

        Series of one interval lie side by side, symbol after symbol, so that a closing wave
        touches as few pages as it can.
        """
        return self.slots * sum(self.history_rows[:interval]) + local_slot * self.history_rows[interval]

    # -- header -------------------------------------------------------------------------------

    def write_header(self, words: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Fill the header words except the version, which the creator writes last."""
        words[H_MAGIC] = MAGIC
        words[H_LAYOUT_HASH] = LAYOUT_HASH
        words[H_TOTAL_BYTES] = self.total_bytes
        words[H_MAX_SYMBOLS] = self.max_symbols
        words[H_WORKERS] = self.workers
        words[H_SLOTS] = self.slots
        words[H_INTERVALS] = self.intervals
        words[H_LOG_ROWS] = self.log_rows
        words[H_INBOX_ROWS] = self.inbox_rows
        words[H_HISTORIAN_LOG_ROWS] = self.historian_log_rows
        words[H_SWAP_INTERVAL_MS] = self.swap_interval_ms
        words[H_INTERVAL_CODE : H_INTERVAL_CODE + self.intervals] = self.interval_codes
        words[H_HISTORY_ROWS : H_HISTORY_ROWS + self.intervals] = self.history_rows

    @classmethod
    def read_header(cls, words: np.ndarray[Any, np.dtype[np.int64]], path: str) -> Layout:
        """Read the layout of an existing segment.

        Args:
            words: The header, dtype int64.
            path: Where it came from, for messages.

        Raises:
            SegmentDamaged: If it is no klshm segment or its sizes contradict each other.
            LayoutMismatch: If it was written by another layout.
        """
        if int(words[H_MAGIC]) != MAGIC:
            raise SegmentDamaged(
                f"{path} does not begin with the mark of a klshm segment; "
                "another program's file, or damaged: remove it and start the engine"
            )
        version = int(words[H_VERSION])
        if version >> 16 != VERSION_MAJOR or int(words[H_LAYOUT_HASH]) != LAYOUT_HASH:
            raise LayoutMismatch(
                f"{path} was written by layout {version >> 16}.{version & 0xFFFF}, this klshm reads "
                f"{VERSION_MAJOR}.{VERSION_MINOR}; use the same klshm on both sides, or restart the engine"
            )
        count = int(words[H_INTERVALS])
        if not 1 <= count <= MAX_INTERVALS:
            raise SegmentDamaged(f"{path} claims {count} intervals, expected 1..{MAX_INTERVALS}; restart the engine")
        layout = cls(
            max_symbols=int(words[H_MAX_SYMBOLS]),
            workers=int(words[H_WORKERS]),
            slots=int(words[H_SLOTS]),
            interval_codes=tuple(int(c) for c in words[H_INTERVAL_CODE : H_INTERVAL_CODE + count]),
            history_rows=tuple(int(n) for n in words[H_HISTORY_ROWS : H_HISTORY_ROWS + count]),
            log_rows=int(words[H_LOG_ROWS]),
            inbox_rows=int(words[H_INBOX_ROWS]),
            historian_log_rows=int(words[H_HISTORIAN_LOG_ROWS]),
            swap_interval_ms=int(words[H_SWAP_INTERVAL_MS]),
        )
        if not layout._is_possible():
            raise SegmentDamaged(f"{path} has a header with impossible sizes: {layout}; restart the engine")
        if layout.total_bytes != int(words[H_TOTAL_BYTES]):
            raise SegmentDamaged(
                f"{path} says it has {int(words[H_TOTAL_BYTES])} bytes, its sizes add up to "
                f"{layout.total_bytes}; restart the engine"
            )
        return layout

    def _is_possible(self) -> bool:
        rings = (self.log_rows, self.inbox_rows, self.historian_log_rows)
        return (
            min(self.max_symbols, self.slots, *self.history_rows, *rings) > 0
            and 0 < self.workers <= MAX_WORKERS
            and all(rows & (rows - 1) == 0 for rows in rings)
            and set(self.interval_codes) <= set(CODES.values())
        )
