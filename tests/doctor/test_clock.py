from __future__ import annotations

import ctypes
import time
from typing import Any

import pytest

from klshm.config import Config
from klshm.doctor import clock
from klshm.shm import layout as lay
from tests.support.desk import Desk
from tests.support.desk import make_desk as make_desk


@pytest.mark.parametrize(("state", "verdict"), [(0, "ok"), (5, "warn"), (-1, "ok")])
def test_the_kernels_own_clock(monkeypatch: pytest.MonkeyPatch, state: int, verdict: str) -> None:
    assert clock.is_synchronised() in (True, False, None)

    class Library:
        def adjtimex(self, buffer: Any) -> int:
            return state

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    (line,) = clock.local_clock()
    assert (line.topic, line.verdict) == ("clock", verdict)


def test_a_c_library_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert clock.is_synchronised() is None


def look() -> Any:
    (line,) = clock.exchange_clock(Config(instance="test"))
    return line


def test_the_exchanges_clock(make_desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock.exchange_clock(Config(instance="none")) == []
    desk: Desk = make_desk()
    assert look().verdict == "warn" and "never measured" in look().found
    desk.set_clock(time.time_ns() // 1_000_000 + 3)
    assert look().verdict == "ok"
    desk.set_clock(time.time_ns() // 1_000_000 + 5500)
    assert look().verdict == "warn" and "+5,4" in look().found or "+5,5" in look().found
    block = desk.layout.historian_offset // 8
    desk.set_clock(time.time_ns() // 1_000_000)
    desk.words[block + lay.B_CLOCK_SYNCED_NS] -= 400 * 10**9
    assert look().verdict == "warn" and "has not answered" in look().advice
    monkeypatch.setattr(type(desk.segment), "is_locked", lambda segment: False)
    assert clock.exchange_clock(Config(instance="test")) == []
