"""From the payloads of one turn to events: the recogniser first, the typed decoder for all it leaves.

The recogniser (`klshm.core.kernel.recognise`) reads all frames of a turn in one call. Where it
stops, the decoder (`klshm.core.messages`) reads one frame, and the recogniser goes on behind it:
events are in the order of the frames, whoever read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from klshm.core.kernel.recognise import ENTRY_WORDS, SLACK, enter_name, recognise
from klshm.core.messages import EventBatch, FrameDecoder
from klshm.errors import BadMessage


__all__ = ["FrameReader"]

_ZEROS: Final = bytes(SLACK)
_LEAST_ENTRIES: Final = 64
_ENTRIES_PER_NAME: Final = 4
"""A table that is mostly free is searched in one step."""


class FrameReader:
    """Turns the stream frames of one worker into events.

    Args:
        slots: Local slot per symbol as the exchange spells it; call `learn` after every change.
        pairs: Local slot per (pair, contract type), for continuous klines; changed in place likewise.
    """

    def __init__(self, slots: dict[str, int], pairs: dict[tuple[str, str], int]) -> None:
        self._slots = slots
        self._decoder = FrameDecoder(slots, pairs)
        self._names = np.zeros(_LEAST_ENTRIES * ENTRY_WORDS, dtype=np.int64)
        self._learned: dict[str, int] = {}
        self.learn()

    @property
    def unknown_symbols(self) -> int:
        """Frames of symbols that have no slot."""
        return self._decoder.unknown_symbols

    def learn(self) -> None:
        """Take over which symbols there are."""
        added = {name: slot for name, slot in self._slots.items() if self._learned.get(name) != slot}
        entries = len(self._names) // ENTRY_WORDS
        if len(self._slots) != len(self._learned) + len(added) or len(self._slots) * _ENTRIES_PER_NAME > entries:
            while len(self._slots) * _ENTRIES_PER_NAME > entries:
                entries *= 2
            self._names = np.zeros(entries * ENTRY_WORDS, dtype=np.int64)
            added = self._slots
        for name, slot in added.items():
            enter_name(self._names, _bytes(name.encode() + b'"' + _ZEROS), slot)
        self._learned = dict(self._slots)

    def read(self, frames: Sequence[bytes], batch: EventBatch) -> list[BadMessage]:
        """Add the events of frames to a batch, in order.

        Args:
            frames: Their payloads.
            batch: Where events go; a frame that is refused adds none.

        Returns:
            Why frames were refused.
        """
        refused = []
        number, index, at = len(frames), 0, 0
        text = b"\n".join((*frames, _ZEROS))
        data, end = _bytes(text), len(text) - SLACK
        lines: bool | None = None
        while index < number:
            known, left = 0, number - index
            if lines is not False:
                known = recognise(data, at, end + 1, self._names, batch.reserve(left), batch.count, left)
            if known < left and lines is None:
                # A frame that holds a line end of its own would be taken for two.
                lines = text.count(b"\n", 0, end) == number
                known = known if lines else 0
            batch.count += known
            index += known
            if known == left:
                break
            at += sum(map(len, frames[index - known : index + 1])) + known + 1
            try:
                self._decoder.decode(frames[index], batch)
            except BadMessage as error:
                refused.append(error)
            index += 1
        return refused


def _bytes(text: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(text, np.uint8)
