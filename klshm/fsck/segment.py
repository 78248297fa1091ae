"""The segment of a running or crashed engine: structure and sanity, which is all that can be told.

Shared memory carries no checksums. What is looked at: the header, the symbols table, and that every
row lies where a row of its time, interval and symbol belongs and holds values that a bar can have.
Rows that are being written are left out while the engine runs.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.config.settings import from_json
from klshm.errors import ConfigError, InstanceNotFound, LayoutMismatch, SegmentError, SegmentNotReady
from klshm.fsck.bars import impossible
from klshm.fsck.report import Report
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, ROW_BYTES, ROW_WORDS
from klshm.shm.segment import Segment, open_segment, segment_path
from klshm.shm.view import SymbolTable, exchange_now_ms
from klshm.store.names import is_legal_symbol
from klshm.store.segment_rows import interval_names, log_name


__all__ = ["SegmentState", "check_segment"]

_PLACE: Final = "segment"
_PIECE_ROWS: Final = 65_536
_SUBJECT: Final = "segment"

Rows = np.ndarray[Any, Any]


class SegmentState:
    """What others have to know of the segment.

    Attributes:
        runs: Its engine lives.
        now_ms: The exchange's time, UTC ms; None if no engine runs.
        uuid: Its identity, empty if it cannot be read.
        tails: Ring to the position after its last entry.
        damaged: Something in it is wrong.
    """

    def __init__(self) -> None:
        self.runs = False
        self.now_ms: int | None = None
        self.uuid = ""
        self.tails: dict[str, int] = {}
        self.damaged = False


def check_segment(instance: str, report: Report) -> SegmentState:
    """Look at an instance's segment, if there is one; what is wrong goes into the report.

    Raises:
        SegmentError: If it may not be read.
    """
    state = SegmentState()
    if not segment_path(instance).exists():
        return state
    try:
        segment = open_segment(instance)
    except InstanceNotFound:
        return state  # unlinked between the two looks
    except (LayoutMismatch, SegmentNotReady) as error:
        report.add(_PLACE, _SUBJECT, "not checked", detail=str(error))
        return state
    except SegmentError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        report.looked_at[_PLACE] = {"path": str(segment_path(instance))}
        report.add(_PLACE, _SUBJECT, "unreadable", detail=str(error))
        state.damaged = True
        return state
    try:
        _Look(segment, report, state).all()
    finally:
        segment.close()
    return state


class _Look:
    """One look at one segment."""

    def __init__(self, segment: Segment, report: Report, state: SegmentState) -> None:
        self._segment = segment
        self._layout = segment.layout
        self._report = report
        self._state = state
        self._rows = 0

    def all(self) -> None:
        """Look at everything."""
        segment, layout, state = self._segment, self._layout, self._state
        state.runs, state.uuid = segment.is_locked(), segment.uuid
        state.now_ms = exchange_now_ms(segment) if state.runs else None
        self._header()
        places = self._symbols()
        if places is None:
            return
        for worker in range(layout.workers):
            self._block(worker)
            self._live(worker, places[worker])
            self._history(worker, places[worker])
            self._log(worker)
        historian = segment.block(layout.historian_offset)
        state.tails["historian"] = int(historian[lay.B_TAIL])
        self._report.looked_at[_PLACE] = {
            "path": str(segment.path), "runs": state.runs, "workers": layout.workers, "rows": self._rows
        }

    def _blame(self, subject: str, problem: str, detail: str, *, open_time: int | None = None, number: int = 1) -> None:
        self._state.damaged |= problem != "torn"
        self._report.add(_PLACE, subject, problem, detail=detail, open_time=open_time, number=number)

    def _header(self) -> None:
        words = self._segment.words
        if not 0 <= int(words[lay.H_STATE]) < len(lay.SEGMENT_STATE_NAMES):
            self._blame("header", "impossible", f"state {int(words[lay.H_STATE])}")
        codes = self._layout.interval_codes
        if list(codes) != sorted(set(codes)):
            self._blame("header", "impossible", f"interval codes {codes}")
        try:
            from_json(self._segment.config_bytes())
        except (ConfigError, TypeError) as error:
            self._blame("configuration", "unreadable", str(error))

    def _symbols(self) -> list[Rows] | None:
        """Return the slot of every local slot of every worker, -1: none; None if the table cannot be."""
        layout, table = self._layout, SymbolTable(self._segment)
        if not 0 <= table.count <= layout.max_symbols:
            self._blame("symbols", "impossible", f"{table.count} symbols, at most {layout.max_symbols}")
            return None
        size = table.count * lay.SYMBOL_BYTES
        rows = self._segment.region(layout.symbols_offset, size).copy().view(lay.SYMBOL)
        places = [np.full(layout.slots, -1, dtype=np.int64) for _ in range(layout.workers)]
        for slot, row in enumerate(rows):
            name = bytes(row["name"]).decode(errors="replace")
            worker, local = int(row["worker"]), int(row["local_slot"])
            if int(row["sequence"]) & 1 and not self._state.runs:
                self._blame(f"symbol {slot}", "torn", "its row was being written")
            elif row["status"] == lay.SYMBOL_EMPTY:
                continue
            elif not is_legal_symbol(name) or not 0 <= row["status"] < len(lay.SYMBOL_STATUS_NAMES):
                self._blame(f"symbol {slot}", "impossible", f"name {name!r}, status {int(row['status'])}")
            elif not (0 <= worker < layout.workers and 0 <= local < layout.slots):
                self._blame(f"symbol {slot}", "impossible", f"worker {worker}, local slot {local}")
            else:
                places[worker][local] = slot
        return places

    def _block(self, worker: int) -> None:
        block = self._segment.block(self._layout.partition_offset(worker))
        generation, intent = int(block[lay.B_GENERATION]), int(block[lay.B_INTENT])
        if not self._state.runs and not 0 <= generation <= intent <= generation + 1:
            self._blame(f"worker {worker}", "impossible", f"generation {generation}, intent {intent}")

    def _live(self, worker: int, slots: Rows) -> None:
        layout = self._layout
        tables = {"live": layout.live_offset(worker)}
        if not self._state.runs:
            generation = int(self._segment.block(layout.partition_offset(worker))[lay.B_GENERATION])
            tables["half"] = layout.half_offset(worker, generation & 1)
        for name, offset in tables.items():
            count = layout.slots * layout.intervals
            rows = self._segment.region(offset, count * ROW_BYTES).reshape(count, ROW_WORDS)
            subject = f"{name} of worker {worker}"
            kept, index = self._whole(rows, subject, np.arange(count))
            self._judge(subject, kept, slots[index // layout.intervals], index % layout.intervals, (lay.STATE_LIVE,))

    def _history(self, worker: int, slots: Rows) -> None:
        layout = self._layout
        count = layout.slots * layout.history_rows_per_symbol
        history = self._segment.region(layout.history_offset(worker), count * ROW_BYTES).reshape(count, ROW_WORDS)
        for interval, rows in enumerate(layout.history_rows):
            begin = layout.history_row(0, interval)
            name = intervals.name_of(layout.interval_codes[interval])
            subject = f"history {name} of worker {worker}"
            for start in range(begin, begin + layout.slots * rows, _PIECE_ROWS):
                end = min(start + _PIECE_ROWS, begin + layout.slots * rows)
                kept, index = self._whole(history[start:end], subject, np.arange(start - begin, end - begin))
                closed = (lay.STATE_CLOSED, lay.STATE_CONFIRMED)
                wrong = self._judge(subject, kept, slots[index // rows], np.full(len(index), interval), closed)
                place = (kept["open_time"] - intervals.anchor_ms(name)) // intervals.length_ms(name) % rows
                elsewhere = ~wrong & (place != index % rows)
                self._blame_rows(subject, kept, elsewhere, "misaligned", "at another bar's place")

    def _whole(self, rows: Rows, subject: str, index: Rows) -> tuple[Rows, Rows]:
        """Return the rows that are there and whole, and where they lie."""
        # SYNC POINT row: reader
        before = rows[:, 0].copy()
        copied = rows.copy()
        same = before == rows[:, 0]
        torn = before & 1 != 0
        if torn.any() and not self._state.runs:
            self._blame(subject, "torn", "rows were being written", number=int(torn.sum()))
        if (before < 0).any():
            self._blame(subject, "impossible", "a negative sequence", number=int((before < 0).sum()))
        good = same & ~torn & (before > 0)
        self._rows += int(good.sum())
        return copied[good].view(KLINE).reshape(-1), index[good]

    def _judge(self, subject: str, rows: Rows, slots: Rows, interval: Rows, states: tuple[int, ...]) -> Rows:
        """Blame rows that cannot be where they are; return which."""
        layout, wrong = self._layout, np.zeros(len(rows), dtype=bool)
        codes = np.array(layout.interval_codes)[interval]
        names = interval_names(self._segment)
        lengths = np.array([intervals.length_ms(names[code]) for code in layout.interval_codes])[interval]
        anchors = np.array([intervals.anchor_ms(names[code]) for code in layout.interval_codes])[interval]
        for problem, detail, found in (
            ("impossible", "of another symbol or interval", (rows["slot"] != slots) | (rows["interval"] != codes)),
            ("impossible", "of a state that does not belong there", ~np.isin(rows["state"], states)),
            ("misaligned", "not a multiple of its interval", (rows["open_time"] - anchors) % lengths != 0),
            *(("impossible", what, found) for what, found in impossible(rows)),
        ):
            self._blame_rows(subject, rows, found & ~wrong, problem, detail)
            wrong |= found
        return wrong

    def _blame_rows(self, subject: str, rows: Rows, found: Rows, problem: str, detail: str) -> None:
        if found.any():
            first = int(rows["open_time"][int(np.argmax(found))])
            self._blame(subject, problem, detail, open_time=first, number=int(found.sum()))

    def _log(self, worker: int) -> None:
        layout = self._layout
        block = self._segment.block(layout.partition_offset(worker))
        tail = int(block[lay.B_TAIL])
        self._state.tails[log_name(worker)] = tail
        ring = self._segment.region(layout.log_offset(worker), layout.log_rows * ROW_BYTES).reshape(-1, ROW_WORDS)
        # The oldest eighth may be overwritten while we look.
        first = max(0, tail - layout.log_rows + (layout.log_rows // 8 if self._state.runs else 1))
        positions = np.arange(first, tail, dtype=np.int64)
        if tail < 0 or len(positions) > layout.log_rows:
            self._blame(f"log {worker}", "progress", f"tail {tail}")
            return
        entries = ring[positions % layout.log_rows].copy()
        bad = entries[:, 0] != 2 * positions + 2
        if bad.any():
            detail = f"stamp {int(entries[int(np.argmax(bad)), 0])} at position {int(positions[int(np.argmax(bad))])}"
            self._blame(f"log {worker}", "progress", detail, number=int(bad.sum()))
        rows = entries[~bad].view(KLINE).reshape(-1)
        for what, found in impossible(rows):
            self._blame_rows(f"log {worker}", rows, found, "impossible", what)
