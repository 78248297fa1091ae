from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from klshm.errors import JournalError
from klshm.intervals import code_of
from klshm.shm import layout as lay
from klshm.store.batch import BLOCK_ROWS, Batch, Listing
from klshm.store.journal import Journal
from tests.store.engine import MINUTE, START, bars


BTC = (Listing("BTCUSDT"),)
NAMES = {code_of("1m"): "1m", code_of("5m"): "5m"}


def batch(count: int, first: int = 0, **fields: int) -> Batch:
    return Batch(BTC, bars(START + np.arange(first, first + count) * MINUTE, **fields))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal"


@pytest.fixture
def open_journal(path: Path) -> Iterator[Callable[..., Journal]]:
    opened: list[Journal] = []

    def open_(**options: Any) -> Journal:
        for journal in opened:
            journal.close()
        opened[:] = [Journal(path, **options)]
        return opened[0]

    yield open_
    for journal in opened:
        journal.close()


def minutes(journal: Journal, after: int = 0, limit_rows: int = 1 << 30) -> list[int]:
    blocks = [block for _, block in journal.read(after, limit_rows)]
    return [int(t - START) // MINUTE for block in blocks if block for t in block.rows["open_time"]]


def test_rows_and_cursors_survive_together(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    assert journal.cursor("seg", "log/0") is None
    newest = journal.append([batch(BLOCK_ROWS + 1), batch(2, 600)], "seg", {"log/0": 515, "log/1": 0}, ["log/1"])
    assert (newest, journal.next_sequence, journal.blocks) == (3, 4, 3)
    uuid = journal.uuid
    journal = open_journal()
    assert (journal.uuid, journal.next_sequence) == (uuid, 4)
    assert (journal.cursor("seg", "log/0"), journal.cursor("seg", "log/1")) == (515, 0)
    assert journal.cursor("other", "log/0") is None
    assert journal.owed_walks("seg") == ["log/1"]
    assert minutes(journal) == [*range(BLOCK_ROWS + 1), 600, 601]
    assert minutes(journal, after=2) == [600, 601]
    assert minutes(journal, limit_rows=1) == list(range(BLOCK_ROWS))


def test_sequences_are_not_reused_after_trimming_to_empty(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    journal.append([batch(3)])
    journal.append([batch(3, 3)])
    assert journal.trim(1) == 1
    assert minutes(journal) == [3, 4, 5]
    assert journal.trim(99) == 1
    assert journal.trim(99) == 0
    journal = open_journal()
    assert (journal.blocks, journal.next_sequence) == (0, 3)
    assert journal.append([batch(1)]) == 3
    assert [sequence for sequence, _ in journal.read(2, 10)] == [3]


def test_walks_and_foreign_segments_are_forgotten(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    for uuid in ("a", "b"):
        journal.append([], uuid, {"log/0": 7}, ["log/0"])
    journal.walk_done("b", "log/0")
    assert (journal.owed_walks("a"), journal.owed_walks("b")) == (["log/0"], [])
    journal.forget_segments("b")
    assert (journal.cursor("a", "log/0"), journal.cursor("b", "log/0")) == (None, 7)
    assert journal.owed_walks("a") == []


def test_latest_keeps_the_last_of_each_series(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    listings = (Listing("BTCUSDT"), Listing("币安人生USDT"))
    open_bars = np.concatenate([bars([START], slot=s, interval=i, state=1) for s in (0, 1) for i in ("1m", "5m")])
    journal.put_latest(Batch(listings, open_bars), NAMES)
    journal.put_latest(Batch(listings, bars([START], slot=1, state=1, close=7.0)), NAMES)
    found, damaged = open_journal().latest()
    assert damaged == 0
    assert set(found) == {(name, interval) for name in ("BTCUSDT", "币安人生USDT") for interval in ("1m", "5m")}
    assert found["币安人生USDT", "1m"]["close"] == 7.0
    assert found["BTCUSDT", "5m"].tobytes() == open_bars[1].tobytes()


def change(path: Path, database: bytes, work: Callable[[lmdb.Transaction], object]) -> None:
    environment = lmdb.Environment(os.fspath(path), max_dbs=4)
    handle = environment.open_db(database)
    with environment.begin(handle, write=True) as transaction:
        work(transaction)
    environment.close()


def flip(key: bytes) -> Callable[[lmdb.Transaction], object]:
    def work(transaction: lmdb.Transaction) -> object:
        value = bytearray(transaction.get(key) or b"")
        value[-1] ^= 1
        return transaction.put(key, bytes(value))

    return work


def test_damage_is_seen_and_left_out(open_journal: Callable[..., Journal], path: Path) -> None:
    journal = open_journal()
    journal.append([batch(1), batch(1, 1), batch(1, 2)])
    journal.put_latest(batch(1, state=lay.STATE_LIVE), NAMES)
    journal.close()
    change(path, b"blocks", flip((2).to_bytes(8, "big")))
    change(path, b"latest", flip(b"BTCUSDT\x001m"))
    journal = open_journal()
    assert minutes(journal) == [0, 2]
    assert [block is None for _, block in journal.read(0, 1 << 20)] == [False, True, False]
    assert journal.latest() == ({}, 1)


def moved(key: bytes, to: bytes, *, older: bool) -> Callable[[lmdb.Transaction], object]:
    """Let an open bar's name change under it, as it lies in a file of this klshm or in an older one."""

    def work(transaction: lmdb.Transaction) -> object:
        value = bytes(transaction.get(key) or b"")
        transaction.delete(key)
        return transaction.put(to, zlib.crc32(value[4:]).to_bytes(4, "little") + value[4:] if older else value)

    return work


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", [b"BT\xc3USDT\x001m", b"BT#USDT\x001m", b"BTCUSDT\x001n", b"BTCUSDT1m", b"\x001m"])
def test_an_open_bar_without_a_name_is_damaged(path: Path, name: bytes, older: bool) -> None:
    journal = Journal(path)
    both = (Listing("BTCUSDT"), Listing("ETHUSDT"))
    journal.put_latest(Batch(both, bars([START] * 2, slot=[0, 1], state=lay.STATE_LIVE)), NAMES)
    journal.close()
    change(path, b"latest", moved(b"BTCUSDT\x001m", name, older=older))
    journal = Journal(path)
    found, damaged = journal.latest()
    assert (set(found), damaged) == ({("ETHUSDT", "1m")}, 1)
    journal.close()


def test_an_open_bar_under_another_name_is_damaged_and_those_of_older_files_are_read(path: Path) -> None:
    journal = Journal(path)
    journal.put_latest(batch(1, state=lay.STATE_LIVE), NAMES)
    wanted = journal.latest()[0]["BTCUSDT", "1m"].tobytes()
    journal.close()
    change(path, b"latest", moved(b"BTCUSDT\x001m", b"BTCUSDT\x001m", older=True))
    journal = Journal(path)
    assert [row.tobytes() for row in journal.latest()[0].values()] == [wanted]
    journal.put_latest(batch(1, state=lay.STATE_LIVE), NAMES)
    journal.close()
    change(path, b"latest", moved(b"BTCUSDT\x001m", b"BTBUSDT\x001m", older=False))
    journal = Journal(path)
    assert journal.latest() == ({}, 1)
    journal.close()


def test_the_map_grows_and_nothing_is_lost(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal(map_bytes=1 << 17)
    for first in range(0, 20_000, 2_000):
        journal.append([batch(2_000, first)], "seg", {"log/0": first + 2_000})
    assert minutes(journal) == list(range(20_000))
    assert journal.cursor("seg", "log/0") == 20_000
    assert minutes(open_journal(map_bytes=1 << 17)) == list(range(20_000))


def test_the_map_does_not_grow_for_ever(open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.store.journal._MAX_MAP_BYTES", 1 << 18)
    journal = open_journal(map_bytes=1 << 17)
    with pytest.raises(JournalError, match="the archive has not kept up"):
        journal.append([batch(20_000)])
    assert (journal.next_sequence, journal.blocks) == (1, 0)
    journal.append([batch(1)])
    assert minutes(journal) == [0]


def test_new_files_have_the_same_format_whatever_the_environment_says(path: Path) -> None:
    script = "import sys, pathlib; from klshm.store.journal import Journal; Journal(pathlib.Path(sys.argv[1])).close()"
    environment = {**os.environ, "LMDB_DEFAULT_LIB_VERSION": "1"}
    subprocess.run([sys.executable, "-c", script, os.fspath(path)], check=True, env=environment)
    plain = lmdb.Environment(os.fspath(path), lib_version=0, max_dbs=4)
    assert plain.lib_version()[0] == 0
    plain.close()


def refuse(path: Path, words: str) -> None:
    with pytest.raises(JournalError, match=words) as caught:
        Journal(path)
    assert "\n" not in str(caught.value)
    assert os.fspath(path) in str(caught.value)


def test_a_journal_of_another_format_is_refused(path: Path) -> None:
    Journal(path).close()
    change(path, b"meta", lambda transaction: transaction.put(b"format", b"2"))
    refuse(path, "journal format 2, expected 1")


def set_meta(key: bytes, value: bytes | None) -> Callable[[lmdb.Transaction], object]:
    return lambda transaction: transaction.delete(key) if value is None else transaction.put(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in (b"format", b"uuid", b"next") for value in (None, b"", b"\xff" * 32)),
        (b"next", bytes(8)),
        (b"next", b"\xff" * 8),
        (b"next", b"\1"),
    ],
)
@pytest.mark.parametrize("kept", ["blocks", "open bars", "no rows"])
def test_a_journal_whose_meta_is_damaged_is_refused_and_can_be_read(
    path: Path, kept: str, key: bytes, value: bytes | None
) -> None:
    journal = Journal(path)
    if kept == "blocks":
        journal.append([batch(3)])
    elif kept == "open bars":
        journal.put_latest(batch(1, state=lay.STATE_LIVE), NAMES)
    journal.close()
    change(path, b"meta", set_meta(key, value))
    before = (path / "data.mdb").read_bytes()
    refuse(path, f"is damaged: its {key.decode()}.* fsck --repair")
    assert (path / "data.mdb").read_bytes() == before
    journal = Journal(path, is_rescue=True)
    assert minutes(journal) == ([0, 1, 2] if kept == "blocks" else [])
    assert len(journal.latest()[0]) == (kept == "open bars")
    journal.close()


def test_a_journal_that_lost_its_whole_meta_is_not_taken_for_a_new_one(path: Path) -> None:
    journal = Journal(path)
    journal.append([batch(3)])
    journal.close()
    for key in (b"format", b"uuid", b"next"):
        change(path, b"meta", set_meta(key, None))
    refuse(path, "is damaged: its format")


def test_damaged_cursors_and_debts_are_journal_errors(path: Path) -> None:
    journal = Journal(path)
    journal.append([batch(1)], "seg", {"log/0": 1}, ["log/0"])
    journal.close()
    change(path, b"meta", set_meta(b"cursor/seg/log/0", b"\1"))
    for ring in (b"log/\xb0", b"log/", b"lof/0"):
        change(path, b"meta", set_meta(b"walk/seg/" + ring, b""))
        journal = Journal(path)
        with pytest.raises(JournalError, match="is damaged: history is owed of ring"):
            journal.owed_walks("seg")
        with pytest.raises(JournalError, match="is damaged: its cursor of log/0"):
            journal.cursor("seg", "log/0")
        journal.close()
        change(path, b"meta", set_meta(b"walk/seg/" + ring, None))


def test_rows_that_find_their_place_taken_are_never_lost_silently(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    for first in range(3):
        journal.append([batch(1, first)], "seg", {"log/0": first + 1})
    journal.close()
    change(journal.directory, b"meta", set_meta(b"next", (2).to_bytes(8, "big")))
    journal = open_journal()
    for _ in range(2):
        with pytest.raises(JournalError, match="is damaged: its next sequence is 2") as caught:
            journal.append([batch(1, 9)], "seg", {"log/0": 99})
        assert "\n" not in str(caught.value)
    assert (minutes(journal), journal.cursor("seg", "log/0"), journal.next_sequence) == ([0, 1, 2], 3, 2)


def test_a_file_that_is_no_journal_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "data.mdb").write_bytes(b"\x01" * 100_000)
    refuse(path, "damaged or no klshm journal")


def test_a_journal_that_was_cut_short_is_refused(path: Path) -> None:
    journal = Journal(path)
    journal.append([batch(2_000)])
    journal.close()
    os.truncate(path / "data.mdb", 40_960)
    refuse(path, "was cut short")


def test_an_unusable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuse(tmp_path / "file" / "journal", "Not a directory")


def test_a_second_opening_in_one_process_is_refused(path: Path) -> None:
    journal = Journal(path)
    refuse(path, "already open in this process")
    journal.close()


def test_errors_while_reading_are_journal_errors(path: Path) -> None:
    journal = Journal(path)
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.read(0, 1)
    with pytest.raises(JournalError, match="closed"):
        journal.append([batch(1)])
