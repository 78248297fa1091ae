"""Names on disk: the files of an instance, and the table of a series.

A series lives in a table `k_<symbol>_<interval>`: the symbol in lower case without its
trailing USDT (`BTCUSDT`, 1m: `k_btc_1m`). Because a symbol may hold underscores
(`BTCUSDT_241227`) a table name is parsed from the right. Two symbols that want one name
(`BTCUSDT` and `BTC`) get `k_btc_1m` and `k_btc__2_1m`; which is whose stands in the archive's
`series` table, whose table names are unique. A table of a listing that ended, its ticker
reused, is called `k_btc_1m__20240901` after the day that listing began; where two began on
that day, the second is called `k_btc_1m__20240901_2`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from klshm.config import Config
from klshm.errors import ArchiveError
from klshm.intervals import INTERVALS


__all__ = [
    "archive_path",
    "data_directory",
    "is_legal_symbol",
    "journal_path",
    "parse_table",
    "quoted",
    "retired_table",
    "table_name",
]

_MAX_SYMBOL_BYTES: Final = 64  # the symbols table holds no more
_WORD: Final = re.compile(r"\w+")
_TABLE: Final = re.compile(rf"k_(?P<stem>\w+)_(?P<interval>{'|'.join(INTERVALS)})(?:__(?P<day>\d{{8}})(?:_\d+)?)?")


def data_directory(config: Config) -> Path:
    """Return the directory that holds the files of the configured instance."""
    return Path(config.data.directory) / config.instance


def archive_path(directory: Path) -> Path:
    """Return the path of the SQLite archive in an instance's data directory."""
    return directory / "klines.db"


def journal_path(directory: Path) -> Path:
    """Return the path of the LMDB journal in an instance's data directory."""
    return directory / "journal"


def is_legal_symbol(symbol: str) -> bool:
    """Return whether a symbol can be stored: 1 to 64 bytes of letters, digits and `_` of any script."""
    return _is_word(symbol) and _is_word(symbol.lower())


def table_name(symbol: str, interval: str, attempt: int = 1) -> str:
    """Return the name of a series' table, unquoted.

    Args:
        symbol: As the exchange spells it.
        interval: Name of a kept interval.
        attempt: 1; more, if the names of the attempts before are taken by other symbols.

    Raises:
        ArchiveError: If the symbol breaks the name rule.
    """
    if not is_legal_symbol(symbol) or interval not in INTERVALS:
        raise ArchiveError(
            f"series {symbol!r} {interval!r} cannot name a table; expected a symbol of 1 to {_MAX_SYMBOL_BYTES} bytes "
            "of letters, digits and '_', and a kept interval"
        )
    stem = symbol.removesuffix("USDT").lower() or symbol.lower()
    return f"k_{stem}_{interval}" if attempt == 1 else f"k_{stem}__{attempt}_{interval}"


def retired_table(table: str, onboard_ms: int, attempt: int = 1) -> str:
    """Return what a table is called once its ticker belongs to a new listing.

    Args:
        table: Its present name.
        onboard_ms: When the listing that it holds began, UTC ms.
        attempt: 1; more, if the names of the attempts before are taken by listings that began on the same day.
    """
    name = f"{table}__{datetime.fromtimestamp(onboard_ms / 1000, UTC):%Y%m%d}"
    return name if attempt == 1 else f"{name}_{attempt}"


def parse_table(table: str) -> tuple[str, str, str] | None:
    """Take a table name apart.

    Returns:
        Stem, interval and the day a retired listing began (else empty); None for a foreign table.
    """
    match = _TABLE.fullmatch(table)
    return (match["stem"], match["interval"], match["day"] or "") if match else None


def quoted(table: str) -> str:
    """Return a table name as SQL text.

    Raises:
        ArchiveError: If it is not the name of a series' table.
    """
    if parse_table(table) is None:
        raise ArchiveError(f"table name {table!r} is not one of klshm's; the archive was changed by another program")
    return f'"{table}"'


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None and len(text.encode()) <= _MAX_SYMBOL_BYTES
