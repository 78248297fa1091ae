"""Which of what is found a start goes on from, and what it says of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm.config import Config, DataConfig, ExchangeConfig, HistorianConfig, KlinesConfig, StoreConfig
from klshm.exchange.models import Listing as Stated
from klshm.historian.start_file import write_start_file
from klshm.run.resume import Resume, keep_state
from klshm.shm import layout as lay
from klshm.shm.segment import Segment, create_segment
from klshm.shm.view import Clock, PartitionView, SymbolTable, read_clock
from klshm.store import names
from klshm.store.archive import Archive
from klshm.store.batch import Batch, Listing
from klshm.store.journal import Journal
from klshm.store.remains import Remains, SegmentCopy, remains
from klshm.store.snapshot import SnapshotFile, read_snapshot, snapshot_path, write_snapshot
from klshm.store.state import State, symbol_names
from tests.store.conftest import make_engine as make_engine
from tests.store.engine import MINUTE, Engine, bars
from tests.store.fresh import layout, table


NOW = time.time_ns() // 1_000_000
OPEN = NOW // MINUTE * MINUTE
KEPT = ("1m", "5m")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    world = World(tmp_path / "data" / "test")
    yield world
    if world.segment is not None:
        world.segment.unlink()


class Given(SegmentCopy):
    """A copy of a segment that held just this."""

    def __init__(self, held: Remains) -> None:
        self.held = held
        self.open = True

    def read(self) -> Remains:
        return self.held

    def close(self) -> None:
        self.open = False


class World:
    """A directory with what earlier runs left in it, and the segment that a start seeds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.segment: Segment | None = None
        self.found: Remains | None = None
        self.named: SnapshotFile | None = None
        directory.mkdir(parents=True)

    def config(self, *, from_archive: bool = True, **exchange: Any) -> Config:
        return Config(
            instance="test",
            data=DataConfig(directory=str(self.directory.parent)),
            klines=KlinesConfig(intervals=list(KEPT)),
            historian=HistorianConfig(from_archive=from_archive),
            exchange=ExchangeConfig(**exchange),
        )

    def seed(self, config: Config | None = None, **changes: Any) -> list[str]:
        """Seed a fresh segment; return the symbols in it."""
        if self.segment is not None:
            self.segment.unlink()
        self.segment = create_segment("fresh", layout(**changes), b"{}")
        found = Given(self.found) if self.found else None
        Resume(config or self.config(), self.directory, found, self.named).seed(self.segment)
        return symbol_names(SymbolTable(self.segment).rows())

    def live(self, name: str) -> Any:
        assert self.segment is not None
        symbols = SymbolTable(self.segment)
        row = symbols.row(symbols.find(name))
        return PartitionView(self.segment, int(row["worker"])).live_row(int(row["local_slot"]), 0)

    def history(self, name: str) -> list[int]:
        assert self.segment is not None
        symbols = SymbolTable(self.segment)
        row = symbols.row(symbols.find(name))
        view = PartitionView(self.segment, int(row["worker"]))
        rows = view.history(int(row["local_slot"]), 0, OPEN - 50 * MINUTE, OPEN)
        return [(time_ms - OPEN) // MINUTE for time_ms in rows["open_time"].tolist()]

    def journal(self, *symbols: str, age: int = 0, **fields: Any) -> None:
        """Let the journal know open bars of symbols, and one closed one of each."""
        journal = Journal(names.journal_path(self.directory))
        listings = tuple(Listing(name, 1000) for name in symbols)
        slots = np.arange(len(symbols))
        rows = bars([OPEN - age * MINUTE] * len(symbols), slot=slots, state=lay.STATE_LIVE, **fields)
        journal.put_latest(Batch(listings, rows), {0: "1m"})
        journal.append([Batch(listings, bars([OPEN - (age + 1) * MINUTE] * len(symbols), slot=slots))])
        journal.close()

    def archive(self, *symbols: str, minutes: int = 0) -> None:
        """Let the archive know symbols, and minutes of them."""
        archive = Archive(names.archive_path(self.directory), StoreConfig())
        for name in symbols:
            times = [OPEN - (10 - minute) * MINUTE for minute in range(minutes)] or [OPEN - 600 * MINUTE]
            archive.write(Batch((Listing(name, 1000),), bars(times, state=lay.STATE_CONFIRMED)))
        archive.close()


def known(*symbols: str, age: int = 0, origin: str = "snapshot", **fields: Any) -> State:
    """Return what is known of symbols whose open minute began so many minutes ago."""
    rows = table(*symbols, workers=1, contract=1, onboard_ms=1000, **fields)
    rows["pair"] = rows["name"]
    times = [OPEN - age * MINUTE] * len(symbols)
    live = bars(times, slot=np.arange(len(symbols)), state=lay.STATE_LIVE, event_time=times)
    return State(origin, rows, live, (), OPEN - age * MINUTE + 10)


def test_nothing_found_is_a_cold_start(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "klshm"):
        assert world.seed() == []
    assert "a cold start" in caplog.text
    assert list(world.directory.iterdir()) == []


def test_remains_say_who_is_carried_whatever_is_older(world: World, caplog: pytest.LogCaptureFixture) -> None:
    write_snapshot(snapshot_path(world.directory), "test", KEPT, known("GONEUSDT", "AUSDT", age=3))
    clock = Clock(time.time_ns() - time.monotonic_ns(), 1000, time.monotonic_ns(), 7)
    world.found = Remains(known("BUSDT", "AUSDT", origin="segment"), clock)
    with caplog.at_level(logging.INFO, "klshm"):
        assert world.seed() == ["AUSDT", "BUSDT"]
    assert world.segment is not None and read_clock(world.segment) is not None
    assert "found segment: symbols=2 open_bars=2" in caplog.text
    assert "found snapshot: symbols=2 open_bars=2" in caplog.text and " age_s=" in caplog.text
    assert "found journal: none to go on from" in caplog.text
    assert "restored symbols=2 open_bars=2" in caplog.text and "minutes for 2 symbols" in caplog.text


def test_what_backfill_left_after_the_crash_does_not_say_who_is_carried(world: World) -> None:
    state = dataclasses.replace(known("AUSDT", age=1), time_ms=OPEN + 99)
    write_snapshot(snapshot_path(world.directory), "test", KEPT, state)
    world.found = Remains(known("BUSDT", "AUSDT", age=2, origin="segment"), None)
    assert world.seed() == ["AUSDT", "BUSDT"]


def test_of_journal_and_snapshot_the_newer_says_who_is_carried(world: World) -> None:
    write_snapshot(snapshot_path(world.directory), "test", KEPT, known("OLDUSDT", "AUSDT", age=2))
    world.journal("AUSDT", "BUSDT")
    world.archive("AUSDT", "BUSDT")
    assert world.seed() == ["AUSDT", "BUSDT"]
    assert world.segment is not None
    rows = SymbolTable(world.segment).rows()
    assert rows["contract"].tolist() == [1, 0]  # what the journal does not know, the snapshot does
    assert world.live("AUSDT")["open_time"] == OPEN
    assert world.history("BUSDT") == [-1]
    write_snapshot(snapshot_path(world.directory), "test", KEPT, dataclasses.replace(known("CUSDT"), time_ms=OPEN + 99))
    assert world.seed() == ["CUSDT"]


def test_what_backfill_left_of_some_symbols_does_not_make_the_others_forgotten(world: World) -> None:
    """There is no dead segment, as after a power cut: the journal knows who was carried."""
    symbols = ("AUSDT", "BUSDT", "CUSDT")
    listing = Stated("AUSDT", 2, 3, pair="AUSDT", contract_type="PERPETUAL", onboard_date=1000)
    world.journal(*symbols, age=1)
    world.archive(*symbols)
    for earlier in (None, known("AUSDT", "OLDUSDT", age=5)):
        if earlier is not None:
            write_snapshot(snapshot_path(world.directory), "test", KEPT, earlier)
        write_start_file(names.archive_path(world.directory), "test", KEPT, [listing], NOW, 0)
        assert world.seed() == list(symbols)
        assert [int(world.live(name)["open_time"]) for name in symbols] == [OPEN - MINUTE] * 3


def test_what_backfill_left_says_who_trades_where_all_else_is_too_old(world: World) -> None:
    listing = Stated("AUSDT", 2, 3, pair="AUSDT", contract_type="PERPETUAL", onboard_date=1000)
    world.journal("BUSDT", age=31 * 1440)
    world.archive("AUSDT", "BUSDT")
    write_start_file(names.archive_path(world.directory), "test", KEPT, [listing], NOW, 0)
    assert world.seed() == ["AUSDT"]


def test_the_journal_alone_is_enough_where_names_are(world: World) -> None:
    world.journal("AUSDT", "BUSDT_261227")
    world.archive("AUSDT", "BUSDT_261227")
    assert world.seed() == ["AUSDT", "BUSDT_261227"]
    assert world.seed(world.config(official_stream="continuousKline")) == []


def test_a_bit_in_a_name_of_the_journal_costs_that_open_bar_only(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.journal("AUSDT", "BUSDT")
    world.archive("AUSDT", "BUSDT")
    data = names.journal_path(world.directory) / "data.mdb"
    whole = data.read_bytes()
    assert b"AUSDT\x001m" in whole
    data.write_bytes(whole.replace(b"AUSDT\x001m", b"\xc1USDT\x001m"))
    assert world.seed() == ["BUSDT"]
    assert "damaged open bars are left out rows=1" in caplog.text
    world.found = Remains(known("AUSDT", "CUSDT", origin="segment"), None)
    assert world.seed() == ["AUSDT", "CUSDT"]


def test_who_left_before_the_end_is_not_carried(world: World) -> None:
    world.journal("GONEUSDT", age=30)
    world.journal("AUSDT", "NOBODYUSDT")
    world.archive("AUSDT", "GONEUSDT")  # when the listing of the third began nobody knows
    assert world.seed() == ["AUSDT"]


def test_what_is_too_old_is_asked_of_the_exchange(world: World) -> None:
    write_snapshot(snapshot_path(world.directory), "test", KEPT, known("AUSDT", age=31 * 1440))
    assert world.seed() == []
    write_snapshot(snapshot_path(world.directory), "test", KEPT, known("AUSDT", age=29 * 1440))
    assert world.seed() == ["AUSDT"]
    assert world.live("AUSDT")["state"] == lay.STATE_EMPTY


def test_a_named_snapshot_is_taken_even_without_the_rest(world: World) -> None:
    world.journal("BUSDT")
    world.archive("BUSDT", minutes=10)
    world.named = SnapshotFile("other", KEPT, known("AUSDT"), 1)
    assert world.seed(world.config(from_archive=False)) == ["AUSDT"]
    assert world.seed() == ["AUSDT", "BUSDT"]
    world.named = None
    assert not Resume(world.config(from_archive=False), world.directory, None).is_wanted
    assert Resume(world.config(), world.directory, None).is_wanted


@pytest.mark.parametrize(
    ("exchange", "taken"),
    [
        ({}, ["AUSDT", "BUSDT"]),
        ({"symbols": ["BUSDT", "ZUSDT"]}, ["BUSDT"]),
        ({"exclude": ["BUSDT"]}, ["AUSDT"]),
        ({"quote_assets": ["USDC"]}, ["CUSDC"]),
        ({"quote_assets": ["USDT", "USDC"]}, ["AUSDT", "BUSDT", "CUSDC"]),
        ({"contract_types": ["CURRENT_QUARTER"]}, ["DUSDT_261225"]),
    ],
)
def test_what_the_configuration_does_not_take_any_more_is_left_out(
    world: World, exchange: dict[str, Any], taken: list[str]
) -> None:
    state = known("AUSDT", "BUSDT", "CUSDC", "DUSDT_261225")
    state.symbols["contract"][3] = 3
    state.symbols["pair"][3] = b"DUSDT"
    world.found = Remains(dataclasses.replace(state, origin="segment"), None)
    assert world.seed(world.config(**exchange)) == taken


def test_too_many_symbols_leave_out_the_newest_listings(world: World, caplog: pytest.LogCaptureFixture) -> None:
    state = known("AUSDT", "BUSDT", "CUSDT")
    state.symbols["onboard_ms"] = (3000, 1000, 2000)
    world.found = Remains(state, None)
    assert world.seed(max_symbols=2) == ["BUSDT", "CUSDT"]
    assert "left_out=1 newest=AUSDT; raise it" in caplog.text


def test_symbols_are_dealt_by_what_they_trade(world: World) -> None:
    state = known("AUSDT", "BUSDT", "CUSDT", "DUSDT", "EUSDT")
    state.symbols["trades_24h"] = (100, 40, 30, 20, 5)
    world.found = Remains(state, None)
    world.seed(workers=2)
    assert world.segment is not None
    rows = SymbolTable(world.segment).rows()
    loads = [int(rows["trades_24h"][rows["worker"] == worker].sum()) for worker in (0, 1)]
    assert sorted(loads) == [95, 100]
    for worker in (0, 1):
        assert sorted(rows["local_slot"][rows["worker"] == worker]) == list(range(sum(rows["worker"] == worker)))


def test_what_open_bars_stand_on_comes_from_the_archive(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.archive("AUSDT", minutes=10)
    world.found = Remains(known("AUSDT"), None)
    with caplog.at_level(logging.INFO, "klshm"):
        world.seed()
    closed_of_five = OPEN // MINUTE % 5
    assert world.history("AUSDT") == list(range(-max(closed_of_five, 1), 0))
    assert f"found archive: closed_bars={max(closed_of_five, 1)}" in caplog.text


@pytest.mark.parametrize("content", [b"", b"KLSHMSNP rubbish"])
def test_a_damaged_snapshot_that_nobody_named_is_set_aside(world: World, caplog: Any, content: bytes) -> None:
    path = snapshot_path(world.directory)
    path.write_bytes(content)
    world.found = Remains(known("AUSDT"), None)
    assert world.seed() == ["AUSDT"]
    assert f"is not used and set aside as {path}.damaged: " in caplog.text
    assert Path(f"{path}.damaged").read_bytes() == content and not path.exists()


def test_a_damaged_journal_or_archive_does_not_end_the_start(world: World, caplog: Any) -> None:
    names.journal_path(world.directory).mkdir()
    (names.journal_path(world.directory) / "data.mdb").write_bytes(b"x" * 50_000)
    names.archive_path(world.directory).write_bytes(b"x" * 50_000)
    world.found = Remains(known("AUSDT"), None)
    assert world.seed() == ["AUSDT"]
    assert "what the journal knows is not gone on from: " in caplog.text
    assert "what the archive knows is not gone on from: " in caplog.text


def test_the_exchanges_time_is_taken_from_what_the_last_run_measured(world: World) -> None:
    """The exchange is a day ahead of this machine's clock."""
    state = known("AUSDT", age=-1440)
    world.found = Remains(state, None)
    world.seed()
    assert world.live("AUSDT")["state"] == lay.STATE_EMPTY  # a bar of the future
    world.found = Remains(dataclasses.replace(state, skew_ms=1440 * MINUTE), None)
    world.seed()
    assert world.live("AUSDT")["open_time"] == OPEN + 1440 * MINUTE
    day_ns = 1440 * MINUTE * 1_000_000
    ahead = Clock(time.time_ns() - time.monotonic_ns() + day_ns, 1000, time.monotonic_ns(), 7)
    world.found = Remains(state, ahead)
    world.seed()
    assert world.live("AUSDT")["open_time"] == OPEN + 1440 * MINUTE


def test_forgotten_remains_are_let_go(world: World) -> None:
    copy = Given(Remains(known("AUSDT"), None))
    resume = Resume(world.config(), world.directory, copy)
    resume.forget()
    assert not copy.open
    world.segment = create_segment("fresh", layout(), b"{}")
    resume.seed(world.segment)
    assert SymbolTable(world.segment).count == 0


def test_a_copy_that_contradicts_itself_is_said_and_left(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Given):
        def read(self) -> Remains:
            raise ValueError("odd")

    world.segment = create_segment("fresh", layout(), b"{}")
    Resume(world.config(), world.directory, Odd(Remains(known("AUSDT"), None))).seed(world.segment)
    assert "what a crashed engine left is not gone on from, its bars are in the journal: odd" in caplog.text


# The ordered stop


def test_an_ordered_stop_keeps_what_the_next_start_needs(world: World, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(symbols=("AUSDT", "BUSDT"))
    keep_state(world.config(), engine.segment, world.directory)
    assert not snapshot_path(world.directory).exists()  # nothing was served
    engine.trade(bars([OPEN] * 2, slot=[0, 1], state=lay.STATE_LIVE, volume=[1.5, 2.5]))
    keep_state(world.config(), engine.segment, world.directory)
    found = read_snapshot(snapshot_path(world.directory))
    assert (found.instance, found.intervals, found.state.live["volume"].tolist()) == ("test", KEPT, [1.5, 2.5])
    assert found.state.live.tobytes() == remains(engine.segment, whole=False).live.tobytes()


def test_a_stop_that_cannot_keep_it_says_so(
    world: World, make_engine: Callable[..., Engine], caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(symbols=("AUSDT",))
    engine.trade(bars([OPEN], state=lay.STATE_LIVE))
    keep_state(world.config(), engine.segment, world.directory / "none")
    assert "no snapshot was written; the next start goes on from the journal" in caplog.text

    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    keep_state(world.config(), engine.segment, world.directory)
    assert "no snapshot was written: Resource temporarily unavailable" in caplog.text
