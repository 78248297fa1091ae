from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.errors import JournalError
from klshm.store.batch import BLOCK_ROWS, Batch, Listing, blocks_of, decode, encode, unite
from tests.store.engine import MINUTE, bars


LISTINGS = tuple(Listing(f"S{i}USDT", i) for i in range(40)) + (Listing("币安人生USDT", -1),)


def named(batch: Batch) -> list[tuple[str, int, int]]:
    return [(batch.listings[row["slot"]].name, int(row["open_time"]), int(row["revision"])) for row in batch.rows]


@given(st.lists(st.integers(0, 40), max_size=1100))
def test_blocks_keep_rows_names_and_order(slots: list[int]) -> None:
    batch = Batch(LISTINGS, bars(np.arange(len(slots)) * MINUTE, slot=np.array(slots, dtype=np.uint16)))
    blocks = [decode(encode(block)) for block in blocks_of(batch)]
    assert all(len(block) <= BLOCK_ROWS for block in blocks)
    assert [entry for block in blocks for entry in named(block)] == named(batch)
    assert all(len(block.listings) == len(np.unique(block.rows["slot"])) for block in blocks)
    assert named(unite(blocks)) == named(batch)
    assert {listing for block in blocks for listing in block.listings} == {LISTINGS[slot] for slot in slots}


def test_unite_of_nothing_is_empty() -> None:
    assert len(unite([])) == 0
    assert len(unite([Batch((), bars([]))])) == 0


@given(st.data())
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    value = bytearray(encode(Batch(LISTINGS[:1], bars([0, MINUTE]))))
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(JournalError, match="checksum"):
        decode(bytes(value))


def test_short_and_foreign_blocks_are_refused() -> None:
    import zlib

    with pytest.raises(JournalError, match="checksum"):
        decode(b"abc")
    body = b"\x09\x00\x00\x00"
    with pytest.raises(JournalError, match="format 9, expected 1"):
        decode(zlib.crc32(body).to_bytes(4, "little") + body)
