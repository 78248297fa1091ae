"""Every start is a recovery: what is found is put into the fresh segment before any role is forked.

Then each role finds what it would find after its own restart, and there is nothing special to do
for any of them. Sources, best first: what a dead segment held, a snapshot file that was named, the
journal, the snapshot of the last ordered stop, and for what open bars stand on the archive.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm.config import Config, ExchangeConfig
from klshm.errors import SnapshotFileError, StoreError
from klshm.exchange.models import Listing, select
from klshm.historian.deal import deal
from klshm.run.aside import Aside
from klshm.shm import layout as lay
from klshm.shm.segment import Segment
from klshm.store.names import archive_path
from klshm.store.remains import Remains, SegmentCopy, remains
from klshm.store.restore import Seeded, Seeding
from klshm.store.snapshot import SnapshotFile, read_snapshot, snapshot_path, write_snapshot
from klshm.store.state import State, symbol_names


__all__ = ["Resume", "keep_state"]

Rows = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)

_OLDEST_MS: Final = 30 * 86_400_000
"""Whoever was carried so long ago may be listed no more: the exchange is asked instead."""
_UNKNOWN: Final = lay.CONTRACT_NAMES.index("OTHER")
_KEEP_S: Final = 10.0


class Resume:
    """One start's way from what is found to a seeded segment.

    Args:
        config: The resolved configuration.
        directory: Directory of the instance.
        found: A copy of a dead segment.
        named: A snapshot file that the user named.
    """

    def __init__(
        self, config: Config, directory: Path, found: SegmentCopy | None, named: SnapshotFile | None = None
    ) -> None:
        self._config = config
        self._directory = directory
        self._copy = found
        self._found: Remains | None = None
        self._named = named

    @property
    def is_wanted(self) -> bool:
        """Whether anything may be gone on from: the next demo's market is another one."""
        return self._config.historian.from_archive or self._named is not None

    def seed(self, segment: Segment) -> None:
        """Seed a fresh segment; called in a process of its own, because it opens databases.

        Args:
            segment: No role uses it yet.
        """
        began_s = time.monotonic()
        self._found = self._read_copy()
        states = self._states()
        now_ms = self._now_ms(states)
        table, left_out = self._table(states, segment.layout, now_ms)
        if not len(table):
            _log.info("nothing to go on from, a cold start")
            return
        seeding = Seeding(segment, table)
        closed = {state.origin: seeding.put_state(state) for state in states}
        seeding.put_live(states, now_ms)
        archived = self._from_archive(seeding, table) if self._config.historian.from_archive else 0
        if self._found is not None:
            seeding.put_clock(self._found.clock)
        seeding.put_symbols()
        if left_out:
            _log.warning(
                "more symbols than segment.max_symbols left_out=%d newest=%s; raise it to carry them",
                *(len(left_out), left_out[-1]),
            )
        self._tell(seeding.report, states, closed, archived, time.monotonic() - began_s)

    def forget(self) -> None:
        """Let go of what was copied."""
        if self._copy is not None:
            self._copy.close()
        self._copy = self._named = None

    # Sources

    def _read_copy(self) -> Remains | None:
        try:
            return self._copy.read() if self._copy is not None else None
        except (ValueError, IndexError) as error:
            _log.warning("what a crashed engine left is not gone on from, its bars are in the journal: %s", error)
            return None

    def _states(self) -> list[State]:
        """Return all that is found, best first; what cannot be read is said and left out."""
        states = [self._found.state] if self._found is not None else []
        if self._named is not None:
            states.append(dataclasses.replace(self._named.state, origin="named snapshot"))
        if self._config.historian.from_archive:
            try:
                from klshm.store.recovery import journal_state

                states.append(journal_state(self._directory, closed=self._found is None))
            except StoreError as error:
                _log.warning("what the journal knows is not gone on from: %s", error)
            if (file := self._last_snapshot()) is not None:
                states.append(file.state)
        return [state for state in states if len(state.symbols)]

    def _last_snapshot(self) -> SnapshotFile | None:
        path = snapshot_path(self._directory)
        if not path.exists():
            return None
        try:
            return read_snapshot(path)
        except SnapshotFileError as error:
            aside = path.with_name(f"{path.name}.damaged")
            with suppress(OSError):  # then the next ordered stop replaces it
                path.replace(aside)
            _log.warning("the last stop's snapshot is not used and set aside as %s: %s", aside, error)
            return None

    def _now_ms(self, states: list[State]) -> int:
        """Return the exchange's time as well as it can be said before it was asked."""
        if self._found is not None and self._found.clock is not None:
            return self._found.clock.now_ms()
        known = max((state for state in states if state.skew_ms), key=lambda state: state.time_ms, default=None)
        return time.time_ns() // 1_000_000 + (known.skew_ms if known else 0)

    # Symbols

    def _table(self, states: list[State], layout: lay.Layout, now_ms: int) -> tuple[Rows, list[str]]:
        """Return the rows of the symbols table, dealt to workers, and the names of those that find no room."""
        rows = self._known_symbols(states, now_ms)
        taken = {listing.symbol for listing in select(map(self._listing, rows), _any_contract(self._config.exchange))}
        wanted = sorted((row for row in rows if _name(row) in taken), key=lambda r: (int(r["onboard_ms"]), _name(r)))
        chosen = wanted[: layout.max_symbols]
        rooms = [layout.slots] * layout.workers
        dealt = deal({_name(row): int(row["trades_24h"]) for row in chosen}, [0] * layout.workers, rooms)
        used = [0] * layout.workers
        placed = []
        for row in chosen:
            worker = dealt.get(_name(row))
            if worker is not None:
                row["worker"], row["local_slot"] = worker, used[worker]
                used[worker] += 1
                placed.append(row)
        table = np.array(placed, dtype=lay.SYMBOL)
        return table, [_name(row) for row in wanted[layout.max_symbols :]]

    def _known_symbols(self, states: list[State], now_ms: int) -> list[Any]:
        """Return what was carried last; the best source says who, any other what it does not know of them."""
        unnamed = [s for s in states if s.origin != "named snapshot" and s.time_ms >= now_ms - _OLDEST_MS]
        base = [state for state in unnamed if state.origin == "segment"]
        # By its open bars, not by its date: what `backfill` leaves is new, and knows those that it was told of.
        base = base or sorted(unnamed, key=lambda state: (_newest_open_ms(state), state.time_ms))[-1:]
        base += [state for state in states if state.origin == "named snapshot"]
        known: dict[str, Any] = {}
        for state in (*base, *states):
            for name, row in zip(symbol_names(state.symbols), state.symbols, strict=True):
                if name not in known and state in base:
                    known[name] = row.copy()
                elif name in known and _is_better(row, known[name]):
                    known[name] = row.copy()
        # The continuous stream goes by pair and contract: without them the exchange's list must come first.
        named_only = self._config.exchange.official_stream == "continuousKline"
        return [row for row in known.values() if not (named_only and row["contract"] == _UNKNOWN)]

    def _listing(self, row: Any) -> Listing:
        """Return a row of the table as the exchange lists it, as far as the table tells."""
        pair = bytes(row["pair"]).decode() or _name(row)
        quotes = [quote for quote in self._config.exchange.quote_assets if pair.endswith(quote)]
        return Listing(
            _name(row), 0, 0, contract_type=lay.CONTRACT_NAMES[int(row["contract"])], quote_asset="".join(quotes[:1])
        )

    # What is lacking, and what is said

    def _from_archive(self, seeding: Seeding, table: Rows) -> int:
        """Put what open bars stand on and no other source knew; return how many rows."""
        from klshm.store.archive_reader import ArchiveReader, has_archive

        path = archive_path(self._directory)
        put = 0
        try:
            if not has_archive(path):
                return 0
            with closing(ArchiveReader(path)) as reader:
                kept = self._config.klines.intervals
                for slot, number, first_ms, last_ms in seeding.lacking():
                    rows = reader.read_series(_name(table[slot]), kept[number], first_ms, last_ms)
                    put += seeding.put_rows(slot, rows)
        except StoreError as error:
            _log.warning("what the archive knows is not gone on from: %s", error)
        return put

    def _tell(
        self, report: Seeded, states: list[State], closed: dict[str, int], archived: int, seconds: float
    ) -> None:
        found = {state.origin: state for state in states}
        named = ("named snapshot",) if self._named is not None else ()
        for origin in ("segment", *named, "journal", "snapshot"):
            state = found.get(origin)
            if state is None:
                _log.info("found %s: none to go on from", origin)
            else:
                _log.info(
                    "found %s: symbols=%d open_bars=%d closed_bars=%d as_of=%s%s",
                    *(origin, len(state.symbols), len(state.live), closed[origin], _instant(state.time_ms)),
                    f" age_s={_age_s(state):.0f}" if origin.endswith("snapshot") else "",
                )
        _log.info("found archive: closed_bars=%d that open bars stand on", archived)
        gaps = report.gaps_minutes
        _log.info(
            "restored symbols=%d open_bars=%d closed_bars=%d seconds=%.2f; "
            "gap: %s minutes for %d symbols, closed by the clock and repaired from the exchange's rows; "
            "%d symbols join anew, their history is fetched",
            *(report.symbols, report.live_rows, report.closed_rows, seconds),
            *(f"{min(gaps)} to {max(gaps)}" if gaps else "no", len(gaps), report.not_resumed),
        )


def keep_state(config: Config, segment: Segment, directory: Path) -> None:
    """Write the start-up snapshot of an engine whose roles have ended.

    In a process of its own, so that a disk that hangs does not keep the launcher from ending.

    Args:
        config: The resolved configuration.
        segment: No role writes it any more.
        directory: Directory of the instance.
    """

    def work() -> None:
        state = dataclasses.replace(remains(segment, whole=False), origin="snapshot")
        if len(state.live):
            path = snapshot_path(directory)
            size = write_snapshot(path, config.instance, tuple(config.klines.intervals), state)
            _log.info("snapshot for the next start path=%s open_bars=%d bytes=%d", path, len(state.live), size)

    try:
        if not Aside("the snapshot for the next start", work).wait(_KEEP_S):
            _log.warning("no snapshot was written; the next start goes on from the journal")
    except OSError as error:
        _log.warning("no snapshot was written: %s; the next start goes on from the journal", error.strerror)


def _any_contract(config: ExchangeConfig) -> ExchangeConfig:
    """Return the configuration that takes what the table does not tell the contract type of."""
    return dataclasses.replace(config, contract_types=[*config.contract_types, lay.CONTRACT_NAMES[_UNKNOWN]])


def _is_better(row: Any, known: Any) -> bool:
    """Return whether a row tells the contract of the same listing that another one only names."""
    return bool(known["contract"] == _UNKNOWN != row["contract"] and row["onboard_ms"] == known["onboard_ms"])


def _newest_open_ms(state: State) -> int:
    return int(state.live["open_time"].max(initial=0))


def _name(row: Any) -> str:
    return str(bytes(row["name"]).decode())


def _age_s(state: State) -> float:
    return time.time() - (state.time_ms - state.skew_ms) / 1000


def _instant(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


