from __future__ import annotations

import sqlite3
import struct
import zlib
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from klshm.shm import layout as lay
from klshm.shm.layout import KLINE
from klshm.store import rows
from tests.store.engine import MINUTE, bars


ARCHIVED = [
    name
    for name in KLINE.names or ()
    if name not in ("sequence", "slot", "last_agg_id", "last_trade_id", "event_time", "publish_delay_us")
]

SEED = rows.series_seed("BTCUSDT", "1m")

reals = st.floats(min_value=0, max_value=1e15, allow_nan=False)
shorts = st.integers(-32768, 32767)


@st.composite
def any_bar(draw: st.DrawFn) -> np.ndarray:
    row = np.zeros(1, dtype=KLINE)
    row["open_time"] = draw(st.integers(0, 2**45))
    for name in rows.CELLS[:-2]:
        row[name] = draw(reals)
    row["trade_count"], row["revision"] = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**32 - 1))
    row["state"], row["flags"] = draw(st.integers(1, 3)), draw(st.integers(0, 63))
    row["quote_residual"], row["taker_quote_residual"] = draw(shorts), draw(shorts)
    row["price_decimals"], row["quantity_decimals"] = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    row["interval"] = 2
    return row


def encoded(bar: np.ndarray, seed: int = SEED) -> tuple[Any, ...]:
    """Return one bar as SQL parameters."""
    return rows.encode_rows(bar, [seed])[0]


@given(st.lists(any_bar(), min_size=1, max_size=5))
def test_a_bar_comes_back_bit_for_bit_through_sqlite(parts: list[np.ndarray]) -> None:
    original = np.concatenate(parts)
    connection = sqlite3.connect(":memory:")
    kinds = ["INTEGER", *["REAL"] * 8, *["INTEGER"] * 6]
    columns = ", ".join(f'"{n}" {kind} NOT NULL' for n, kind in zip(rows.COLUMNS, kinds, strict=True))
    connection.execute(f"CREATE TABLE t ({columns})")
    encoded_rows = rows.encode_rows(original, [SEED] * len(original))
    connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * 15)})", encoded_rows)
    stored = connection.execute("SELECT * FROM t").fetchall()
    connection.close()
    assert all(rows.is_intact(row, SEED) for row in stored)
    for row, before in zip(stored, original, strict=True):
        again = rows.decode_rows([row], 2, int(before["price_decimals"]), int(before["quantity_decimals"]))[0]
        for name in ARCHIVED:
            assert again[name].tobytes() == before[name].tobytes(), name
        assert again["slot"] == rows.NO_SLOT
        assert again["last_trade_id"] == -1


def test_check_is_the_crc_of_fourteen_words_in_a_series() -> None:
    row = encoded(bars([5 * MINUTE], state=3, flags=9, revision=7))
    assert row[-1] == zlib.crc32(struct.pack("<q8d5q", *row[:-1]), zlib.crc32(b"BTCUSDT\x001m"))


def test_a_bar_is_intact_in_its_own_series_only() -> None:
    row = encoded(bars([5 * MINUTE]))
    assert rows.is_intact(row, SEED) and rows.intact_rows([row], SEED) == [row]
    for stranger in (rows.series_seed("BTCUSDT", "5m"), rows.series_seed("ETHUSDT", "1m")):
        assert not rows.is_intact(row, stranger) and rows.intact_rows([row], stranger) == []


@given(any_bar(), st.text(), st.text())
def test_the_mask_is_what_a_seed_changes(bar: np.ndarray, symbol: str, interval: str) -> None:
    seed = rows.series_seed(symbol, interval)
    assert encoded(bar, seed)[-1] == encoded(bar, 0)[-1] ^ rows.series_mask(seed)


@given(any_bar(), st.integers(0, 13), st.integers(0, 63))
def test_any_flipped_bit_is_found(bar: np.ndarray, column: int, bit: int) -> None:
    row = list(encoded(bar))
    code = "d" if isinstance(row[column], float) else "q"
    (word,) = struct.unpack("<Q", struct.pack("<" + code, row[column]))
    (row[column],) = struct.unpack("<" + code, struct.pack("<Q", word ^ 1 << bit))
    assert not rows.is_intact(tuple(row), SEED)


def test_text_or_null_in_a_row_is_damage() -> None:
    row = encoded(bars([0]))
    assert not rows.is_intact(("x", *row[1:]), SEED)
    assert not rows.is_intact((row[0], None, *row[2:]), SEED)
    assert not rows.is_intact((*row[:-2], 2**80, row[-1]), SEED)


def test_residuals_cost_nothing_where_there_are_none() -> None:
    at = rows.COLUMNS.index("residuals")
    assert encoded(bars([0]))[at] == 0
    assert encoded(bars([0], taker_quote_residual=-1))[at] != 0


def test_negative_zero_is_stored_as_zero() -> None:
    row = encoded(bars([0], volume=-0.0))
    assert str(row[rows.COLUMNS.index("volume")]) == "0.0"


def test_rows_with_residuals_keep_their_own_decimals() -> None:
    two = bars([0, MINUTE], quote_residual=[5, 0], price_decimals=1, quantity_decimals=0)
    values = rows.encode_rows(two, [SEED, SEED])
    again = rows.decode_rows(values, 0, 2, 3)
    assert again["price_decimals"].tolist() == [1, 2]
    assert again["quantity_decimals"].tolist() == [0, 3]


def test_amended_row_is_intact() -> None:
    row = rows.amended(encoded(bars([0], revision=1)), 9, lay.FLAG_CORRECTED, SEED)
    assert rows.is_intact(row, SEED)
    assert row[rows.COLUMNS.index("revision")] == 9
