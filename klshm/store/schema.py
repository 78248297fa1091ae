"""The archive's schema: pragmas, tables, and the one statement that stores a bar.

::

    meta    key, value           version; watermark; historian_cursor
    series  one row per table: symbol, interval, onboard_ms, decimals, retired
    k_...   one table per series, open_time the primary key (columns: `klshm.store.rows`)

**Which of two bars of one open time stays** is a total order, so that it does not matter how
often or in which order they arrive: first rank (confirmed 3, closed 2, closed and partial 1,
open 0), then revision; equal in both, the stored one stays. Revision comes second because it
counts within one engine's memory: after a cold start a low number may be the better bar.
Among open bars, which share one revision while they grow, the last one written stays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from klshm.config import StoreConfig
from klshm.errors import ArchiveError
from klshm.store.migration import migrate
from klshm.store.names import quoted
from klshm.store.rows import COLUMNS


__all__ = [
    "VERSION",
    "check_version",
    "connect",
    "create_table_sql",
    "describe",
    "parse_mark",
    "pragmas",
    "stored_version",
    "upsert_sql",
]

VERSION: Final = 2

PAGE_BYTES: Final = 1024
"""A closing wave dirties one page in each of thousands of tables; small pages keep the WAL small."""

_CHECKPOINT_BYTES: Final = 8 * 1024 * 1024
_BUSY_S: Final = 0.25

_TABLES: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    (
        "CREATE TABLE series (table_name TEXT PRIMARY KEY, symbol TEXT NOT NULL, interval TEXT NOT NULL, "
        "onboard_ms INTEGER NOT NULL, price_decimals INTEGER NOT NULL, quantity_decimals INTEGER NOT NULL, "
        "retired INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID"
    ),
    "CREATE UNIQUE INDEX series_current ON series (symbol, interval) WHERE retired = 0",
)

_RANK: Final = "CASE {0}state WHEN 3 THEN 3 WHEN 2 THEN 2 - ({0}flags >> 1 & 1) ELSE 0 END"
_UPSERT: Final = (
    "INSERT INTO {table} VALUES ("
    + ", ".join("?" * len(COLUMNS))
    + ") ON CONFLICT (open_time) DO UPDATE SET "
    + ", ".join(f'"{column}" = excluded."{column}"' for column in COLUMNS[1:])
    + f" WHERE ({_RANK.format('excluded.')}, excluded.revision) > ({_RANK.format('')}, revision)"
    + " OR (state = 1 AND excluded.state = 1)"
)


def pragmas(store: StoreConfig) -> dict[str, str]:
    """Return the pragmas of the writing connection; `page_size` counts for a new file only."""
    return {
        "page_size": str(PAGE_BYTES),
        "journal_mode": "wal",
        "synchronous": "2",  # FULL: the journal is trimmed after a commit, so that commit must be on disk
        "cache_size": str(-(store.cache_bytes // 1024)),
        "mmap_size": str(store.mmap_bytes),
        "wal_autocheckpoint": str(_CHECKPOINT_BYTES // PAGE_BYTES),
        "journal_size_limit": str(store.wal_limit_bytes),
        "secure_delete": "0",
    }


def connect(
    path: Path, store: StoreConfig, statements: int, beat: Callable[[], None] = lambda: None
) -> sqlite3.Connection:
    """Open the archive for writing; create it where there is none, bring an older one up to date.

    Args:
        path: The file.
        store: Cache and limits.
        statements: Prepared statements kept; more than there are tables, or each wave prepares all anew.
        beat: Called several times a second while an older archive is brought up to date.

    Raises:
        ArchiveError: If it cannot be opened, is damaged, or has a schema of another program or a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, cached_statements=statements)
    except (OSError, sqlite3.Error) as error:
        raise ArchiveError(describe(path, error)) from error
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        version = stored_version(connection, path)
        for name, value in pragmas(store).items():
            connection.execute(f"PRAGMA {name} = {value}")
        if version is None:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('version', ?)", (VERSION,))
            connection.execute("COMMIT")
        elif version < VERSION:
            migrate(connection, path, version, VERSION, beat)
    except (OSError, sqlite3.Error) as error:
        connection.close()
        raise ArchiveError(describe(path, error)) from error
    except ArchiveError:
        connection.close()
        raise
    return connection


def check_version(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file can be read: it has this klshm's schema; False for an empty file.

    Raises:
        ArchiveError: If another program, or another version of klshm, wrote it.
        sqlite3.Error: If it cannot be read.
    """
    version = stored_version(connection, path)
    if version is not None and version < VERSION:
        raise ArchiveError(
            f"{path} has schema {version}, this klshm reads {VERSION}; start the engine: it brings the file up to date"
        )
    return version is not None


def stored_version(connection: sqlite3.Connection, path: Path) -> int | None:
    """Return the version of the schema that the file has; None for an empty file.

    Raises:
        ArchiveError: If another program or a newer klshm wrote it.
        sqlite3.Error: If it cannot be read.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE name IN ('meta', 'series')")}
    if not tables:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            return None
        raise ArchiveError(f"{path} is the database of another program; move it away or choose another data.directory")
    found = None
    if tables == {"meta", "series"}:
        found = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
    if found is None or not isinstance(found[0], int) or not 1 <= found[0] <= VERSION:
        raise ArchiveError(
            f"{path} has schema {found[0] if found else 'unknown'}, this klshm writes {VERSION}; "
            "use the klshm that wrote it, or move the file away"
        )
    return found[0]


def parse_mark(value: object) -> tuple[str, int] | None:
    """Return the uuid and the position that a stored mark names; None if it is none: work is then repeated."""
    uuid, _, position = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return (uuid, int(position)) if uuid and position.isascii() and position.isdigit() else None


def create_table_sql(table: str) -> str:
    """Return the statement that creates a series' table."""
    types = ["REAL"] * 8 + ["INTEGER"] * 6
    columns = ", ".join(f'"{name}" {kind} NOT NULL' for name, kind in zip(COLUMNS[1:], types, strict=True))
    return f"CREATE TABLE {quoted(table)} (open_time INTEGER PRIMARY KEY, {columns})"


def upsert_sql(table: str) -> str:
    """Return the statement that stores a bar unless a better one is there."""
    return _UPSERT.format(table=quoted(table))


def describe(path: Path, error: Exception) -> str:
    """Return one line about what went wrong with the archive, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is locked by another program; close what writes to it"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"{path} is damaged ({error}); move it away: its bars are fetched from the exchange again"
    if code == sqlite3.SQLITE_FULL:
        return f"no space left for {path}; free some: closed bars wait in the journal until then"
    if isinstance(error, OSError):
        return f"cannot use {path}: {error.strerror}; choose a data.directory that you may write to"
    return f"cannot use {path}: {error}; check its directory, its permissions and the free space"
