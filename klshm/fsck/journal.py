"""The journal: its blocks, its open bars, and whether it and the archive meet."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from klshm.errors import JournalError
from klshm.fsck.report import Report


__all__ = ["JournalState", "check_journal", "check_meeting"]

_PLACE: Final = "journal"
_PATIENCE_S: Final = 300.0
_NEWER: Final = "use the klshm that wrote it"


@dataclass
class JournalState:
    """What a repair has to know.

    Attributes:
        broken: It cannot be read: it must be set aside.
        damaged: Something in it is wrong.
        uuid: Its identity.
        first: Sequence of its oldest block; `next` if it has none.
        next: Sequence that the next block gets.
        cursors: "segment uuid/ring" to the position up to which that ring was journaled.
    """

    broken: bool = False
    damaged: bool = False
    uuid: str = ""
    first: int = 0
    next: int = 0
    cursors: dict[str, int] = field(default_factory=dict)


def check_journal(directory: Path, report: Report) -> JournalState:
    """Look at a journal; what is wrong goes into the report.

    Args:
        directory: The LMDB directory; there must be one.
        report: Where findings go.

    Raises:
        JournalError: If another klshm wrote it.
    """
    state = JournalState()
    found = _ask_child(directory)
    refused = found.get("refused")
    if refused is not None:
        if _NEWER in refused:
            raise JournalError(refused)
        state.broken = state.damaged = True
        report.add(_PLACE, "data.mdb", "structure", detail=refused)
        report.looked_at[_PLACE] = {"path": str(directory)}
        return state
    report.looked_at[_PLACE] = {
        "path": str(directory), **{name: found.get(name, 0) for name in ("blocks", "rows", "latest")}
    }
    for subject, problem, detail in found["problems"]:
        report.add(_PLACE, subject, problem, detail=detail)
        state.damaged = True
        state.broken |= (subject, problem) == ("meta", "format")
    state.uuid, state.first, state.next = (found.get(name, state.__dict__[name]) for name in ("uuid", "first", "next"))
    state.cursors = found.get("cursors", {})
    return state


def check_meeting(state: JournalState, watermark: tuple[str, int] | None, report: Report) -> bool:
    """Return whether every block that the journal has trimmed is in the archive.

    Blocks are trimmed only after the archive's commit; if it does not know of them any more, commits are
    lost: its write-ahead log was damaged, or an old copy of the file put in its place.

    Args:
        state: What was found in the journal.
        watermark: Up to which block the archive says it has a journal.
        report: Where findings go.
    """
    if state.damaged or not state.next:
        return True
    known = watermark[1] if watermark is not None and watermark[0] == state.uuid else 0
    if known >= state.first - 1:
        return True
    report.add(
        "archive",
        "meta",
        "lost commits",
        number=state.first - 1 - known,
        detail=f"it has the journal up to block {known}, the journal begins with {state.first}",
    )
    return False


def _ask_child(directory: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "klshm.fsck.journal_child", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return {"refused": f"{directory} is damaged: reading it does not end"}
    if done.returncode < 0:
        return {"refused": f"{directory} is damaged: LMDB dies reading it ({signal.Signals(-done.returncode).name})"}
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines()
        return {"refused": f"{directory} is damaged: {lines[-1] if lines else 'LMDB says nothing'}"}
    return document
