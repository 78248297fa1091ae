"""Backfill: what is asked for, in which order, and where it goes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm import intervals
from klshm.historian import backfill as backfill_module
from klshm.historian import tally as tally_module
from klshm.historian.rows import kline_rows
from klshm.shm import layout as lay
from klshm.shm.rows import write_row
from tests.historian.backfill_world import M, World, now_ms, with_world
from tests.support.segments import INTERVALS


def test_first_pass_of_all_before_depth_of_any_busiest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        await world.until_idle()
        asked = [(q["symbol"], q["interval"], int(q["limit"])) for q in world.server.asked]
        # Each symbol: six requests of weight 7 in all, 1m first; then what is left of the depth.
        first = [("1m", 499), ("4h", 99), ("1d", 50), ("1w", 50), ("30m", 99), ("5m", 99)]
        depth = [("1m", 101), ("5m", 499), ("5m", 2), ("30m", 499), ("30m", 2), ("4h", 499), ("4h", 2)]
        assert asked == [(s, *f) for s in ("BUSY", "MEDIUM", "QUIET") for f in first] + [
            (s, *d) for s in ("BUSY", "MEDIUM", "QUIET") for d in depth
        ]
        assert world.counters.get("backfill_tasks") == world.counters.get("backfill_done") == 3 + 3 * 4

    with_world(tmp_path, monkeypatch, main, concurrency=1)


def test_rows_go_to_worker_and_persister(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        await world.until_idle()
        for entry in world.book.entries:
            for index, name in enumerate(INTERVALS):
                depth = world.config["bars_per_interval"].get(name, 600)
                logged = world.consumers.log
                logged = logged[(logged["slot"] == entry.slot) & (logged["interval"] == intervals.code_of(name))]
                length = intervals.length_ms(name)
                last_ms = intervals.open_time_of(name, now_ms()) - length
                opens = np.sort(logged["open_time"])
                assert len(opens) == depth and np.all(np.diff(opens) == length) and last_ms - opens[-1] <= length
                held = world.made.layout.history_rows[index] - 2
                sent = world.consumers.rows(entry.slot, name)
                assert len(sent) == min(depth, held)  # an older row would overwrite a newer one
                assert set(world.consumers.inbox[entry.worker]["slot"]) >= {entry.slot}
        # "done" stands behind the rows of the first pass
        done = world.consumers.commands(lay.COMMAND_HISTORY_DONE)
        assert sorted(done["slot"]) == [0, 1, 2]
        assert world.counters.get("backfill_rows_total") == len(world.consumers.log)

    with_world(tmp_path, monkeypatch, main)


def test_what_the_archive_would_delete_is_not_sent_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries[:1])
        await world.until_idle()
        logged = world.consumers.log
        five = logged[logged["interval"] == intervals.code_of("5m")]["open_time"]
        assert len(five) in (287, 288) and min(five) >= now_ms() - 86_400_000
        held = world.made.layout.history_rows[INTERVALS.index("5m")]
        # The worker's history is filled as deep as it is, and no deeper row is asked for.
        assert len(world.consumers.rows(0, "5m")) == held - 2
        asked = [int(q["limit"]) for q in world.server.asked if q["interval"] == "5m"]
        assert sum(asked) == max(held, 288) < 600
        assert np.sum(logged["interval"] == intervals.code_of("30m")) == 600

    with_world(tmp_path, monkeypatch, main, retention_days={"5m": 1})


def test_done_comes_after_the_rows_it_speaks_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries[:1])
        await world.until_idle()
        inbox = world.consumers.inbox[world.book.entries[0].worker]
        done = int(np.flatnonzero(inbox["interval"] == lay.INTERVAL_COMMAND)[0])
        before = inbox[:done]
        assert [int(np.sum(before["interval"] == intervals.code_of(n))) for n in INTERVALS] == [499, 99, 99, 99, 50, 50]

    with_world(tmp_path, monkeypatch, main, concurrency=1)


def test_new_symbol_has_its_origin_and_is_not_asked_beyond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin_ms = (now_ms() // M - 100) * M

    async def main(world: World) -> None:
        entry = world.book.entries[0]
        world.backfill.add([entry])
        await world.until_idle()
        (origin,) = world.consumers.commands(lay.COMMAND_ORIGIN)
        assert (origin["slot"], origin["open_time"]) == (0, origin_ms)
        assert min(world.consumers.rows(0, "1m")["open_time"]) == origin_ms
        starts = {q["startTime"] for q in world.server.asked if q["interval"] == "4h"}
        assert all(int(s) >= intervals.open_time_of("4h", origin_ms) for s in starts)
        assert sum(q["limit"] == "1" and q["startTime"] == "0" for q in world.server.asked) == 1

    with_world(tmp_path, monkeypatch, main, origin_ms=origin_ms)


def test_rows_that_are_there_are_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        await world.until_idle()
        # What the workers do with the rows:
        for entry in world.book.entries:
            for index, name in enumerate(INTERVALS):
                rows = world.made.layout.history_rows[index]
                for row in world.consumers.rows(entry.slot, name):
                    place = (int(row["open_time"]) - intervals.anchor_ms(name)) // intervals.length_ms(name) % rows
                    at = world.made.layout.history_offset(entry.worker) // 8
                    at += (world.made.layout.history_row(entry.local_slot, index) + place) * 16
                    write_row(world.made.words, at, row.reshape(1).view(np.int64), 0)
        before = len(world.server.asked)
        world.consumers.log = world.consumers.log[:0]
        successor = world.make()
        successor.add(world.book.entries)
        await world.until_idle(successor)
        # No archive has them: the one before may have been killed before they had reached it.
        stored = world.consumers.log[world.consumers.log["interval"] == intervals.code_of("1m")]
        assert len(np.unique(stored[stored["slot"] == 0]["open_time"])) >= 600
        again = world.server.asked[before:]
        # Beyond memory's reach rows may be asked for again; the first pass needs at most what closed meanwhile.
        assert all(int(q["limit"]) <= 2 or q["interval"] not in ("1m", "1d", "1w") for q in again)
        assert not any(int(q["limit"]) == 99 for q in again)
        assert len(world.consumers.commands(lay.COMMAND_HISTORY_DONE)) == 6

    with_world(tmp_path, monkeypatch, main)


def test_delisted_symbols_are_asked_for_their_last_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The wait for the end of the minute and half a minute more, cut short to a moment.
    monkeypatch.setattr(backfill_module, "MINUTE_MS", 50)
    monkeypatch.setattr(backfill_module, "CONFIRM_AGE_MS", 0)

    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        world.backfill.remove(world.book.entries[1:])
        await world.until_idle()
        asked = {name: [q for q in world.server.asked if q["symbol"] == name] for name in ("QUIET", "BUSY", "MEDIUM")}
        assert len(asked["QUIET"]) > 6
        for name in ("BUSY", "MEDIUM"):
            assert [(q["interval"], q["limit"]) for q in asked[name]] == [
                *(("1m", "30"), ("5m", "2"), ("30m", "2"), ("4h", "2"), ("1d", "2"), ("1w", "2"))
            ]
        # Their worker has let go of them: the rows go to the archive alone.
        assert set(world.consumers.log["slot"]) == {0, 1, 2}
        assert {int(r["slot"]) for r in world.consumers.all if r["interval"] != lay.INTERVAL_COMMAND} == {0}

    with_world(tmp_path, monkeypatch, main)


def test_without_backfill_nothing_is_asked_of_the_delisted_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(world: World) -> None:
        world.backfill.remove(world.book.entries)
        assert world.backfill.idle

    with_world(tmp_path, monkeypatch, main, concurrency=0)


def test_higher_bar_read_young_is_read_again_when_it_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every row of the last minutes counts as young, and as final a moment later.
    shift_ms = 0

    def sometimes_young(raw: Any, interval: str, **more: Any) -> Any:
        more["sent_ms"] += shift_ms
        return kline_rows(raw, interval, **more)

    monkeypatch.setattr("klshm.historian.source.kline_rows", sometimes_young)
    monkeypatch.setattr(backfill_module, "CONFIRM_AGE_MS", 0)

    async def main(world: World) -> None:
        nonlocal shift_ms
        shift_ms = -30 * M
        five = INTERVALS.index("5m")
        last_ms = intervals.open_time_of("5m", now_ms()) - 5 * M
        await world.backfill._fetch(world.book.entries[0], five, last_ms - 15 * M, last_ms, is_fresh=True)
        young = world.backfill._queue._queue  # type: ignore[attr-defined]
        assert [(t.interval, t.again) for t in young] == [(five, (last_ms - 15 * M, last_ms))]
        shift_ms = 30 * M
        await world.until_idle()
        rows = world.consumers.rows(0, "5m")
        assert len(rows) == 8 and len(world.consumers.log) == 8
        assert set(rows["state"][:4]) == {lay.STATE_CLOSED} and set(rows["state"][4:]) == {lay.STATE_CONFIRMED}
        assert len(world.server.asked) == 2

    with_world(tmp_path, monkeypatch, main)


def test_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        world.consumers.take()
        assert len(world.consumers.commands(lay.COMMAND_HISTORY_DONE)) == 3
        assert world.backfill.idle and world.server.asked == []

    with_world(tmp_path, monkeypatch, main, concurrency=0)


def test_progress_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="klshm")
    monkeypatch.setattr(tally_module, "_PROGRESS_S", 0.005)

    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        await world.until_idle()

    with_world(tmp_path, monkeypatch, main, concurrency=1)
    assert "backfill under way tasks=" in caplog.text and "eta_s=" in caplog.text
