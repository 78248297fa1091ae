"""What the engine is told: one structured array of events, all words int64.

Prices and quantities travel as integers with the number of decimals they were written with, so
that no float ever stands between the exchange's string and the engine's sums.
"""

from __future__ import annotations

from typing import Final

import numpy as np


__all__ = [
    "CHECK",
    "EVENT",
    "FRAME",
    "NO_ROW",
    "REST_ROW",
    "SETTLE",
    "STREAM_DOWN",
    "SYMBOL_ADD",
    "SYMBOL_ORIGIN",
    "SYMBOL_REMOVE",
    "TICK",
    "TICKER",
    "TRADE",
]

TRADE: Final = 1
"""An aggregate trade: slot, time (E), open_time (T), a, f, l, open (price), volume (quantity), flag (m)."""
FRAME: Final = 2
"""An official 1m kline frame: slot, time (E), open_time, f, l (its L), nine cells, flag (x)."""
REST_ROW: Final = 3
"""An official row of any kept interval: slot, time (when it was read), open_time, interval index, nine cells."""
TICK: Final = 4
"""Exchange time has reached `time`: every minute that ended by then is closed."""
SETTLE: Final = 5
"""Nothing of minutes that ended by `open_time` can be under way any more."""
STREAM_DOWN: Final = 6
"""The trade stream of the slot is down or mute since `time`; slot -1: of all."""
TICKER: Final = 7
"""The exchange's ticker says the newest trade id is `l` at `time`."""
SYMBOL_ADD: Final = 8
"""A symbol joins at `slot`; l is its slot in the symbols table, open_time its first minute, decimals its own."""
SYMBOL_REMOVE: Final = 9
"""The symbol at `slot` has left the exchange."""
SYMBOL_ORIGIN: Final = 10
"""The exchange has no rows of the symbol before `open_time`."""

NO_ROW: Final = 12
"""The exchange itself has no row of the minute `open_time`, asked twice."""

CHECK: Final = 11
"""Several times a second: look for mute streams, write the needs table."""

EVENT: Final = np.dtype(
    [
        ("kind", "<i8"),
        ("slot", "<i8"),  # local slot
        ("time", "<i8"),  # event or read time on the exchange's clock, ms
        ("open_time", "<i8"),  # of the bar; of the first fill for a trade, ms
        ("interval", "<i8"),
        ("flag", "<i8"),
        ("a", "<i8"),
        ("f", "<i8"),
        ("l", "<i8"),
        ("price_decimals", "<i8"),
        ("quantity_decimals", "<i8"),
        ("quote_decimals", "<i8"),
        ("open", "<i8"),
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume", "<i8"),
        ("quote_volume", "<i8"),
        ("taker_buy_volume", "<i8"),
        ("taker_buy_quote_volume", "<i8"),
        ("trade_count", "<i8"),
        ("reserved", "<i8"),
    ]
)

E_KIND: Final = 0
E_SLOT: Final = 1
E_TIME: Final = 2
E_OPEN_TIME: Final = 3
E_INTERVAL: Final = 4
E_FLAG: Final = 5
E_A: Final = 6
E_F: Final = 7
E_L: Final = 8
E_PRICE_DECIMALS: Final = 9
E_QUANTITY_DECIMALS: Final = 10
E_QUOTE_DECIMALS: Final = 11
E_CELLS: Final = 12  # nine words, in the order of `klshm.core.state.CELLS`
E_WORDS: Final = 22
