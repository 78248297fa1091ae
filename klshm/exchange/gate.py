"""The gate before every request: the most important first, as the budget allows.

It counts a request before it goes, in the purse that all processes of this address share. While
the exchange fails, it lets one request at a time through.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from klshm.errors import ExchangeError, ExchangeRefused, ExchangeUnreachable, IpBanned, RateLimited
from klshm.exchange.breaker import Breaker
from klshm.exchange.budget import StateFile
from klshm.exchange.governor import Governor, Priority


__all__ = ["Gate"]


class Gate:
    """Lets requests through one by one, the most important first, as the governor allows.

    Args:
        governor: The budget.
        now_ms: Returns the exchange's time, UTC ms.
        purse: What other processes of this address spend from too; None: there are none.
    """

    def __init__(self, governor: Governor, now_ms: Callable[[], int], purse: StateFile | None = None) -> None:
        self.governor = governor
        self._now_ms = now_ms
        self._purse = purse
        self._breaker = Breaker()
        self._waiting: list[tuple[Priority, int, int, asyncio.Future[int]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._under_way = 0
        self._minute = 0

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(not future.done() for *_, future in self._waiting)

    @asynccontextmanager
    async def passage(self, weight: int, priority: Priority) -> AsyncIterator[None]:
        """Wait until a request may go, and send it in the block: how that ends says how the exchange is.

        Args:
            weight: Its request weight.
            priority: What it is for.

        Raises:
            IpBanned: As `admit`.
        """
        era = await self.admit(weight, priority)
        try:
            yield
        except ExchangeError as error:
            if _is_answer(error):
                self._breaker.answered()
            else:
                self._breaker.failed(era, time.monotonic())
            raise
        except BaseException:
            self._breaker.left(era)
            raise
        else:
            self._breaker.answered()
        finally:
            self._under_way -= weight
            if self._waiting:
                self.pump()

    async def admit(self, weight: int, priority: Priority) -> int:
        """Wait until a request may go, and count it as sent.

        Args:
            weight: Its request weight.
            priority: What it is for.

        Returns:
            Its era (`klshm.exchange.breaker`).

        Raises:
            IpBanned: If this address is banned: waiting hours inside a call helps nobody.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), weight, future))
        self.pump()
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:  # let through, but never sent
                self._under_way -= weight
                self._breaker.left(future.result())
                self.pump()
            raise

    def pump(self) -> None:
        """Let through whatever may go now; call it when the clock has been set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._opened() as now_ms:
            self._let_through(now_ms)

    # What answers said

    def answered(self, sent_ms: int, used: int) -> None:
        """Take `X-MBX-USED-WEIGHT-1M` from the answer to a request that went out at `sent_ms`."""
        with self._opened() as now_ms:
            self.governor.answered(sent_ms, now_ms, used)

    def limited(self, retry_after_s: float | None) -> float:
        """Take an HTTP 429; return the seconds until anything goes out again."""
        with self._opened() as now_ms:
            return self.governor.limited(now_ms, retry_after_s)

    def banned(self, until_ms: int | None, retry_after_s: float | None) -> int:
        """Take an HTTP 418; return the end of the ban, UTC ms."""
        with self._opened() as now_ms:
            return self.governor.banned(now_ms, until_ms, retry_after_s)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the purse; yield the exchange's time."""
        now_ms = self._now_ms()
        if self._purse is None:
            yield now_ms
            return
        with self._purse.opened(self.governor.state, self.governor.minute(now_ms)):
            yield now_ms

    def _let_through(self, now_ms: int) -> None:
        self._carry_over(now_ms)
        until_ms = self.governor.banned_until_ms(now_ms)
        while self._waiting:
            priority, _, weight, future = self._waiting[0]
            if future.done():  # its owner was cancelled
                heapq.heappop(self._waiting)
                continue
            if until_ms:
                heapq.heappop(self._waiting)
                future.set_exception(_ban(until_ms, now_ms))
                continue
            hold_s = self._breaker.wait_s(time.monotonic())
            if hold_s is None:
                return
            wait_s = max(hold_s, self.governor.wait_ms(now_ms, weight, priority) / 1000)
            if wait_s > 0:
                self._timer = asyncio.get_running_loop().call_later(wait_s + 0.002, self.pump)
                return
            heapq.heappop(self._waiting)
            self.governor.sent(now_ms, weight)
            self._under_way += weight
            future.set_result(self._breaker.began())

    def _carry_over(self, now_ms: int) -> None:
        """Count in a new minute what is still under way from the last: it counts where it arrives."""
        minute = self.governor.minute(now_ms)
        if minute != self._minute:
            self._minute = minute
            if self._under_way:
                self.governor.sent(now_ms, self._under_way)


def _is_answer(error: ExchangeError) -> bool:
    """Return whether the exchange has looked at the request, and not merely refused whatever came."""
    if isinstance(error, ExchangeRefused):
        return error.is_about_request
    return not isinstance(error, (ExchangeUnreachable, RateLimited, IpBanned))


def _ban(until_ms: int, now_ms: int) -> IpBanned:
    return IpBanned(
        f"this address is banned by the exchange for another {(until_ms - now_ms) / 1000:.0f} s; "
        "nothing is sent until then",
        until_ms=until_ms,
    )
