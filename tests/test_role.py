"""What every process is given: its block in the segment and a stop signal."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.config import Config
from klshm.role import Role, Stop, block_offset
from klshm.shm import layout as lay
from klshm.shm.layout import Layout
from klshm.shm.segment import Segment, create_segment


@pytest.fixture
def segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Segment]:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    segment = create_segment("test", Layout(8, 2, 8, (0,), (32,), 64, 32, 32, 50), b"{}")
    yield segment
    segment.close()


# -- the stop signal ------------------------------------------------------------------------------------


def test_a_stop_that_was_not_asked_for() -> None:
    stop = Stop()
    began_s = time.monotonic()
    assert not stop.is_set()
    assert not stop.wait(0.02)
    assert time.monotonic() - began_s >= 0.019


def test_a_stop_stays_set_and_may_be_repeated() -> None:
    stop = Stop()
    for _ in range(3):
        stop.set()
        assert stop.is_set() and stop.wait(30) and stop.is_set()


def test_threads_wait_for_a_stop() -> None:
    stop, woken = Stop(), []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(30))) for _ in range(3)]
    for thread in threads:
        thread.start()
    stop.set()
    for thread in threads:
        thread.join(30)
    assert woken == [True] * 3


def test_a_signal_handler_ends_a_wait() -> None:
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    try:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert stop.wait(30)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_every_part_of_an_event_loop_hears_of_a_stop() -> None:
    stop = Stop()
    held = len(os.listdir("/proc/self/fd"))

    async def serve() -> None:
        with stop.in_loop() as first, stop.in_loop() as second:
            asyncio.get_running_loop().call_later(0.01, stop.set)
            await asyncio.gather(first.wait(), second.wait())

    asyncio.run(serve())
    assert stop.is_set() and len(os.listdir("/proc/self/fd")) == held


# -- the block ------------------------------------------------------------------------------------------


def role(segment: Segment, kind: str, index: int = 0) -> Role:
    return Role(kind, index, segment, Config())


def test_every_role_has_a_block_of_its_own(segment: Segment) -> None:
    roles = [
        role(segment, "worker"),
        role(segment, "worker", 1),
        *(role(segment, kind) for kind in ("launcher", "historian", "persister", "web")),
    ]
    for number, each in enumerate(roles, 1):
        assert not each.block.any() and len(each.block) == lay.BLOCK_WORDS
        each.block[:] = number
    assert [int(each.block[0]) for each in roles] == [1, 2, 3, 4, 5, 6]
    assert [each.name for each in roles] == ["worker 0", "worker 1", "launcher", "historian", "persister", "web"]
    assert block_offset(segment.layout, "worker", 1) == segment.layout.partition_offset(1)
    with pytest.raises(KeyError):
        block_offset(segment.layout, "cook", 0)
    del roles, each


def test_the_life_line(segment: Segment) -> None:
    mine = role(segment, "worker", 1)
    for incarnation in (1, 2):
        mine.begin()
        assert mine.block[lay.B_INCARNATION] == incarnation
    assert mine.block[lay.B_PID] == os.getpid()
    assert mine.block[lay.B_ROLE_STATE] == lay.ROLE_STARTING
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert mine.block[lay.B_START_TICKS] == int(fields[22 - 3])
    began_ns = int(mine.block[lay.B_HEARTBEAT_NS])
    assert 0 < began_ns <= time.monotonic_ns()
    mine.heartbeat()
    assert mine.block[lay.B_HEARTBEAT_NS] > began_ns
    mine.enter(lay.ROLE_LIVE)
    assert mine.block[lay.B_ROLE_STATE] == lay.ROLE_LIVE


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("disk full", "disk full"),
        ("x" * 1000, "x" * lay.ERROR_TEXT_BYTES),
        ("ab" + "币" * 400, "ab" + "币" * ((lay.ERROR_TEXT_BYTES - 2) // 3)),
    ],
)
def test_the_last_error_outlives_the_process(segment: Segment, text: str, kept: str) -> None:
    mine = role(segment, "persister")
    mine.report_error("an older and longer error " * 5)
    mine.report_error(text)
    block = segment.block(segment.layout.persister_offset)
    data = block[lay.B_ERROR_TEXT :].tobytes()[: int(block[lay.B_ERROR_LENGTH])]
    assert data.decode() == kept
    assert abs(int(block[lay.B_ERROR_MS]) - time.time_ns() // 1_000_000) < 60_000
    assert not segment.block(segment.layout.web_offset).any(), "nothing ran over into the next block"
    del block
