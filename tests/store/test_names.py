from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.config import Config, DataConfig
from klshm.errors import ArchiveError
from klshm.intervals import INTERVALS
from klshm.store import names


@pytest.mark.parametrize(
    ("symbol", "interval", "table"),
    [
        ("BTCUSDT", "1m", "k_btc_1m"),
        ("1000SHIBUSDT", "1w", "k_1000shib_1w"),
        ("BTCUSDT_241227", "5m", "k_btcusdt_241227_5m"),
        ("ETHBTC", "1d", "k_ethbtc_1d"),
        ("币安人生USDT", "4h", "k_币安人生_4h"),
        ("USDT", "1m", "k_usdt_1m"),
    ],
)
def test_table_name_and_back(symbol: str, interval: str, table: str) -> None:
    assert names.table_name(symbol, interval) == table
    stem = symbol.removesuffix("USDT").lower() or "usdt"
    assert names.parse_table(table) == (stem, interval, "")
    assert names.quoted(table) == f'"{table}"'


def test_second_attempt_and_retired_names_parse() -> None:
    assert names.parse_table(names.table_name("BTC", "1m", 2)) == ("btc__2", "1m", "")
    retired = names.retired_table("k_btc_1m", 1_725_148_800_000)
    assert retired == "k_btc_1m__20240901"
    assert names.parse_table(retired) == ("btc", "1m", "20240901")
    second = names.retired_table("k_btc_1m", 1_725_148_800_000, 2)
    assert second == "k_btc_1m__20240901_2"
    assert names.parse_table(second) == ("btc", "1m", "20240901")


@given(st.text(alphabet=st.characters(categories=("L", "Nd"), include_characters="_"), min_size=1, max_size=16))
def test_every_legal_symbol_parses_from_the_right(symbol: str) -> None:
    if not names.is_legal_symbol(symbol):
        return
    for interval in INTERVALS:
        parsed = names.parse_table(names.table_name(symbol, interval))
        assert parsed is not None
        assert parsed[1] == interval


@pytest.mark.parametrize("symbol", ["", 'a"b', "BTC-PERP", "BTC USDT", "A" * 65, "币" * 22, "İUSDT", "x;--", "k\0"])
def test_illegal_symbols_are_refused(symbol: str) -> None:
    assert not names.is_legal_symbol(symbol)
    with pytest.raises(ArchiveError, match="cannot name a table"):
        names.table_name(symbol, "1m")


def test_unknown_interval_is_refused() -> None:
    with pytest.raises(ArchiveError):
        names.table_name("BTCUSDT", "3d")


@pytest.mark.parametrize(
    "table",
    ["sqlite_schema", 'k_a"; DROP TABLE meta; --_1m', "k__1m", "k_btc_1x", "k_btc_1m__2024", "k_btc_1m__20240901_"],
)
def test_foreign_tables_are_not_quoted(table: str) -> None:
    with pytest.raises(ArchiveError, match="not one of klshm's"):
        names.quoted(table)


def test_files_of_an_instance() -> None:
    directory = names.data_directory(Config(instance="demo", data=DataConfig(directory="d")))
    assert directory == Path("d/demo")
    assert names.archive_path(directory) == Path("d/demo/klines.db")
    assert names.journal_path(directory) == Path("d/demo/journal")
