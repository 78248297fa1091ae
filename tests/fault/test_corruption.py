"""Damage of every kind to every kind of file: found or harmless, and mended from the exchange.

What is damaged where follows from one seed. It is printed, and `KLSHM_SEED` replays it;
`KLSHM_LONG=1` does ten times as much.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm.errors import KlshmError
from klshm.fsck.check import check
from klshm.shm import layout as lay
from klshm.store.archive import Archive
from klshm.store.batch import unite
from klshm.store.journal import Journal
from klshm.store.snapshot import read_snapshot
from tests.fsck.world import Bars, World, make_world, official, stored
from tests.store.engine import MINUTE, START, Engine, bars
from tests.support.exchange import exchange


pytestmark = pytest.mark.fault

SEED = int(os.environ.get("KLSHM_SEED") or random.SystemRandom().randrange(1 << 32))
TIMES = 10 if os.environ.get("KLSHM_LONG") else 1


@dataclass
class Pristine:
    """Whole files, and what the exchange says that they hold."""

    world: World
    official: Bars


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pristine]:
    directory = tmp_path_factory.mktemp("pristine")
    environment = {"XDG_STATE_HOME": directory / "state", "KLSHM_SHM_DIRECTORY": directory}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, str(value))
        with exchange("--symbols", "4", "--rate", "20", "--start-at", "2026-11-20T12:04:02Z") as market:
            world = make_world(market, directory / "data")
            wanted = official(market, stored(world))
            assert world.check().report.is_clean and stored(world) == wanted
            print(f"\ncorruption: KLSHM_SEED={SEED}")
            yield Pristine(world, wanted)


@pytest.fixture(scope="module")
def hot(pristine: Pristine, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same, killed while two commits lay in the archive's write-ahead log alone."""
    live = pristine.world.copy(tmp_path_factory.mktemp("live"))
    journal = Journal(live.journal)
    blocks = [(sequence, block) for sequence, block in journal.read(0, 1 << 30) if block is not None]
    with closing(Archive(live.archive, live.config.store)) as archive:
        for sequence, block in blocks[:2]:
            archive.write(unite([block]), watermark=(journal.uuid, sequence))
            journal.trim(sequence)
        journal.close()
        killed = live.copy(tmp_path_factory.mktemp("hot"))
    assert Path(f"{killed.archive}-wal").stat().st_size > 0
    assert killed.check().report.is_clean
    return killed


# -- ways to damage a file ------------------------------------------------------------------------


def flip(path: Path, chance: random.Random, page: int) -> None:
    """Change one bit where there is something."""
    data = bytearray(path.read_bytes())
    places = np.flatnonzero(np.frombuffer(bytes(data), dtype=np.uint8))
    data[int(chance.choice(places))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, chance: random.Random, page: int) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def zero(path: Path, chance: random.Random, page: int) -> None:
    data = bytearray(path.read_bytes())
    at = chance.randrange(max(1, len(data) // page)) * page
    data[at : at + page] = bytes(len(data[at : at + page]))
    path.write_bytes(data)


def swap(path: Path, chance: random.Random, page: int) -> None:
    data = bytearray(path.read_bytes())
    one, other = (n * page for n in chance.sample(range(max(2, len(data) // page)), 2))
    data[one : one + page], data[other : other + page] = data[other : other + page], data[one : one + page]
    path.write_bytes(data)


def swap_leaves(path: Path, chance: random.Random, page: int) -> None:
    """Exchange the pages of two series that hold bars of the same times: SQLite finds nothing wrong."""
    data = bytearray(path.read_bytes())
    leaves: dict[bytes, list[int]] = {}
    for at in range(page, len(data), page):
        if data[at] == 0x0D and int.from_bytes(data[at + 3 : at + 5], "big") > 3:
            first, last = (int.from_bytes(data[at + 8 + i : at + 10 + i], "big") for i in (0, 2))
            key = bytes(data[at + first + 2 : at + first + 8]) + bytes(data[at + last + 2 : at + last + 8])
            leaves.setdefault(key, []).append(at)
    one, other = chance.sample(chance.choice([places for places in leaves.values() if len(places) > 1]), 2)
    data[one : one + page], data[other : other + page] = data[other : other + page], data[one : one + page]
    path.write_bytes(data)


Damage = Callable[[Path, random.Random, int], None]


def cases(*damages: tuple[Damage, int]) -> list[Any]:
    return [
        pytest.param(damage, number, id=f"{damage.__name__}-{number}")
        for damage, count in damages
        for number in range(count * TIMES)
    ]


def seeded(kind: str, damage: Damage, number: int) -> random.Random:
    return random.Random(f"{SEED} {kind} {damage.__name__} {number}")


# -- archive, journal, snapshot -------------------------------------------------------------------


def found_or_harmless_then_mended(pristine: Pristine, world: World) -> None:
    try:
        found = world.check()
    except KlshmError as refusal:
        # A version that was changed is another version.
        assert " schema " in str(refusal) or " journal format " in str(refusal)
        return
    if found.report.is_clean:
        assert stored(world) == pristine.official, "damage that was not found"
        return
    mended = world.repair(found)
    assert mended.report.is_clean, mended.report.document()
    after = stored(world)
    for series, wanted in pristine.official.items():
        bars_there = after.get(series, {})
        assert {time: bars_there.get(time) for time in wanted} == wanted, series


@pytest.mark.parametrize(
    ("damage", "number"), cases((flip, 10), (truncate, 4), (zero, 4), (swap, 3), (swap_leaves, 3))
)
def test_archive(pristine: Pristine, tmp_path: Path, damage: Damage, number: int) -> None:
    world = pristine.world.copy(tmp_path)
    damage(world.archive, seeded("archive", damage, number), 1024)
    found_or_harmless_then_mended(pristine, world)


@pytest.mark.parametrize(("damage", "number"), cases((flip, 3), (truncate, 2), (zero, 1)))
def test_write_ahead_log(pristine: Pristine, hot: World, tmp_path: Path, damage: Damage, number: int) -> None:
    world = hot.copy(tmp_path)
    damage(Path(f"{world.archive}-wal"), seeded("wal", damage, number), 1048)
    found_or_harmless_then_mended(pristine, world)


@pytest.mark.parametrize(("damage", "number"), cases((flip, 6), (truncate, 2), (zero, 3), (swap, 2)))
def test_journal(pristine: Pristine, tmp_path: Path, damage: Damage, number: int) -> None:
    world = pristine.world.copy(tmp_path)
    damage(world.journal / "data.mdb", seeded("journal", damage, number), 4096)
    found_or_harmless_then_mended(pristine, world)


@pytest.mark.parametrize(("damage", "number"), cases((flip, 4), (truncate, 2), (zero, 1), (swap, 1)))
def test_snapshot(pristine: Pristine, tmp_path: Path, damage: Damage, number: int) -> None:
    world = pristine.world.copy(tmp_path)
    whole = world.snapshot.read_bytes()
    damage(world.snapshot, seeded("snapshot", damage, number), 256)
    found = world.check()
    assert found.snapshot_damaged or world.snapshot.read_bytes() == whole
    if found.snapshot_damaged:
        with pytest.raises(KlshmError):
            read_snapshot(world.snapshot)
        assert world.repair(found).report.is_clean and not world.snapshot.exists()
        assert stored(world) == pristine.official


def test_rows_changed_behind_sqlites_back(pristine: Pristine, tmp_path: Path) -> None:
    """A flipped bit in any column of any row is found, and good rows keep every byte."""
    chance = random.Random(f"{SEED} rows")
    world = pristine.world.copy(tmp_path)
    touched = set()
    for _ in range(10 * TIMES):
        series = chance.choice(sorted(pristine.official))
        time = chance.choice(sorted(world.raw(*series)))
        column = chance.choice(("open", "close", "volume", "quote_volume", "trade_count", "state", "residuals"))
        (table,) = world.execute("SELECT table_name FROM series WHERE symbol = ? AND interval = ?", *series)[0]
        world.execute(f'UPDATE "{table}" SET "{column}" = "{column}" * 2 + 1 WHERE open_time = ?', time)
        touched.add((*series, time))
    before = {series: world.raw(*series) for series in pristine.official}
    found = world.check()
    assert found.report.problems["bits"] == len(touched)
    assert world.repair(found).report.is_clean and stored(world) == pristine.official
    for series, rows in before.items():
        after = world.raw(*series)
        good = {time: row for time, row in rows.items() if (*series, time) not in touched}
        assert {time: after[time] for time in good} == good


# -- segment --------------------------------------------------------------------------------------


@pytest.fixture
def dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A segment that a crash left behind."""
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    engine = Engine(tmp_path / "data")
    for slot in range(4):
        times = START + np.arange(60) * MINUTE
        engine.log(bars(times, slot=slot, trade_count=7, state=lay.STATE_CONFIRMED, revision=2), worker=slot % 2)
        opened = [START // (5 * MINUTE) * 5 * MINUTE + 300_000 * n for n in range(10)]
        engine.keep(bars(opened, slot=slot, interval="5m", trade_count=5), worker=slot % 2)
        engine.trade(bars([START + 60 * MINUTE], slot=slot, state=lay.STATE_LIVE))
    engine.publish_halves()
    engine.directory.mkdir(parents=True)
    whole = engine.segment.path.read_bytes()
    (tmp_path / "klshm.test").unlink()
    (tmp_path / "klshm.test").write_bytes(whole)
    yield engine
    gc.collect()


@pytest.mark.parametrize(("damage", "number"), cases((flip, 6), (truncate, 2), (zero, 3), (swap, 3)))
def test_segment(dead: Engine, tmp_path: Path, damage: Damage, number: int) -> None:
    """There are no checksums here: what is not found still has every row at its place, with values a bar can have."""
    path = tmp_path / "klshm.test"
    clean = check("test", dead.directory)
    assert clean.report.is_clean, clean.report.document()
    before = path.read_bytes()
    damage(path, seeded("segment", damage, number), 4096)
    found = check("test", dead.directory)
    looked_at = found.report.looked_at["segment"]
    if not found.report.is_clean or found.report.notes:
        return
    after = path.read_bytes()
    if damage is truncate:
        raise AssertionError("a segment that was cut short was not found")
    changed = {at // 128 * 128 for at in np.flatnonzero(np.frombuffer(before, "u1") != np.frombuffer(after, "u1"))}
    # A value that a bar can have, a word that nobody relies on, or rows that are simply gone.
    assert damage is flip and len(changed) <= 1 or looked_at["rows"] <= clean.report.looked_at["segment"]["rows"]


def test_the_long_form_is_long_enough() -> None:
    tests = (test_archive, test_write_ahead_log, test_journal, test_snapshot, test_segment)
    assert sum(len(test.pytestmark[0].args[1]) for test in tests) >= 50  # type: ignore[attr-defined]


