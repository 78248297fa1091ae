"""A reader in one process against a writer in another: nothing torn, lost or repeated."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import klshm
from klshm.errors import InstanceNotFound
from tests.support.desk import MINUTE, START, Desk


pytestmark = pytest.mark.stress

SYMBOLS = ("BTCUSDT", "ETHUSDT")
BURSTS, BURST_MINUTES = 40, 30

WRITER = f"""
import sys
from klshm.shm import layout as lay
from tests.support.desk import MINUTE, START, Desk

desk = Desk("stress", log_rows=16)
for name in {SYMBOLS}:
    desk.list_symbol(name)
    desk.live(name, "1m", START)
desk.set_clock(START)
desk.publish(closed_through_ms=START)
print("ready", flush=True)
minute = 0
while sys.stdin.readline():
    for minute in range(minute, minute + {BURST_MINUTES}):
        desk.beat()
        for name in {SYMBOLS}:
            value = float(minute)
            cells = dict(open=value, high=value, low=value, close=value, volume=value, quote_volume=value)
            desk.tick(name, "1m", START + minute * MINUTE, flags=lay.FLAG_PROVISIONAL, **cells)
            desk.log(name, "1m", START + minute * MINUTE, revision=2, state=lay.STATE_CONFIRMED, **cells)
        desk.publish(closed_through_ms=START + (minute + 1) * MINUTE)
    minute += 1
    print("done", flush=True)
desk.close()
"""


@pytest.mark.parametrize("when", ["tick", "settle", "confirmed"])
def test_every_bar_once_though_the_log_overruns(make_desk: Callable[..., Desk], when: klshm.read.closed.Moment) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER],
        cwd=Path(__file__).parents[2],
        env=os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        seen: Counter[tuple[str, int]] = Counter()
        with klshm.attach("stress", stale_after_s=60, gone_after_s=60) as reader:
            follower = reader._follower(None, ["1m"], None, when, False)
            for burst in range(1, BURSTS + 1):
                writer.stdin.write("go\n")
                writer.stdin.flush()
                is_late = burst % 2 == 1  # a reader that looks only then has certainly been overrun
                if is_late:
                    assert writer.stdout.readline() == "done\n"
                until_s = time.monotonic() + 240
                while len(seen) < burst * BURST_MINUTES * len(SYMBOLS) and time.monotonic() < until_s:
                    follower.wait(0.1)
                    for bar in follower.poll():
                        value = float((bar.open_time - START) // MINUTE)
                        assert [bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume] == [value] * 6
                        seen[bar.symbol, bar.open_time] += 1
                if not is_late:
                    assert writer.stdout.readline() == "done\n"
            lost = sum(log.lost for log in follower._logs)
            del follower
        writer.stdin.close()
    expected = {(name, START + minute * MINUTE) for name in SYMBOLS for minute in range(BURSTS * BURST_MINUTES)}
    assert set(seen) == expected
    assert set(seen.values()) == {1}
    assert lost, "the log was large enough: this run proved nothing"
    with pytest.raises(InstanceNotFound):
        klshm.attach("stress")
