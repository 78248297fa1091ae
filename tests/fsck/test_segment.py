from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from klshm.config.settings import to_json
from klshm.fsck.check import check
from klshm.fsck.report import Report
from klshm.fsck.segment import check_segment
from klshm.shm import layout as lay
from klshm.store.journal import Journal
from tests.store.engine import MINUTE, START, Engine, bars


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """A crashed engine's segment: closed and open bars of two symbols."""
    engine = make_engine()
    config = to_json(engine.config)
    config += bytes(-len(config) % 8)
    begin = engine.layout.config_offset // 8
    engine.words[begin : begin + len(config) // 8] = np.frombuffer(config, dtype=np.int64)
    engine.words[lay.H_CONFIG_BYTES] = len(to_json(engine.config))
    for slot in range(2):
        engine.log(bars(START + np.arange(50) * MINUTE, slot=slot, trade_count=3), worker=slot % 2)
        engine.trade(bars([START + 50 * MINUTE], slot=slot, state=lay.STATE_LIVE, trade_count=3))
    engine.publish_halves()
    crash(engine)
    return engine


ONE_BILLION = int(np.float64(1e9).view(np.int64))


def crash(engine: Engine) -> None:
    """Give up the lock as the last process of an engine does, and keep the words."""
    path = engine.segment.path
    os.lseek(engine.segment.descriptor, 0, os.SEEK_SET)
    copy = path.with_name("copy")
    copy.write_bytes(engine.words.tobytes())
    path.unlink()
    copy.rename(path)
    with path.open("r+b") as file:
        engine.words = np.memmap(file, dtype=np.int64, mode="r+")


def look(engine: Engine) -> Report:
    report = Report()
    check_segment("test", report)
    return report


def history_word(engine: Engine, minute: int, slot: int = 0) -> int:
    index = (START // MINUTE + minute) % 96
    row = engine.layout.history_row(slot // 2, 0) + index
    return engine.layout.history_offset(slot % 2) // 8 + row * lay.ROW_WORDS


def test_a_crashed_engines_segment_is_clean(engine: Engine) -> None:
    report = look(engine)
    assert report.is_clean and not report.notes, report.document()
    assert report.looked_at["segment"]["rows"] == 2 * (50 + 1 + 1) and not report.looked_at["segment"]["runs"]


def test_none_at_all_is_nothing(engine: Engine) -> None:
    report = Report()
    assert not check_segment("other", report).damaged and report.looked_at == {}


def test_a_running_engine_is_looked_at_as_well(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(workers=1)
    engine.log(bars(START + np.arange(400) * MINUTE, trade_count=3))  # its log has been overrun
    engine.publish_halves()
    engine.words[engine.block(0) + lay.B_INTENT] += 5  # as while it publishes
    report = Report()
    state = check_segment("test", report)
    assert state.runs and state.now_ms is not None and state.tails["log/0"] == 400
    assert set(report.problems) <= {"unreadable"}  # this one carries no configuration


Change = Callable[[Engine], None]


def word(at: Callable[[Engine], int], value: int | Callable[[int], int]) -> Change:
    def change(engine: Engine) -> None:
        place = at(engine)
        engine.words[place] = value(int(engine.words[place])) if callable(value) else value

    return change


def symbol_word(slot: int, number: int) -> Callable[[Engine], int]:
    return lambda engine: engine.layout.symbols_offset // 8 + slot * lay.SYMBOL_WORDS + number


@pytest.mark.parametrize(
    ("change", "problem", "words"),
    [
        (word(lambda e: lay.H_STATE, 77), "impossible", "state 77"),
        (word(lambda e: lay.H_INTERVAL_CODE, 40), "unreadable", "impossible sizes"),
        (word(lambda e: lay.H_INTERVAL_CODE, 2), "impossible", "interval codes"),
        (word(lambda e: lay.H_CONFIG_BYTES, 20), "unreadable", "no readable configuration"),
        (word(lambda e: e.layout.historian_offset // 8 + lay.B_SYMBOL_COUNT, 999), "impossible", "999 symbols"),
        (word(symbol_word(1, 2), 9), "impossible", "status 9"),
        (word(symbol_word(1, 3), 9), "impossible", "worker 9"),
        (word(symbol_word(1, 11), 0x2F2F), "impossible", "name '//'"),
        (word(symbol_word(1, 0), 3), "torn", "row was being written"),
        (word(lambda e: e.block(1) + lay.B_INTENT, 9), "impossible", "intent 9"),
        (word(lambda e: history_word(e, 7), lambda s: s + 1), "torn", "being written"),
        (word(lambda e: history_word(e, 7), -4), "impossible", "negative sequence"),
        (word(lambda e: history_word(e, 7) + 1, lambda t: t + MINUTE), "misaligned", "another bar's place"),
        (word(lambda e: history_word(e, 7) + 1, lambda t: t + 1), "misaligned", "not a multiple"),
        (word(lambda e: history_word(e, 7) + 4, ONE_BILLION), "impossible", "low above"),
        (word(lambda e: history_word(e, 7) + 14, lambda w: w ^ 1 << 33), "impossible", "another symbol"),
        (word(lambda e: history_word(e, 7) + 14, lambda w: w ^ 1 << 48), "impossible", "another symbol or interval"),
        (word(lambda e: history_word(e, 7) + 14, lambda w: w ^ 3 << 56), "impossible", "a state that does not"),
        (word(lambda e: e.live_word(0, "1m") + 6, -1), "impossible", "no finite number"),
        (word(lambda e: e.layout.log_offset(0) // 8 + 10 * 16, 4), "progress", "stamp 4 at position 10"),
        (word(lambda e: e.layout.log_offset(0) // 8 + 10 * 16 + 6, -1), "impossible", "no finite number"),
        (word(lambda e: e.block(0) + lay.B_TAIL, -5), "progress", "tail -5"),
    ],
)
def test_what_cannot_be(engine: Engine, change: Change, problem: str, words: str) -> None:
    change(engine)
    report = look(engine)
    assert any(one.problem == problem and words in one.detail for one in report.first), report.first


@pytest.mark.parametrize(
    ("offset", "content", "problem"),
    [(0, b"not a segment", "unreadable"), (16, b"another.", "not checked"), (8, bytes(8), "not checked")],
)
def test_headers(engine: Engine, offset: int, content: bytes, problem: str) -> None:
    with engine.segment.path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    report = look(engine)
    assert [one.problem for one in report.first] == [problem]


def test_a_journal_cannot_be_ahead_of_the_log(engine: Engine, tmp_path: Path) -> None:
    engine.directory.mkdir(parents=True)
    journal = Journal(engine.directory / "journal")
    journal.append([], engine.segment.uuid, {"log/0": 50})
    journal.close()
    assert check("test", engine.directory).report.is_clean
    journal = Journal(engine.directory / "journal")
    journal.append([], engine.segment.uuid, {"log/0": 1 << 40})
    journal.close()
    found = check("test", engine.directory)
    assert found.journal is not None and found.journal.damaged
    assert dict(found.report.problems) == {"progress": 1}
