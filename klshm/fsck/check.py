"""One look at all files of an instance, in the order in which progress goes the other way.

A block leaves the journal after the archive has it, and an entry enters the journal after the
ring has it. So the journal is read first: what it says can only be behind, never ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from klshm.fsck.archive import ArchiveState, check_archive
from klshm.fsck.journal import JournalState, check_journal, check_meeting
from klshm.fsck.report import Report
from klshm.fsck.segment import SegmentState, check_segment
from klshm.fsck.snapshot import check_snapshot
from klshm.store.names import archive_path, journal_path
from klshm.store.snapshot import snapshot_path


__all__ = ["Found", "check"]


@dataclass
class Found:
    """What was found, for people (report) and for a repair (the rest).

    Attributes:
        report: Everything.
        archive: None if there is none.
        journal: None if there is none.
        segment: Of the instance, if there is one.
        snapshot_damaged: The snapshot file cannot be used.
        commits_lost: Blocks are neither in the archive nor in the journal.
    """

    report: Report = field(default_factory=Report)
    archive: ArchiveState | None = None
    journal: JournalState | None = None
    segment: SegmentState = field(default_factory=SegmentState)
    snapshot_damaged: bool = False
    commits_lost: bool = False


def check(
    instance: str, directory: Path, symbols: Sequence[str] = (), progress: Callable[[str], None] = lambda symbol: None
) -> Found:
    """Look at the files of an instance; writes nothing.

    Args:
        instance: Its name.
        directory: Its directory.
        symbols: Only these in the archive, and nothing else; none: everything.
        progress: Told each symbol of the archive.

    Raises:
        KlshmError: If a file was written by another klshm or program, or may not be read.
    """
    found = Found()
    report, archive, journal = found.report, archive_path(directory), journal_path(directory)
    if not symbols:
        if (journal / "data.mdb").exists():
            found.journal = check_journal(journal, report)
        found.snapshot_damaged = check_snapshot(snapshot_path(directory), report)
        found.segment = check_segment(instance, report)
        if found.journal is not None:
            _check_cursors(found.journal, found.segment, report)
    if archive.exists():
        now_ms = found.segment.now_ms
        found.archive = check_archive(archive, report, now_ms, wanted=symbols, progress=progress)
    if found.journal is not None and not (found.archive and found.archive.broken):
        watermark = found.archive.watermark if found.archive else None
        found.commits_lost = not check_meeting(found.journal, watermark, report)
    return found


def _check_cursors(journal: JournalState, segment: SegmentState, report: Report) -> None:
    for key, position in journal.cursors.items():
        uuid, _, ring = key.partition("/")
        tail = segment.tails.get(ring)
        # Entries beyond the tail that a killed producer had finished are taken too.
        if uuid == segment.uuid and tail is not None and not segment.runs and position > tail + (1 << 20):
            journal.damaged = True
            detail = f"it claims {ring} up to {position}, its tail is {tail}"
            report.add("journal", "meta", "progress", detail=detail)
