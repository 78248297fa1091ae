from __future__ import annotations

import sqlite3
import struct
import zlib

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


@given(st.lists(any_bar(), min_size=1, max_size=5))
def test_a_bar_comes_back_bit_for_bit_through_sqlite(parts: list[np.ndarray]) -> None:
    original = np.concatenate(parts)
    connection = sqlite3.connect(":memory:")
    kinds = ["INTEGER", *["REAL"] * 8, *["INTEGER"] * 6]
    columns = ", ".join(f'"{n}" {kind} NOT NULL' for n, kind in zip(rows.COLUMNS, kinds, strict=True))
    connection.execute(f"CREATE TABLE t ({columns})")
    connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * 15)})", rows.encode_rows(original))
    stored = connection.execute("SELECT * FROM t").fetchall()
    connection.close()
    assert all(rows.is_intact(row) for row in stored)
    for row, before in zip(stored, original, strict=True):
        again = rows.decode_rows([row], 2, int(before["price_decimals"]), int(before["quantity_decimals"]))[0]
        for name in ARCHIVED:
            assert again[name].tobytes() == before[name].tobytes(), name
        assert again["slot"] == rows.NO_SLOT
        assert again["last_trade_id"] == -1


def test_check_is_the_crc_of_fourteen_words() -> None:
    row = rows.encode_rows(bars([5 * MINUTE], state=3, flags=9, revision=7))[0]
    assert row[-1] == zlib.crc32(struct.pack("<q8d5q", *row[:-1]))


@given(any_bar(), st.integers(0, 13), st.integers(0, 63))
def test_any_flipped_bit_is_found(bar: np.ndarray, column: int, bit: int) -> None:
    row = list(rows.encode_rows(bar)[0])
    code = "d" if isinstance(row[column], float) else "q"
    (word,) = struct.unpack("<Q", struct.pack("<" + code, row[column]))
    (row[column],) = struct.unpack("<" + code, struct.pack("<Q", word ^ 1 << bit))
    assert not rows.is_intact(tuple(row))


def test_text_or_null_in_a_row_is_damage() -> None:
    row = rows.encode_rows(bars([0]))[0]
    assert not rows.is_intact(("x", *row[1:]))
    assert not rows.is_intact((row[0], None, *row[2:]))
    assert not rows.is_intact((*row[:-2], 2**80, row[-1]))


def test_residuals_cost_nothing_where_there_are_none() -> None:
    at = rows.COLUMNS.index("residuals")
    assert rows.encode_rows(bars([0]))[0][at] == 0
    assert rows.encode_rows(bars([0], taker_quote_residual=-1))[0][at] != 0


def test_negative_zero_is_stored_as_zero() -> None:
    row = rows.encode_rows(bars([0], volume=-0.0))[0]
    assert str(row[rows.COLUMNS.index("volume")]) == "0.0"


def test_rows_with_residuals_keep_their_own_decimals() -> None:
    values = rows.encode_rows(bars([0, MINUTE], quote_residual=[5, 0], price_decimals=1, quantity_decimals=0))
    again = rows.decode_rows(values, 0, 2, 3)
    assert again["price_decimals"].tolist() == [1, 2]
    assert again["quantity_decimals"].tolist() == [0, 3]


def test_amended_row_is_intact() -> None:
    row = rows.amended(rows.encode_rows(bars([0], revision=1))[0], 9, lay.FLAG_CORRECTED)
    assert rows.is_intact(row)
    assert row[rows.COLUMNS.index("revision")] == 9
