"""The gate before every request."""

from __future__ import annotations

import asyncio
import time

import pytest

from klshm.errors import IpBanned
from klshm.exchange.gate import Gate
from klshm.exchange.governor import Governor, Priority


T0 = 29_000_000 * 60_000 + 10_000


def test_gate_lets_through_in_order_of_importance() -> None:
    async def main() -> None:
        now = [T0]
        governor = Governor(0.9, 0.6)
        gate = Gate(governor, lambda: now[0])
        governor.sent(T0, 2160)
        order: list[str] = []

        async def ask(name: str, priority: Priority) -> None:
            await gate.admit(1, priority)
            order.append(name)

        names = ("backfill", "listings", "confirm", "repair", "repair 2")
        kinds = (Priority.BACKFILL, Priority.LISTINGS, Priority.CONFIRM, Priority.REPAIR, Priority.REPAIR)
        tasks = [asyncio.create_task(ask(n, p)) for n, p in zip(names, kinds, strict=True)]
        cancelled = asyncio.create_task(ask("cancelled", Priority.REPAIR))
        await asyncio.sleep(0)
        assert gate.waiting == 6 and not order
        cancelled.cancel()
        now[0] += 60_000
        gate.pump()
        await asyncio.gather(*tasks)
        assert order == ["repair", "repair 2", "confirm", "listings", "backfill"]
        assert governor.used(now[0]) == 5

    asyncio.run(main())


def test_gate_opens_by_itself_at_the_next_minute() -> None:
    async def main() -> None:
        start = time.monotonic()
        # 50 ms before the next minute begins for the governor
        gate = Gate(Governor(), lambda: 29_000_001 * 60_000 + 150 + int((time.monotonic() - start) * 1000))
        gate.governor.sent(29_000_001 * 60_000 + 150, 2160)
        await gate.admit(1, Priority.REPAIR)
        assert time.monotonic() - start >= 0.05

    asyncio.run(main())


def test_ban_is_an_error_at_once_and_for_those_who_wait() -> None:
    async def main() -> None:
        gate = Gate(Governor(), lambda: T0)
        gate.governor.sent(T0, 2160)
        waiting = asyncio.create_task(gate.admit(1, Priority.REPAIR))
        await asyncio.sleep(0)
        gate.governor.banned(T0, T0 + 300_000, None)
        gate.pump()
        with pytest.raises(IpBanned, match="another 300 s") as caught:
            await waiting
        assert caught.value.until_ms == T0 + 300_000
        with pytest.raises(IpBanned):
            await gate.admit(1, Priority.LISTINGS)

    asyncio.run(main())


def test_what_is_under_way_at_a_minutes_end_counts_in_both() -> None:
    """The exchange counts a request when it arrives: hundreds at once could exceed the new minute unseen."""

    async def main() -> None:
        now = [T0]
        gate = Gate(Governor(), lambda: now[0])
        answer = asyncio.Event()

        async def ask() -> None:
            async with gate.passage(2, Priority.REPAIR):
                await answer.wait()

        asked = [asyncio.create_task(ask()) for _ in range(10)]
        await asyncio.sleep(0)
        assert gate.governor.used(now[0]) == 20
        now[0] += 60_000
        await gate.admit(5, Priority.REPAIR)
        assert gate.governor.used(now[0]) == 25
        answer.set()
        await asyncio.gather(*asked)
        now[0] += 60_000
        await gate.admit(1, Priority.REPAIR)
        assert gate.governor.used(now[0]) == 6  # the one never passed on, and this

    asyncio.run(main())
