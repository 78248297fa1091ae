"""`snapshot`: a file from a running engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from klshm.config import Config, DataConfig
from klshm.shm import layout as lay
from klshm.store.snapshot import read_snapshot
from klshm.store.state import symbol_names
from tests.commands.support import Run
from tests.support.desk import MINUTE, START, Desk


def test_a_snapshot_of_all_open_bars(desk: Desk, run: Run, tmp_path: Path) -> None:
    desk.set_clock(START + 7000)
    for name in ("BTCUSDT", "币安人生USDT"):
        desk.live(name, "5m", START // (5 * MINUTE) * 5 * MINUTE)
    desk.publish(closed_through_ms=START, exchange_ms=START + 6950)
    found = run("snapshot", "x.bin", "--json")
    assert found.code == 0, found.err
    size = (tmp_path / "x.bin").stat().st_size
    assert found.document == {
        "path": str(tmp_path / "x.bin"),
        "symbols": 2,
        "bars": 4,
        "closed_bars": 6,
        "cut_exchange_ms": [START + 6950],
        "closed_through_ms": START,
        "bytes": size,
    }
    file = read_snapshot(tmp_path / "x.bin")
    assert (file.instance, file.intervals, file.state.time_ms) == ("test", ("1m", "5m"), START + 6950)
    assert symbol_names(file.state.symbols) == ["BTCUSDT", "币安人生USDT"]
    assert set(file.state.live["slot"]) == {0, 1}
    assert file.state.live["flags"].tolist() == [lay.FLAG_PARTIAL, 0] * 2
    assert sorted(set(file.state.closed[0]["open_time"])) == [START - minute * MINUTE for minute in (3, 2, 1)]


def test_what_closed_after_the_cut_is_no_part_of_it(desk: Desk, run: Run, tmp_path: Path) -> None:
    desk.keep("BTCUSDT", "1m", START, volume=9.0)
    desk.live("BTCUSDT", "1m", START + MINUTE)
    assert run("snapshot", "x.bin").code == 0
    state = read_snapshot(tmp_path / "x.bin").state
    assert set(state.live["open_time"][state.live["interval"] == 0]) == {START}
    assert int(state.closed[0]["open_time"].max()) == START - MINUTE


def test_without_a_file_it_goes_where_the_next_start_looks(
    make_desk: Callable[..., Desk], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "data" / "test").mkdir(parents=True)
    desk = make_desk(config=Config(instance="test", data=DataConfig(directory=str(tmp_path / "data"))))
    desk.list_symbol("BTCUSDT")
    desk.live("BTCUSDT", "1m", START)
    desk.list_symbol("NEWUSDT")
    desk.publish(closed_through_ms=START, exchange_ms=START + 7)
    found = run("snapshot")
    assert found.code == 0, found.err
    path = tmp_path / "data" / "test" / "initial_state.bin"
    assert found.out == f"{path}: 1 open bars of 2 symbols, as of 2025-10-09 08:54:00, {path.stat().st_size} bytes\n"


def test_a_place_that_cannot_be_written_is_one_line(desk: Desk, run: Run) -> None:
    found = run("snapshot", "none/x.bin")
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith("klshm: cannot write none/x.bin: No such file") and found.err.count("\n") == 1


def test_without_an_engine_it_is_exit_code_3(make_desk: object, run: Run) -> None:
    assert run("snapshot").code == 3
