from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from klshm.config import StoreConfig
from klshm.errors import ArchiveError, JournalError, StoreError
from klshm.shm import layout as lay
from klshm.store import names
from klshm.store.archive import Archive
from klshm.store.batch import Batch, Listing
from klshm.store.journal import Journal
from klshm.store.recovery import (
    drain_segment,
    entries_at_rest,
    journal_state,
    last_confirmed,
    load_latest,
    open_bars_at_rest,
)
from klshm.store.state import symbol_names
from tests.store.engine import MINUTE, START, Engine, bars


def minutes(first: int, last: int, **fields: Any) -> Any:
    return bars(START + np.arange(first, last) * MINUTE, **fields)


def journaled(engine: Engine) -> list[tuple[str, int]]:
    journal = Journal(names.journal_path(engine.directory))
    blocks = [block for _, block in journal.read(0, 1 << 30) if block]
    journal.close()
    return [
        (block.listings[row["slot"]].name, int(row["open_time"] - START) // MINUTE)
        for block in blocks
        for row in block.rows
    ]


def test_logs_are_drained_with_entries_beyond_the_tail_once(engine: Engine) -> None:
    engine.log(minutes(0, 5), 0)
    engine.log(minutes(5, 8), 0, publish=False)
    engine.log(minutes(0, 2, slot=3), 1)
    torn = engine.layout.log_offset(0) // 8 + 8 * lay.ROW_WORDS
    engine.words[torn] = 2 * 8 + 1
    report = drain_segment(engine.segment, engine.directory)
    assert (report.log_rows, report.lost_entries, report.walked_rows) == (10, 0, 0)
    want = [*(("BTCUSDT", minute) for minute in range(8)), ("币安人生USDT", 0), ("币安人生USDT", 1)]
    assert journaled(engine) == want
    assert drain_segment(engine.segment, engine.directory).log_rows == 0
    assert journaled(engine) == want


def test_an_overrun_log_is_made_good_from_history(engine: Engine) -> None:
    for first in range(0, 300, 50):
        engine.log(minutes(first, first + 50, slot=0), 0, keep=first >= 210)
    engine.keep(minutes(210, 300))
    engine.keep(minutes(0, 96, slot=2))  # of the symbol that was logged only before the overrun
    report = drain_segment(engine.segment, engine.directory)
    assert (report.log_rows, report.lost_entries) == (256, 44)
    assert report.walked_rows == 96 + 90
    assert set(journaled(engine)) >= {("BTCUSDT_241227", minute) for minute in range(96)}


def test_a_walk_owed_before_the_crash_is_done(engine: Engine) -> None:
    journal = Journal(names.journal_path(engine.directory))
    journal.append([], engine.segment.uuid, {"log/0": 0}, ["log/0"])
    journal.close()
    engine.keep(minutes(0, 7))
    assert drain_segment(engine.segment, engine.directory).walked_rows == 7
    assert drain_segment(engine.segment, engine.directory).walked_rows == 0


def test_the_historians_log_is_taken_from_where_the_archive_ends(engine: Engine) -> None:
    engine.backfill.append(minutes(0, 10))
    engine.backfill.publish()
    archive = Archive(names.archive_path(engine.directory), StoreConfig())
    archive.write(Batch((), bars([])), historian_cursor=(engine.segment.uuid, 4))
    archive.close()
    assert drain_segment(engine.segment, engine.directory).backfill_rows == 6
    assert [minute for _, minute in journaled(engine)] == list(range(4, 10))
    assert drain_segment(engine.segment, engine.directory).backfill_rows == 0


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1000])
def test_a_damaged_archive_does_not_stop_the_drain(engine: Engine, content: bytes) -> None:
    engine.directory.mkdir(parents=True)
    names.archive_path(engine.directory).write_bytes(content)
    engine.backfill.append(minutes(0, 10))
    engine.backfill.publish()
    assert drain_segment(engine.segment, engine.directory).backfill_rows == 10


def test_open_bars_with_a_torn_one_from_the_readable_half(engine: Engine) -> None:
    for close in (1.0, 2.0):
        engine.trade(bars([START] * 3, slot=np.arange(3), state=lay.STATE_LIVE, close=close))
        engine.publish_halves()
    engine.trade(bars([START] * 3, slot=np.arange(3), state=lay.STATE_LIVE, close=3.0))
    engine.words[engine.live_word(1, "1m")] += 1
    engine.words[engine.live_word(1, "1m") + lay.W_CLOSE] = -1
    found = {int(row["slot"]): (float(row["close"]), int(row["flags"])) for row in open_bars_at_rest(engine.segment)}
    assert found == {0: (3.0, 0), 1: (2.0, lay.FLAG_PARTIAL), 2: (3.0, 0)}
    assert drain_segment(engine.segment, engine.directory).open_bars == 3
    latest = load_latest(engine.directory)
    assert {key: float(row["close"]) for key, row in latest.items()} == {
        ("BTCUSDT", "1m"): 3.0,
        ("ETHUSDT", "1m"): 2.0,
        ("BTCUSDT_241227", "1m"): 3.0,
    }


def test_a_symbol_row_torn_by_the_kill_does_not_stop_the_drain(engine: Engine) -> None:
    engine.log(minutes(0, 3), 0)
    engine.write_symbol(1, "ETHUSDT", torn=True)
    assert drain_segment(engine.segment, engine.directory).log_rows == 3


def test_entries_at_rest_of_a_ring_that_wrapped(engine: Engine) -> None:
    engine.log(minutes(0, 300), 0, keep=False)
    layout = engine.layout
    ring = engine.segment.region(layout.log_offset(0), layout.log_rows * lay.ROW_BYTES)
    ring[(300 % 256) * lay.ROW_WORDS] = 2 * 300 + 1  # the next entry was being written over entry 44
    rows, end, lost = entries_at_rest(ring, 300, 40)
    assert (end, lost) == (300, 5)
    assert (rows["open_time"] - START).tolist() == [minute * MINUTE for minute in range(45, 300)]
    rows, end, lost = entries_at_rest(ring, 300, 300)
    assert (len(rows), end, lost) == (0, 300, 0)


def test_a_cold_start_finds_nothing(engine: Engine) -> None:
    assert load_latest(engine.directory) == {}
    assert last_confirmed(engine.directory) == {}
    assert len(journal_state(engine.directory, closed=True).symbols) == 0
    assert not engine.directory.exists()


def test_damaged_open_bars_are_left_out(engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    journal = Journal(names.journal_path(engine.directory))
    with monkeypatch.context() as patch:
        patch.setattr("klshm.store.journal.zlib.crc32", lambda data: 1)
        journal.put_latest(Batch((Listing("BTCUSDT"),), bars([START])), {0: "1m"})
    journal.close()
    assert load_latest(engine.directory) == {}
    assert "damaged open bars are left out rows=1" in caplog.text


def test_what_the_journal_knows_has_names(engine: Engine) -> None:
    archive = Archive(names.archive_path(engine.directory), StoreConfig())
    for name in ("BTCUSDT", "ETHUSDT"):
        archive.write(Batch((Listing(name, 1000),), minutes(0, 1)))
    archive.close()
    journal = Journal(names.journal_path(engine.directory))
    listings = (Listing("ETHUSDT", 1000), Listing("BTCUSDT", 1000), Listing("NEWUSDT", 1000))
    live = bars([START + 9 * MINUTE] * 3, slot=np.arange(3), state=lay.STATE_LIVE, event_time=START + 9 * MINUTE + 5)
    live["quantity_decimals"][1], live["high"][0] = 5, 0  # that one cannot be
    journal.put_latest(Batch(listings, live), {0: "1m"})
    journal.put_latest(Batch(listings[1:], bars([START], state=lay.STATE_LIVE, trade_count=77)), {0: "1d"})
    journal.append([Batch(listings, minutes(5, 9, slot=[0, 1, 2, 1]))])
    journal.close()
    state = journal_state(engine.directory, closed=True)
    assert (state.origin, symbol_names(state.symbols)) == ("journal", ["BTCUSDT", "ETHUSDT"])
    assert state.symbols["onboard_ms"].tolist() == [1000, 1000]
    assert state.symbols["quantity_decimals"].tolist() == [5, 0]
    assert state.symbols["trades_24h"].tolist() == [77, 0]
    assert state.time_ms == START + 9 * MINUTE + 5
    assert set(state.live["slot"]) == {0}
    assert [(int(row["slot"]), int(row["open_time"] - START) // MINUTE) for row in state.closed[0]] == [
        *((1, 5), (0, 6), (0, 8)),
    ]
    assert journal_state(engine.directory, closed=False).closed_rows == 0


def test_last_confirmed_per_series(engine: Engine) -> None:
    archive = Archive(names.archive_path(engine.directory), StoreConfig())
    rows = minutes(0, 10, state=[lay.STATE_CONFIRMED] * 7 + [lay.STATE_CLOSED] * 3)
    archive.write(Batch((Listing("BTCUSDT"),), rows))
    archive.write(Batch((Listing("ETHUSDT"),), minutes(0, 10)))
    archive.close()
    assert last_confirmed(engine.directory) == {("BTCUSDT", "1m"): START + 6 * MINUTE}


def test_what_cannot_be_read_is_said(engine: Engine) -> None:
    directory = engine.directory
    names.journal_path(directory).mkdir(parents=True)
    (names.journal_path(directory) / "data.mdb").write_bytes(b"x" * 50_000)
    names.archive_path(directory).write_bytes(b"x" * 50_000)
    for work, error in (
        (lambda: drain_segment(engine.segment, directory), JournalError),
        (lambda: load_latest(directory), JournalError),
        (lambda: last_confirmed(directory), ArchiveError),
    ):
        with pytest.raises(error) as caught:
            work()
        assert isinstance(caught.value, StoreError)
        assert "\n" not in str(caught.value)


def test_two_workers_two_engines(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(workers=1, symbols=("AUSDT",))
    engine.log(minutes(0, 3), 0)
    assert drain_segment(engine.segment, engine.directory).log_rows == 3
    again = make_engine(workers=2, symbols=("BUSDT", "AUSDT"), instance="test2")
    again.log(minutes(3, 5, slot=1), 1)
    assert drain_segment(again.segment, engine.directory).log_rows == 2
    assert journaled(engine) == [("AUSDT", minute) for minute in range(5)]
