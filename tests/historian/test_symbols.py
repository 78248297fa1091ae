"""The symbols table and the dealing of symbols to workers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.historian.deal import deal
from klshm.historian.symbols import SymbolBook
from klshm.shm import layout as lay
from klshm.shm.view import SymbolTable
from tests.historian.support import listing
from tests.support.segments import segment


def test_heaviest_goes_to_the_lightest_worker() -> None:
    loads, rooms = [0, 0], [10, 10]
    dealt = deal({"A": 100, "B": 60, "C": 50, "D": 1}, loads, rooms)
    assert dealt == {"A": 0, "B": 1, "C": 1, "D": 0}
    assert loads == [101, 110] and rooms == [8, 8]


def test_without_figures_they_are_spread_evenly() -> None:
    dealt = deal(dict.fromkeys("ABCDEF", 0), [0, 0, 0], [2, 2, 2])
    assert sorted(dealt.values()) == [0, 0, 1, 1, 2, 2]


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 10**7), max_size=40),
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
)
def test_no_worker_gets_more_than_it_has_room_for(weights: dict[str, int], rooms: list[int]) -> None:
    dealt = deal(weights, [0] * len(rooms), list(rooms))
    assert len(dealt) == min(len(weights), sum(rooms))
    for worker, room in enumerate(rooms):
        assert sum(w == worker for w in dealt.values()) <= room


def test_table_is_what_readers_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch) as made:
        book, table = SymbolBook(made), SymbolTable(made)
        added = book.add(
            [listing("币安人生USDT", 5), listing("BTCUSDT", 7, contract_type="TRADIFI_PERPETUAL")],
            {"BTCUSDT": 100, "币安人生USDT": 9},
        )
        assert [e.slot for e in added] == [0, 1] and {e.worker for e in added} == {0, 1}
        assert table.find("币安人生USDT") == 0 and table.find("BTCUSDT") == 1 and table.version == 1
        row = table.row(1)
        assert row["status"] == lay.SYMBOL_TRADING and row["sequence"] == 2 and row["generation"] == 1
        assert (row["price_decimals"], row["quantity_decimals"], row["onboard_ms"], row["delivery_ms"]) == (2, 3, 7, 9)
        assert (row["trades_24h"], lay.CONTRACT_NAMES[row["contract"]]) == (100, "TRADIFI_PERPETUAL")
        assert bytes(row["pair"]) == b"BTCUSDT"


def test_new_symbols_go_to_the_lightest_and_slots_never_shift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch) as made:
        book, table = SymbolBook(made), SymbolTable(made)
        first = book.add([listing("A"), listing("B")], {"A": 100, "B": 1})
        book.replace([dataclasses.replace(first[0], status=lay.SYMBOL_DELISTED)])
        assert set(book.carried()) == {"B"} and table.version == 2
        (again,) = book.add([listing("A", 50)], {"A": 3})
        assert again.slot == 2 and again.worker == first[0].worker and again.local_slot == 1
        assert table.find("A") == 2 and table.find("B") == 1 and table.row(0)["status"] == lay.SYMBOL_DELISTED
        assert book.add([], {}) == [] and table.version == 3
        book.replace([])
        assert table.version == 3


def test_full_table_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch, max_symbols=5, slots=2) as made:
        book = SymbolBook(made)
        assert len(book.add([listing(f"S{i}") for i in range(9)], {})) == 4  # two workers of two slots
        assert book.room == 1
        assert book.add([listing("X")], {}) == []


def test_successor_takes_the_table_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch) as made:
        before = SymbolBook(made)
        before.add([listing("A"), listing("龙USDT", 3)], {"A": 4})
        before.replace([dataclasses.replace(before.entries[0], status=lay.SYMBOL_HALTED)])
        after = SymbolBook(made)
        assert after.entries == before.entries
        assert SymbolTable(made).rows()["sequence"].tolist() == [4, 2]


def test_row_left_half_written_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch) as made:
        SymbolBook(made).add([listing("A")], {})
        made.words[made.layout.symbols_offset // 8] |= 1  # killed while writing it
        SymbolBook(made)
        assert SymbolTable(made).rows()["sequence"].tolist() == [4]
        assert SymbolTable(made).find("A") == 0
