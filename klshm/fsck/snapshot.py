"""The snapshot file that an ordered stop leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from klshm.errors import KlshmError
from klshm.fsck.report import Report
from klshm.store.snapshot import read_snapshot


__all__ = ["check_snapshot"]

_PLACE: Final = "snapshot"


def check_snapshot(path: Path, report: Report) -> bool:
    """Look at a snapshot file, if there is one; return whether it is damaged."""
    if not path.exists():
        return False
    report.looked_at[_PLACE] = {"path": str(path), "bytes": path.stat().st_size}
    try:
        read_snapshot(path)
    except KlshmError as error:
        report.add(_PLACE, path.name, "unreadable", detail=str(error))
        return True
    return False
