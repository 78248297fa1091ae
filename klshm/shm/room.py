"""Memory for copies that are taken again and again: what the last owner has let go of is used anew.

A copy of some hundred KiB often gets pages that the process has never touched, and each costs a
fault at its first store: together they take longer than the copy.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any, Final

import numpy as np


__all__ = ["Room"]

Words = np.ndarray[Any, np.dtype[np.int64]]



def _references() -> int:
    room = np.empty(0, dtype=np.int64)
    return sys.getrefcount(room)


_OURS: Final = _references()
"""References to an array that only one local name holds; how many that are depends on the interpreter."""


class Room:
    """Copies arrays of one shape; each copy is its owner's for as long as anything refers to it."""

    def __init__(self) -> None:
        self._given: deque[Words] = deque(maxlen=1)

    def copy(self, source: Words) -> Words:
        """Return a copy.

        Args:
            source: Dtype int64, of the same shape at every call.

        Returns:
            An array that no one else refers to.
        """
        try:
            room = self._given.pop()  # whoever takes it has it alone, in any thread
        except IndexError:
            room = np.empty_like(source)
        if sys.getrefcount(room) > _OURS:
            room = np.empty_like(source)
        np.copyto(room, source)
        self._given.append(room)
        return room
