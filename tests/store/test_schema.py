from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from klshm.config import StoreConfig
from klshm.store import schema
from klshm.store.names import table_name


def test_pragmas_in_force(tmp_path: Path) -> None:
    store = StoreConfig(cache_bytes=8 << 20, mmap_bytes=1 << 20, wal_limit_bytes=7 << 20)
    for _ in range(2):
        connection = schema.connect(tmp_path / "klines.db", store, 100)
        found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in schema.pragmas(store)}
        connection.close()
        assert found == {
            "page_size": 1024,
            "journal_mode": "wal",
            "synchronous": 2,
            "cache_size": -8192,
            "mmap_size": 1 << 20,
            "wal_autocheckpoint": 8192,
            "journal_size_limit": 7 << 20,
            "secure_delete": 0,
        }


def test_columns_of_a_series_table(tmp_path: Path) -> None:
    connection = schema.connect(tmp_path / "klines.db", StoreConfig(), 100)
    connection.execute(schema.create_table_sql(table_name("BTCUSDT", "1m")))
    columns = [(name, kind) for _, name, kind, *_ in connection.execute('PRAGMA table_info("k_btc_1m")')]
    connection.close()
    reals = "open high low close volume quote_volume taker_buy_volume taker_buy_quote_volume".split()
    integers = "trade_count state flags revision residuals check".split()
    assert columns == [("open_time", "INTEGER"), *((n, "REAL") for n in reals), *((n, "INTEGER") for n in integers)]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_BUSY, "locked by another program"),
        (sqlite3.SQLITE_CORRUPT, "is damaged"),
        (sqlite3.SQLITE_FULL, "no space left"),
        (sqlite3.SQLITE_READONLY, "check its directory"),
    ],
)
def test_one_line_says_what_to_do(code: int, words: str) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    assert words in schema.describe(Path("klines.db"), error)
