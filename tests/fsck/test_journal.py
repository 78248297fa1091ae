from __future__ import annotations

import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from klshm.errors import JournalError
from klshm.fsck import journal as journal_module
from klshm.fsck import journal_child
from klshm.fsck.journal import JournalState, check_journal, check_meeting
from klshm.fsck.report import Report
from klshm.store import journal_file
from klshm.store.batch import Batch, Listing
from klshm.store.journal import Journal
from tests.store.engine import MINUTE, START, bars


UUID = "ab" * 16


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A journal with three blocks, the first of them trimmed, and two open bars."""
    with closing(Journal(tmp_path / "journal")) as journal:
        listings = (Listing("BTCUSDT"), Listing("币安人生USDT"))
        for n in range(3):
            rows = bars(START + (3 * n + np.arange(3)) * MINUTE, slot=[0, 1, 0], trade_count=3)
            journal.append([Batch(listings, rows)], UUID, {"log/0": n, "historian": 4})
        journal.put_latest(Batch(listings, bars([START, START], slot=[0, 1], state=1, trade_count=1)), {0: "1m"})
        journal.trim(1)
    return tmp_path / "journal"


def put(directory: Path, database: bytes, key: bytes, value: bytes | None) -> None:
    """Change one value, around all of klshm."""
    environment = lmdb.Environment(str(directory), max_dbs=4, map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        opened = environment.open_db(database, txn=transaction)
        if value is None:
            transaction.delete(key, db=opened)
        else:
            transaction.put(key, value, db=opened)
    environment.close()


def get(directory: Path, database: bytes, key: bytes) -> bytes:
    environment = lmdb.Environment(str(directory), max_dbs=4, map_size=1 << 26)
    opened = environment.open_db(database)
    with environment.begin() as transaction:
        value = transaction.get(key, db=opened)
    environment.close()
    return bytes(value)


def problems(directory: Path) -> list[tuple[str, str]]:
    return [(subject, problem) for subject, problem, _ in journal_child.look(directory)["problems"]]


def test_the_format_is_the_journals() -> None:
    assert journal_child.FORMAT == journal_file.FORMAT


def test_a_whole_journal(directory: Path) -> None:
    report = Report()
    state = check_journal(directory, report)
    assert report.is_clean and not state.damaged
    assert (state.first, state.next, state.cursors) == (2, 4, {f"{UUID}/log/0": 2, f"{UUID}/historian": 4})
    assert report.looked_at["journal"] == {"path": str(directory), "blocks": 2, "rows": 6, "latest": 2}


def test_it_is_read_while_its_engine_writes(directory: Path) -> None:
    with closing(Journal(directory)) as journal:
        report = Report()
        assert check_journal(directory, report).next == journal.next_sequence and report.is_clean


def flipped(value: bytes, at: int = -9) -> bytes:
    changed = bytearray(value)
    changed[at] ^= 4
    return bytes(changed)


def with_crc(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "little") + body


@pytest.mark.parametrize(
    ("database", "key", "change", "expected"),
    [
        (b"blocks", b"\0" * 7 + b"\2", flipped, ("block 2", "bits")),
        (b"blocks", b"\0" * 7 + b"\2", lambda v: v[:3], ("block 2", "bits")),
        (b"blocks", b"\0" * 7 + b"\2", lambda v: with_crc(v[4:-72] + b"\xff" * 72), ("block 2", "impossible")),
        (b"blocks", b"\0" * 7 + b"\2", lambda v: with_crc(v[4:].replace(b"BTC", b"B/C")), ("block 2", "impossible")),
        (b"latest", b"BTCUSDT\x001m", flipped, ("open bar BTCUSDT 1m", "bits")),
        (b"latest", b"BTCUSDT\x001m", lambda v: with_crc(v[4:-8] + b"\xff" * 7), ("open bar BTCUSDT 1m", "bits")),
        (b"latest", b"BTCUSDT\x001m", lambda v: with_crc(b"\xff" * 128), ("open bar BTCUSDT 1m", "impossible")),
        (b"meta", b"next", lambda v: b"\0" * 7 + b"\2", ("block 2", "progress")),
        (b"meta", b"next", lambda v: b"", ("meta", "progress")),
        (b"meta", b"uuid", lambda v: b"?", ("meta", "progress")),
        (b"meta", b"format", lambda v: b"\xff", ("meta", "format")),
        (b"meta", f"cursor/{UUID}/log/0".encode(), lambda v: b"1", ("meta", "progress")),
    ],
)
def test_every_fault_is_found(directory: Path, database: bytes, key: bytes, change: Any, expected: Any) -> None:
    put(directory, database, key, change(get(directory, database, key)))
    assert problems(directory)[0] == expected


def test_names_and_sequences(directory: Path) -> None:
    value = get(directory, b"latest", b"BTCUSDT\x001m")
    put(directory, b"latest", b"B C\x001m", with_crc(value[4:]))
    put(directory, b"latest", b"CTCUSDT\x001m", value)
    put(directory, b"blocks", b"\1", get(directory, b"blocks", b"\0" * 7 + b"\2"))
    assert set(problems(directory)) == {
        ("open bar B C 1m", "format"),
        ("open bar CTCUSDT 1m", "bits"),
        ("block 1", "progress"),
    }


def test_a_newer_journal_is_refused(directory: Path) -> None:
    put(directory, b"meta", b"format", b"2")
    with pytest.raises(JournalError, match="has journal format 2, expected 1; use the klshm that wrote it"):
        check_journal(directory, Report())


def test_a_journal_without_its_databases(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    directory.mkdir()
    lmdb.Environment(str(directory)).close()
    report = Report()
    assert check_journal(directory, report).broken and dict(report.problems) == {"format": 1}


def test_a_file_that_kills_its_reader_is_a_finding(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray((directory / "data.mdb").read_bytes())
    data[8192:] = b"\xfe" * len(data[8192:])
    (directory / "data.mdb").write_bytes(data)
    report = Report()
    assert check_journal(directory, report).broken and report.problems["structure"] == 1
    children = {
        "SIGSEGV": "import os; os.kill(os.getpid(), 11)",
        "what now": "raise SystemError('what now')",
        "says nothing": "",
    }
    ended = {
        words: subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
        for words, child in children.items()
    }
    for words, done in ended.items():
        monkeypatch.setattr(journal_module.subprocess, "run", lambda *_, done=done, **more: done)
        assert words in journal_module._ask_child(directory)["refused"]
    monkeypatch.undo()
    monkeypatch.setattr(journal_module, "_PATIENCE_S", 0.001)
    assert "does not end" in journal_module._ask_child(directory)["refused"]


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"x" * 9000])
def test_files_that_are_no_journal(directory: Path, damage: bytes) -> None:
    (directory / "data.mdb").write_bytes(damage)
    report = Report()
    assert check_journal(directory, report).broken and dict(report.problems) == {"structure": 1}


def test_archive_and_journal_must_meet() -> None:
    for watermark, first, meets in (
        ((UUID, 4), 5, True),
        ((UUID, 9), 5, True),
        ((UUID, 3), 5, False),
        (("cd" * 16, 9), 5, False),
        (None, 1, True),
        (None, 2, False),
    ):
        report = Report()
        state = JournalState(uuid=UUID, first=first, next=12)
        assert check_meeting(state, watermark, report) == meets == report.is_clean
    assert check_meeting(JournalState(), None, Report())
    assert check_meeting(JournalState(damaged=True, uuid=UUID, first=5, next=6), None, Report())
