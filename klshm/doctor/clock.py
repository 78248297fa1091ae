"""This machine's clock: whether it is kept, and how far it is from the exchange's."""

from __future__ import annotations

import ctypes
import time
from typing import Final

from klshm.config import Config
from klshm.doctor.lines import OK, WARN, Line
from klshm.errors import KlshmError
from klshm.shm.segment import open_segment
from klshm.shm.view import read_clock


__all__ = ["exchange_clock", "is_synchronised", "local_clock"]

_FAR_MS: Final = 1000
_OLD_S: Final = 300.0
_TIMEX_BYTES: Final = 512  # the kernel's struct timex and room to spare
_TIME_ERROR: Final = 5


def local_clock() -> list[Line]:
    """Ask the kernel whether something keeps its clock right."""
    state = is_synchronised()
    if state is None:
        return [Line("clock", OK, "the kernel does not say whether it is kept")]
    if state:
        return [Line("clock", OK, "kept by NTP or PTP")]
    advice = "run chronyd or systemd-timesyncd; bars go by the exchange's clock, logs and files by this one"
    return [Line("clock", WARN, "not synchronised", advice)]


def is_synchronised() -> bool | None:
    """Return whether the kernel counts its clock as synchronised; None if it does not say."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        state = ctypes.CDLL(None).adjtimex(buffer)  # modes 0: only asks
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def exchange_clock(config: Config) -> list[Line]:
    """Take the exchange's clock from the running engine, if there is one."""
    try:
        segment = open_segment(config.instance)
    except KlshmError:
        return []
    try:
        if not segment.is_locked():
            return []
        clock = read_clock(segment)
    finally:
        segment.close()
    if clock is None:
        return [Line("exchange", WARN, "its clock was never measured", "see python -m klshm status: is it reachable?")]
    offset_ms = clock.now_ms() - time.time_ns() // 1_000_000
    age_s = (time.monotonic_ns() - clock.synced_ns) / 1e9
    found = f"{offset_ms:+,} ms from this clock, known to {clock.error_ns / 1e6:.1f} ms, measured {age_s:.0f} s ago"
    if age_s > _OLD_S:
        return [Line("exchange", WARN, found, "it has not answered since: see python -m klshm status")]
    if abs(offset_ms) > _FAR_MS:
        return [Line("exchange", WARN, found, "set this machine's clock; bars are right anyway, times in logs are not")]
    return [Line("exchange", OK, found)]
