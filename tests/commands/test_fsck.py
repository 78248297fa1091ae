"""`fsck` as a command: exit codes, both forms of its answer, and who may repair."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.run.lock import InstanceLock
from tests.commands.support import Run
from tests.fsck.test_archive import times
from tests.fsck.world import World, make_world, stored
from tests.support.desk import Desk
from tests.support.exchange import Exchange, exchange
from tests.support.processes import PROJECT


@pytest.fixture(scope="module")
def market() -> Iterator[Exchange]:
    with exchange("--symbols", "2", "--rate", "20", "--start-at", "2026-11-20T12:04:05Z") as running:
        yield running


@pytest.fixture
def world(market: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    return make_world(market, tmp_path / "data")


def options(world: World, *more: str) -> list[str]:
    directory, rest_url = world.config.data.directory, world.config.exchange.rest_url
    return ["fsck", f"--set=data.directory={directory}", f"--set=exchange.rest_url={rest_url}", *more]


def test_clean_damaged_mended(run: Run, world: World) -> None:
    clean = run(*options(world))
    assert clean.code == 0 and clean.out.endswith("clean\n") and "archive: path" in clean.out
    wanted = stored(world)
    minute = times(world, "k_btc_1m")[30]
    world.execute("UPDATE k_btc_1m SET volume = volume * 2 WHERE open_time = ?", minute)
    found = run(*options(world))
    assert found.code == 1 and "bits: k_btc_1m 2026-11-20" in found.out and found.out.endswith("damaged: 1 found\n")
    document = run(*options(world, "--json", "--symbols", "BTCUSDT")).document
    assert document["problems"] == {"bits": 1} and document["first"][0]["open_time"] == minute
    assert run(*options(world, "--symbols", "ETHUSDT")).code == 0
    mended = run(*options(world, "--repair"))
    assert mended.code == 0 and "repair, replaced: 1" in mended.out and mended.out.endswith("clean\n")
    assert stored(world) == wanted
    assert run(*options(world, "--repair", "--json")).document["repaired"] == {}


def test_a_repair_that_could_not_end_says_so(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.fsck.repair._PAUSE_S", (0.01, 0.02))
    world.execute("UPDATE k_btc_1m SET volume = volume * 2 WHERE open_time = ?", times(world, "k_btc_1m")[30])
    world.market.fault(name="http_status", status=503, count=4, path="klines")
    failed = run(*options(world, "--repair"))
    assert failed.code == 1 and "not mended: BTCUSDT 1m:" in failed.out


def test_only_one_may_repair(run: Run, world: World) -> None:
    world.execute("DELETE FROM k_btc_1m WHERE open_time = ?", times(world, "k_btc_1m")[30])
    with InstanceLock(world.directory, "main"):
        refused = run(*options(world, "--repair"))
        assert refused.code == 1 and "instance 'main' is running" in refused.err
        assert run(*options(world)).code == 1  # looking is always allowed
    assert run(*options(world, "--repair", "--symbols", "BTCUSDT")).code == 2


def test_nothing_there(run: Run, tmp_path: Path) -> None:
    assert run("fsck", f"--set=data.directory={tmp_path}/none").out.startswith("nothing to look at in ")
    refused = run("fsck", "--repair", f"--set=data.directory={tmp_path}/none")
    assert refused.code == 4 and "does not exist" in refused.err


def test_a_running_engine_is_found_by_its_segment(run: Run, desk: Desk) -> None:
    found = run("fsck", "--json")
    assert found.document["instance"] == "test" and found.document["looked_at"]["segment"]["runs"]
    assert found.document["directory"] == "/nonexistent/test"


def test_looking_loads_neither_compiler_nor_network() -> None:
    heavy = ("numba", "aiohttp", "picows", "uvloop", "lmdb", "msgspec")
    code = f"import sys; from klshm.fsck import check; print(*set({heavy}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout == "\n"
