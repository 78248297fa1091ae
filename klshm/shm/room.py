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

_KEPT: Final = 2



def _references() -> int:
    given = np.empty(0, dtype=np.int64)
    return sys.getrefcount(given)


_OURS: Final = _references()
"""References to an array that only one local name holds; how many that are depends on the interpreter."""


class Room:
    """Copies arrays of one shape; each copy is its owner's for as long as anything refers to it.

    The memory of two copies is kept: whoever replaces one by the next holds both for a moment.
    """

    def __init__(self) -> None:
        self._given: deque[Words] = deque(maxlen=_KEPT)

    def copy(self, source: Words) -> Words:
        """Return a copy.

        Args:
            source: Dtype int64, of the same shape at every call.

        Returns:
            An array that no one else refers to.
        """
        copied = self._free()
        if copied is None:
            copied = np.empty_like(source)
        np.copyto(copied, source)
        self._given.append(copied)
        return copied

    def _free(self) -> Words | None:
        for _ in range(_KEPT):
            try:
                given = self._given.popleft()  # whoever takes it has it alone, in any thread
            except IndexError:
                return None
            if sys.getrefcount(given) <= _OURS:
                return given
            self._given.append(given)
        return None
