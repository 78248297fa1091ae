"""The exchange's clock: measured by round trips, published with its error.

The exchange answers with its time in whole milliseconds, taken somewhere between sending and
receiving. The middle of the trip is the best guess, half the trip (plus half a millisecond) the
bound of its error; of several samples the one with the shortest trip is kept. The published
offset is exchange time minus CLOCK_MONOTONIC, so a step of this machine's own clock does no harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from klshm.errors import BadMessage, ExchangeError
from klshm.shm import layout as lay
from klshm.shm.layout import ROW_WORDS
from klshm.shm.rows import write_row
from klshm.shm.segment import Segment
from klshm.shm.view import read_clock


__all__ = ["ExchangeClock", "Sample", "TimeSync", "next_second_30_ms"]

_log = logging.getLogger(__name__)

SAMPLES: Final = 5
_MILLISECOND_NS: Final = 1_000_000
_STEP_MARGIN_NS: Final = 5 * _MILLISECOND_NS
_LEAP_NS: Final = 10_000 * _MILLISECOND_NS
"""So wrong are neither clocks that are kept nor trips. Bars are closed, and old ones deleted, by this clock."""
_WAITED_NS: Final = 500 * _MILLISECOND_NS
"""A trip that took so long was rather spent at the gate, waiting for weight or the end of a block."""


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        offset_ns: Exchange time minus CLOCK_MONOTONIC.
        error_ns: Bound of its error.
        round_trip_ns: How long the answer took.
        taken_ns: CLOCK_MONOTONIC when it came.
    """

    offset_ns: int
    error_ns: int
    round_trip_ns: int
    taken_ns: int

    @classmethod
    def of(cls, sent_ns: int, received_ns: int, server_ms: int) -> Sample:
        """Return the sample of one question and its answer."""
        round_trip_ns = received_ns - sent_ns
        # The server cut its time to whole milliseconds: it was half of one later, on average.
        server_ns = server_ms * _MILLISECOND_NS + _MILLISECOND_NS // 2
        return cls(
            offset_ns=server_ns - (sent_ns + round_trip_ns // 2),
            error_ns=round_trip_ns // 2 + _MILLISECOND_NS // 2,
            round_trip_ns=round_trip_ns,
            taken_ns=received_ns,
        )


class ExchangeClock:
    """The exchange's time as this process knows it; this machine's own until it was measured.

    Args:
        segment: Where an earlier historian may have published it.

    Attributes:
        offset_ns: Exchange time minus CLOCK_MONOTONIC.
        round_trip_ns: Of the shortest trip when the clock was measured last.
        measured: Whether it was measured.
    """

    def __init__(self, segment: Segment) -> None:
        known = read_clock(segment)
        self.offset_ns = known.offset_ns if known else time.time_ns() - time.monotonic_ns()
        self.round_trip_ns = known.round_trip_ns if known else 0
        self.measured = known is not None

    def now_ms(self) -> int:
        """Return the exchange's time, UTC ms."""
        return (time.monotonic_ns() + self.offset_ns) // _MILLISECOND_NS

    def arrival_ms(self) -> int:
        """Return when a request that is sent now reaches the exchange, in its time, UTC ms."""
        return (time.monotonic_ns() + self.offset_ns + self.round_trip_ns // 2) // _MILLISECOND_NS

    def seconds_until_sending(self, arrive_ms: int, margin_ms: int) -> float:
        """Return how long to wait so that a request reaches the exchange at a given time.

        Args:
            arrive_ms: The wanted moment in the exchange's time, UTC ms.
            margin_ms: So much later it may be, but never earlier: clocks have an error.

        Returns:
            Seconds, 0 if it is too late to be in time.
        """
        wanted_ns = (arrive_ms + margin_ms) * _MILLISECOND_NS - self.offset_ns - self.round_trip_ns // 2
        return max(0, wanted_ns - time.monotonic_ns()) / 1e9


class TimeSync:
    """Measures the exchange's clock and publishes it.

    Args:
        segment: The segment; line 0 of the historian's block is written.
        clock: Told every new offset.
        ask: Returns the exchange's time, UTC ms; raises ExchangeError.
    """

    def __init__(self, segment: Segment, clock: ExchangeClock, ask: Callable[[], Awaitable[int]]) -> None:
        self._words = segment.words
        self._line = segment.layout.historian_offset // 8
        self._clock = clock
        self._ask = ask
        self._last: Sample | None = None
        self.samples = 0
        self.steps = 0

    async def measure(self) -> Sample:
        """Take samples, publish the best and return it; a leap is believed when a second round says the same.

        Raises:
            ExchangeError: If not one good one could be taken, or two rounds contradict each other; what is
                published stays.
        """
        best = await self._round()
        if self._is_leap(best):
            again = await self._round()
            if abs(again.offset_ns - best.offset_ns) > again.error_ns + best.error_ns + _STEP_MARGIN_NS:
                apart_s = abs(again.offset_ns - best.offset_ns) / 1e9
                raise BadMessage(f"time: two answers lie {apart_s:.1f} s apart; neither is believed")
            best = again
        self._judge(best)
        self._publish(best)
        return best

    def _is_leap(self, sample: Sample) -> bool:
        """Return whether a sample is far from what was believed so far, at first this machine's own clock."""
        known_ns = self._last.offset_ns if self._last else self._clock.offset_ns
        return abs(sample.offset_ns - known_ns) > _LEAP_NS

    async def _round(self) -> Sample:
        best: Sample | None = None
        for _ in range(SAMPLES):
            sent_ns = time.monotonic_ns()
            try:
                server_ms = await self._ask()
            except ExchangeError:
                if best is None or best.round_trip_ns > _WAITED_NS:
                    raise
                break  # what was measured so far is good enough
            sample = Sample.of(sent_ns, time.monotonic_ns(), server_ms)
            self.samples += 1
            if best is None or sample.round_trip_ns < best.round_trip_ns:
                best = sample
        assert best is not None
        return best

    def _judge(self, sample: Sample) -> None:
        last, self._last = self._last, sample
        if last is None:
            return
        moved_ns = sample.offset_ns - last.offset_ns
        if abs(moved_ns) > sample.error_ns + last.error_ns + _STEP_MARGIN_NS:
            self.steps += 1
            _log.warning("exchange clock stepped by_ms=%.1f error_ms=%.1f", moved_ns / 1e6, sample.error_ns / 1e6)

    def _publish(self, sample: Sample) -> None:
        self._clock.offset_ns = sample.offset_ns
        self._clock.round_trip_ns = sample.round_trip_ns
        self._clock.measured = True
        image = np.zeros(ROW_WORDS, dtype=np.int64)
        image[lay.B_CLOCK_OFFSET_NS] = sample.offset_ns
        image[lay.B_CLOCK_ERROR_NS] = sample.error_ns
        image[lay.B_CLOCK_SYNCED_NS] = sample.taken_ns
        image[lay.B_CLOCK_ROUND_TRIP_NS] = sample.round_trip_ns
        # SYNC POINT clock: writer. The line has the shape of a row: its first word is the sequence.
        write_row(self._words, self._line, image, 0)


def next_second_30_ms(now_ms: int) -> int:
    """Return the next second 30 of a minute after `now_ms`, UTC ms; far from every close."""
    return (now_ms - 30_000) // 60_000 * 60_000 + 90_000
