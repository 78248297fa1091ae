"""Which symbols are carried: `exchangeInfo`, judged before anything is believed.

A symbol is taken when it trades. It is removed only after two answers in a row that say it is
gone, never more than a tenth at once. One that is merely missing is not removed by an answer that
shows a tenth fewer contracts than the last good one, or lacks more than a tenth of what is carried
(a process that has just begun knows no other answer): an exchange that stutters must not cost
anyone a series. A row that cannot be used says that its symbol is there. A contract that is
announced but not yet trading makes the next question come just after its announced begin.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from klshm.config import ExchangeConfig
from klshm.errors import ExchangeError
from klshm.exchange.backoff import Backoff
from klshm.exchange.models import ExchangeInfo, Listing, select
from klshm.exchange.rest import RestClient
from klshm.historian.health import Health
from klshm.historian.inbox import Outlet, command
from klshm.historian.symbols import Entry, SymbolBook
from klshm.shm import layout as lay


__all__ = ["Judge", "Listings", "Verdict"]

_log = logging.getLogger(__name__)

_PERIOD_S: Final = 60.0
_PENDING_PERIOD_S: Final = 2.0
_AFTER_ONBOARD_MS: Final = 500
"""The exchange sets TRADING some 300 ms after the announced moment, sometimes seconds."""

_PENDING_PATIENCE_MS: Final = 600_000
_SHRUNK: Final = 0.9
_DAY_MS: Final = 86_400_000
"""Listings of one ticker lie further apart; a date that moves by less was corrected."""

_TRADING: Final = "TRADING"
_PENDING: Final = "PENDING_TRADING"
_ENDED: Final = frozenset({"SETTLING", "CLOSE", "DELIVERING", "DELIVERED"})


@dataclass
class Verdict:
    """What an answer means for the table.

    Attributes:
        added: New listings, oldest first.
        removed: Entries that are gone, as tombstones.
        changed: Entries whose status, decimals or delivery changed.
        left_out: Listings for which the table has no room, newest last.
        shrunk: Whether the answer shows suspiciously few contracts.
        next_onboard_ms: Earliest announced begin among those not trading yet; 0: none.
    """

    added: list[Listing] = field(default_factory=list)
    removed: list[Entry] = field(default_factory=list)
    changed: list[Entry] = field(default_factory=list)
    left_out: list[Listing] = field(default_factory=list)
    shrunk: bool = False
    next_onboard_ms: int = 0


class Judge:
    """Compares answers with the table; pure.

    Args:
        config: Which contracts are taken.
    """

    def __init__(self, config: ExchangeConfig) -> None:
        self._config = config
        self._rows = 0
        self._suspects: set[str] = set()

    def judge(self, info: ExchangeInfo, carried: dict[str, Entry], room: int) -> Verdict:
        """Return what an answer changes.

        Args:
            info: The answer.
            carried: Entries that workers carry, by symbol.
            room: Free slots.
        """
        verdict = Verdict()
        listed = {listing.symbol: listing for listing in info.listings}
        rows = len(info.listings) + info.odd
        missing = len(carried.keys() - listed.keys() - info.odd_symbols)
        verdict.shrunk = rows < self._rows * _SHRUNK or missing > _at_once(carried)
        if not verdict.shrunk:
            self._rows = rows
        self._judge_carried(verdict, {name: e for name, e in carried.items() if name not in info.odd_symbols}, listed)
        wanted = select(info.listings, self._config)
        new = [x for x in wanted if x.status == _TRADING and x.symbol not in carried]
        new.sort(key=lambda x: (x.onboard_date, x.symbol))
        verdict.added, verdict.left_out = new[:room], new[room:]
        pending = [x.onboard_date for x in wanted if x.status == _PENDING and x.symbol not in carried]
        verdict.next_onboard_ms = min((t for t in pending if t > 0), default=0)
        return verdict

    def _judge_carried(self, verdict: Verdict, carried: dict[str, Entry], listed: dict[str, Listing]) -> None:
        gone = set()
        for name, entry in carried.items():
            listing = listed.get(name)
            if listing is None:
                if not verdict.shrunk:
                    gone.add(name)
            elif listing.status in _ENDED or listing.onboard_date > entry.onboard_ms + _DAY_MS > _DAY_MS:
                gone.add(name)  # or the ticker belongs to a later listing: it comes back in a slot of its own
            elif (now := _updated(entry, listing)) != entry:
                verdict.changed.append(now)
        removed = sorted(gone & self._suspects)[: _at_once(carried)]
        verdict.removed = [_ended(carried[name], listed.get(name)) for name in removed]
        self._suspects = gone.difference(removed)


def _at_once(carried: dict[str, Entry]) -> int:
    """Return how many symbols an answer may take away."""
    return max(1, int(len(carried) * (1 - _SHRUNK)))


def _updated(entry: Entry, listing: Listing) -> Entry:
    return dataclasses.replace(
        entry,
        status=lay.SYMBOL_TRADING if listing.status == _TRADING else lay.SYMBOL_HALTED,
        # Decimals only grow: rows already written have the old ones.
        price_decimals=max(entry.price_decimals, listing.price_precision),
        quantity_decimals=max(entry.quantity_decimals, listing.quantity_precision),
        delivery_ms=listing.delivery_date,
    )


def _ended(entry: Entry, listing: Listing | None) -> Entry:
    delivery_ms = listing.delivery_date if listing else entry.delivery_ms
    return dataclasses.replace(entry, status=lay.SYMBOL_DELISTED, delivery_ms=delivery_ms)


class Listings:
    """Keeps the symbols table true, and tells the workers.

    Args:
        book: The table.
        config: Which contracts are taken.
        client: Asks the exchange.
        inboxes: One outlet per worker.
        health: Told the outcome of requests.
        now_ms: Returns the exchange's time, UTC ms.
        on_added: Called with new entries, and once with those an earlier historian left.
        on_removed: Called with tombstones.
    """

    def __init__(
        self,
        book: SymbolBook,
        config: ExchangeConfig,
        client: RestClient,
        inboxes: list[Outlet],
        health: Health,
        now_ms: Callable[[], int],
        *,
        on_added: Callable[[list[Entry]], None],
        on_removed: Callable[[list[Entry]], None],
    ) -> None:
        self._book = book
        self._judge = Judge(config)
        self._client = client
        self._inboxes = inboxes
        self._health = health
        self._now_ms = now_ms
        self._on_added = on_added
        self._on_removed = on_removed
        self._announced: set[int] = set()
        self._left_out = 0
        self._odd = 0
        self._again = asyncio.Event()
        self.filled = asyncio.Event()

    def refresh(self) -> None:
        """Ask the exchange again soon, not only at the next minute."""
        self._again.set()

    async def run(self) -> None:
        """Keep the table true for ever."""
        self._announce(self._book.carried().values())
        backoff = Backoff(1.0, 30.0)
        while True:
            self._again.clear()
            try:
                verdict = await self.update()
            except ExchangeError as error:
                self._health.failed("listings", error)
                pause_s = backoff.next_s()
            else:
                self._health.answered()
                backoff.reset()
                pause_s = _pause_s(verdict.next_onboard_ms, self._now_ms())
            timer = asyncio.get_running_loop().call_later(pause_s, self._again.set)
            await self._again.wait()
            timer.cancel()

    async def update(self) -> Verdict:
        """Ask once and apply what the answer means.

        Raises:
            ExchangeError: If there was no usable answer; nothing was changed.
        """
        info = await self._client.exchange_info()
        verdict = self._judge.judge(info, self._book.carried(), self._book.room)
        trades_24h: dict[str, int] = {}
        if verdict.added:
            try:
                trades_24h = {name: t.count for name, t in (await self._client.tickers_24h()).items()}
            except ExchangeError as error:  # dealt by number then; not worth waiting for
                self._health.failed("24 h tickers", error)
        self._report(info, verdict)
        self._remove(verdict.removed)
        self._change(verdict.changed)
        self._announce(self._book.add(verdict.added, trades_24h))
        counters = self._health.counters
        counters.set("symbols_trading", sum(e.status == lay.SYMBOL_TRADING for e in self._book.entries))
        counters.set("symbols_left_out", len(verdict.left_out))
        self.filled.set()
        return verdict

    def _announce(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        for entry in entries:
            self._send_add(entry)
        new = [e for e in entries if e.slot not in self._announced]
        self._announced.update(e.slot for e in new)
        if new:
            self._health.counters.add("listings_total", len(new))
            _log.info("symbols added count=%d first=%s", len(new), new[0].name)
            self._on_added(new)

    def _send_add(self, entry: Entry) -> None:
        self._inboxes[entry.worker].urgent(
            command(
                lay.COMMAND_ADD,
                entry.slot,
                open_time=entry.onboard_ms,
                price_decimals=entry.price_decimals,
                quantity_decimals=entry.quantity_decimals,
            )
        )

    def _change(self, entries: list[Entry]) -> None:
        before = {entry.slot: self._book.entries[entry.slot] for entry in entries}
        self._book.replace(entries)
        for entry in entries:
            old = before[entry.slot]
            if (entry.price_decimals, entry.quantity_decimals) != (old.price_decimals, old.quantity_decimals):
                self._send_add(entry)
            if entry.status != old.status:
                _log.info("symbol status symbol=%s status=%s", entry.name, lay.SYMBOL_STATUS_NAMES[entry.status])

    def _remove(self, entries: list[Entry]) -> None:
        if not entries:
            return
        now_ms = self._now_ms()
        # Perpetuals "end" in the year 2100; one that has vanished without a date ends now.
        entries = [dataclasses.replace(entry, delivery_ms=min(entry.delivery_ms, now_ms)) for entry in entries]
        self._book.replace(entries)
        for entry in entries:
            self._inboxes[entry.worker].urgent(command(lay.COMMAND_REMOVE, entry.slot))
            _log.info("symbol delisted symbol=%s slot=%d", entry.name, entry.slot)
        self._health.counters.add("delistings_total", len(entries))
        self._on_removed(entries)

    def _report(self, info: ExchangeInfo, verdict: Verdict) -> None:
        if verdict.shrunk:
            _log.warning(
                "exchangeInfo shows a tenth fewer contracts than before or than are carried rows=%d; nothing removed",
                len(info.listings),
            )
        if len(verdict.left_out) != self._left_out:
            self._left_out = len(verdict.left_out)
            if self._left_out:
                _log.warning(
                    "more symbols than segment.max_symbols left_out=%d newest=%s; raise it to carry them",
                    self._left_out,
                    verdict.left_out[-1].symbol,
                )
        if info.odd != self._odd:
            self._odd = info.odd
            if info.odd:
                _log.warning(
                    "exchangeInfo has rows that cannot be used count=%d first=%s", info.odd, info.odd_examples[0]
                )


def _pause_s(next_onboard_ms: int, now_ms: int) -> float:
    """Return when to ask next: each minute, and closely around an announced begin of trading."""
    if not next_onboard_ms:
        return _PERIOD_S
    until_ms = next_onboard_ms + _AFTER_ONBOARD_MS - now_ms
    if until_ms > 0:
        return min(_PERIOD_S, until_ms / 1000)
    return _PENDING_PERIOD_S if until_ms > -_PENDING_PATIENCE_MS else _PERIOD_S
