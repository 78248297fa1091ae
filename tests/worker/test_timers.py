"""A timer's action runs once at each multiple of its period, however late the turn before it ended."""

from __future__ import annotations

import asyncio
import statistics
import time

from klshm.worker.process import every


PERIOD_S = 0.1


def test_an_action_that_takes_most_of_its_period_misses_none() -> None:
    multiples: list[int] = []

    def action() -> None:
        multiples.append(round(time.time() / PERIOD_S))
        until_s = time.monotonic() + 0.7 * PERIOD_S
        while time.monotonic() < until_s:
            pass

    async def run() -> None:
        timer = asyncio.create_task(every(PERIOD_S, action))
        await asyncio.sleep(15 * PERIOD_S)
        timer.cancel()

    asyncio.run(run())
    steps = [after - before for before, after in zip(multiples[1:], multiples[2:], strict=False)]
    assert statistics.median(steps) == 1
    assert min(steps) == 1
