"""What a repair keeps of a journal of which a part is damaged."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from klshm.config import StoreConfig
from klshm.fsck import journal_child
from klshm.fsck.journal import JournalState, check_journal
from klshm.fsck.journal_rescue import archive_journal, renew_journal
from klshm.fsck.report import Report
from klshm.store.archive_reader import ArchiveReader
from klshm.store.journal import Journal
from tests.fsck.test_journal import directory as directory
from tests.fsck.test_journal import get, put, with_crc


def rescued(directory: Path, state: JournalState) -> tuple[int, set[str]]:
    """Mend a journal as a repair does; return rows that came into the archive, symbols that kept an open bar."""
    archive = directory.parent / "klines.db"
    rows = archive_journal(directory, archive, StoreConfig())
    with closing(ArchiveReader(archive)) as reader:
        assert sum(len(reader.read_series(series.symbol, series.interval)) for series in reader.series()) == rows
    aside = renew_journal(directory, directory.with_name("aside"), is_broken=state.broken)
    assert aside.exists() and journal_child.look(directory)["problems"] == []
    with closing(Journal(directory)) as journal:
        assert journal.blocks == 0
        found, damaged = journal.latest()
    assert damaged == 0
    return rows, {symbol for symbol, _ in found}


@pytest.mark.parametrize(
    ("name", "older"), [(b"BT\xc3USDT\x001m", False), (b"BT\xc3USDT\x001m", True), (b"BTCUSDT\x007m", True)]
)
def test_an_open_bar_without_a_name_costs_nothing_else(directory: Path, name: bytes, older: bool) -> None:
    value = get(directory, b"latest", b"BTCUSDT\x001m")
    put(directory, b"latest", b"BTCUSDT\x001m", None)
    put(directory, b"latest", name, with_crc(value[4:]) if older else value)
    report = Report()
    state = check_journal(directory, report)
    assert (state.damaged, state.broken) == (True, False)
    assert dict(report.problems) == {"format" if older else "bits": 1}
    assert rescued(directory, state) == (6, {"币安人生USDT"})


@pytest.mark.parametrize(("key", "value"), [(b"next", None), (b"next", b"\0" * 7 + b"\2"), (b"uuid", None)])
def test_progress_that_is_damaged_costs_no_bar(directory: Path, key: bytes, value: bytes | None) -> None:
    put(directory, b"meta", key, value)
    report = Report()
    state = check_journal(directory, report)
    assert (state.damaged, state.broken) == (True, False)
    assert set(report.problems) == {"progress"}
    assert rescued(directory, state) == (6, {"BTCUSDT", "币安人生USDT"})
