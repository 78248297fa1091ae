"""Noticing that a file was taken away while it is open: what is written then goes nowhere that anybody finds."""

from __future__ import annotations

import os
from pathlib import Path


__all__ = ["Place"]


class Place:
    """Some files by name, and which ones they were when they were first seen.

    Args:
        paths: The files; one that does not exist yet counts from when it is seen.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen: dict[Path, tuple[int, int]] = {}
        self.lost()

    def lost(self) -> Path | None:
        """Return a file that is gone or is another than before, None if each is in its place.

        Raises:
            OSError: If it cannot be told.
        """
        for path in self._paths:
            found = _identity(path)
            if found is not None:
                self._seen.setdefault(path, found)
            if found != self._seen.get(path):
                return path
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
