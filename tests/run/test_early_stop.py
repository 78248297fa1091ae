"""The first signal raises, or waits until it may; the second ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from klshm.run.early_stop import EarlyStop, StoppedEarly


@pytest.fixture
def early() -> Iterator[EarlyStop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = EarlyStop()
    stop.install()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_raises_what_no_error_handler_catches(early: EarlyStop) -> None:
    with pytest.raises(StoppedEarly):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Exception:  # pragma: no cover - that is the point
            pytest.fail("taken for an error")


def test_a_deferred_signal_is_taken_where_it_may_be(early: EarlyStop) -> None:
    reached = []
    with pytest.raises(StoppedEarly), early.deferred() as check:
        check()
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("went on")
        check()
        reached.append("never")
    assert reached == ["went on"]


def test_a_deferred_signal_is_taken_at_the_end_at_the_latest(early: EarlyStop) -> None:
    with pytest.raises(StoppedEarly), early.deferred():
        os.kill(os.getpid(), signal.SIGTERM)


def test_without_a_signal_nothing_happens(early: EarlyStop) -> None:
    with early.deferred() as check:
        check()


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = """
import os, signal
from klshm.run.early_stop import EarlyStop
early = EarlyStop()
early.abandon = lambda: print("abandoned", flush=True)
early.install()
with early.deferred():
    os.kill(os.getpid(), signal.SIGINT)
    print("goes on", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("never", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "goes on\nabandoned\n", "")
