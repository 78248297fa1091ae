"""`python -m klshm audit`: scope, output and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from klshm.cli import main
from klshm.config import Config, DataConfig, ExchangeConfig, KlinesConfig
from klshm.shm import layout as lay
from klshm.shm.counters import WORKER, index_of
from tests.audit.support import fill, rows_of
from tests.support.desk import Desk
from tests.support.exchange import Exchange, exchange


M = 60_000


@pytest.fixture(scope="module")
def market() -> Iterator[Exchange]:
    with exchange("--symbols", "4", "--rate", "20") as running:
        yield running


class World:
    """A segment that says where exchange and archive are, and an archive of two symbols."""

    def __init__(self, market: Exchange, directory: Path) -> None:
        self.market = market
        self.archive = directory / "test" / "klines.db"
        config = Config(
            instance="test",
            exchange=ExchangeConfig(rest_url=market.rest_url),
            klines=KlinesConfig(intervals=["1m", "5m"]),
            data=DataConfig(directory=str(directory)),
        )
        self.desk = Desk(config=config)
        self.rows = rows_of(market, "BTCUSDT", "1m", 60)
        self.since_ms = int(self.rows["open_time"][0])
        self.archive.parent.mkdir()
        for symbol in ("BTCUSDT", "ETHUSDT"):
            self.desk.list_symbol(symbol)
            fill(self.archive, symbol, *(rows_of(market, symbol, name, 60) for name in ("1m", "5m")))
        self.file = directory / "klshm.toml"
        self.file.write_text(
            f'[exchange]\nrest_url = "{market.rest_url}"\n[klines]\nintervals = ["1m", "5m"]\n'
            f'[data]\ndirectory = "{directory}"\n'
        )

    def damage(self) -> None:
        """Store a bar that the exchange contradicts."""
        wrong = self.rows[10:11].copy()
        wrong["volume"] += 0.001
        fill(self.archive, "BTCUSDT", wrong)


@pytest.fixture
def world(market: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("KLSHM_INSTANCE", raising=False)
    made = World(market, tmp_path)
    yield made
    made.desk.close()


def document(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main(["audit", "--json", *arguments]) == code
    return json.loads(capsys.readouterr().out)


def test_a_running_engine_since_a_time(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--since", str(world.since_ms))
    assert found["equal"] == found["compared"] > 2 * 50 and found["missing"] == 0 and found["differing"] == []
    assert list(found["per_interval"]) == ["1m", "5m"]
    only = document(capsys, "--since", str(world.since_ms), "--symbols", "ETHUSDT", "--intervals", "5m")
    assert list(only["per_interval"]) == ["5m"] and 0 < only["compared"] <= 12


def test_by_default_since_the_engine_started(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    words = world.desk.words
    words[lay.H_CREATED_MS] -= 10 * M
    found = document(capsys, "--intervals", "1m", "--symbols", "BTCUSDT")
    assert 8 <= found["compared"] <= 10


def test_sums_of_aggregate_trades_are_reported(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    block = world.desk.block(0)
    world.desk.words[block + index_of(WORKER, "match_aggtrade_compared_total")] = 7
    world.desk.words[block + index_of(WORKER, "match_aggtrade_equal_total")] = 3
    assert document(capsys)["aggtrade_only"] == {"compared": 7, "equal": 3}


def test_a_difference_ends_with_one_and_is_shown(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.damage()
    found = document(capsys, "--since", str(world.since_ms), code=1)
    assert found["equal"] == found["compared"] - 1
    assert found["differing"][0]["symbol"] == "BTCUSDT" and list(found["differing"][0]["fields"]) == ["volume"]
    assert main(["audit", "--since", str(world.since_ms), "--instance", "test"]) == 1
    out = capsys.readouterr().out
    assert "fields that differ: volume 1" in out and "different: BTCUSDT 1m" in out and out.endswith("not equal\n")


def test_table_for_people(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["audit", "--since", str(world.since_ms)]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("equal\n") and "too young to be judged" in said.out
    assert "audit 4 of 4 series\n" in said.err


def test_a_stopped_engine_by_its_configuration(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.desk.words[lay.H_STATE] = lay.STATE_CLOSED
    at = ("--config", str(world.file), "--instance", "test", "--since", str(world.since_ms))
    assert document(capsys, *at)["compared"] > 2 * 50
    assert document(capsys, *at, "--symbols", "BTCUSDT", "--intervals", "1m")["compared"] > 50
    assert main(["audit", *at, "--symbols", "NOUSDT"]) == 2
    assert "NOUSDT" in capsys.readouterr().err


def test_a_delisted_symbol_is_compared_to_the_end_of_its_last_minute(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery_ms = int(world.rows["open_time"][10]) + 20_000
    at = world.desk.layout.symbols_offset // 8 + world.desk.symbols["BTCUSDT"][0] * lay.SYMBOL_WORDS
    world.desk.words[at + lay.SYMBOL.names.index("delivery_ms")] = delivery_ms
    world.desk.set_status("BTCUSDT", lay.SYMBOL_DELISTED)
    found = document(capsys, "--since", str(world.since_ms), "--symbols", "BTCUSDT", "--intervals", "1m")
    assert found["compared"] == 11


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--symbols", "BTCUSD"), 2, "nearest are BTCUSDT"),
        (("--intervals", "2h"), 2, "kept are 1m, 5m"),
        (("--instance", "other"), 3, "other"),
        (("--config", "/nonexistent.toml"), 4, "nonexistent"),
    ],
)
def test_mistakes_end_with_one_line(
    world: World, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert main(["audit", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == "" and words in said.err and said.err.count("\n") == 1
