"""The archive: the file's structure, its tables, its rows, and what they say of each other.

Read symbol by symbol, each in a short transaction of its own, so that a running engine's
write-ahead log may shrink meanwhile; only SQLite's own look at the pages is one long read.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from klshm import intervals
from klshm.errors import ArchiveError
from klshm.fsck.bars import Hole, SeriesState, look_at
from klshm.fsck.folds import differences
from klshm.fsck.report import Report
from klshm.shm import layout as lay
from klshm.store import names, rows, schema


__all__ = ["ABSENT", "ArchiveState", "Series", "check_archive", "read_only"]

_PLACE: Final = "archive"
_STRUCTURE_LINES: Final = 100
_BUSY_S: Final = 5.0
_MARK: Final = re.compile(r"[0-9a-f]{32}:\d{1,18}")
_MAX_DECIMALS: Final = 9

ABSENT: Final = "absent/"
"""Keys of `meta` that begin so name times at which the exchange had no bar when a repair asked: JSON, pairs."""


class Series(NamedTuple):
    """One row of the table `series`, as it stands."""

    table: str
    symbol: str
    interval: str
    onboard_ms: int
    price_decimals: int
    quantity_decimals: int
    retired: int


@dataclass
class ArchiveState:
    """What a repair has to know.

    Attributes:
        broken: The file's structure cannot be trusted: it must be written anew.
        series: All series that can be read.
        states: Table to what was found in its rows; only series with something wrong.
        spans: Table to its first and last good bar, UTC ms.
        folds: Table to open times of our own folds that do not add up.
        missing: Tables that `series` names and that are not there.
        renamed: Series whose name is wrong, by table: symbol and interval its bars were written for.
        watermark: Journal uuid and sequence up to which the archive says it has the journal.
    """

    broken: bool = False
    series: list[Series] = field(default_factory=list)
    states: dict[str, SeriesState] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    folds: dict[str, list[int]] = field(default_factory=dict)
    missing: list[Series] = field(default_factory=list)
    renamed: dict[str, tuple[str, str]] = field(default_factory=dict)
    watermark: tuple[str, int] | None = None


def check_archive(
    path: Path, report: Report, now_ms: int | None, *, wanted: Sequence[str] = (), progress: Callable[[str], None]
) -> ArchiveState:
    """Look at an archive; what is wrong goes into the report.

    Args:
        path: The SQLite file; there must be one.
        report: Where findings go.
        now_ms: Exchange time, UTC ms; None: no engine runs, the newest stored bar says how late it is.
        wanted: Only these symbols; none: all, and the file's structure.
        progress: Told each symbol.

    Raises:
        ArchiveError: If another klshm, or another program, wrote it: then nothing can be said.
    """
    state = ArchiveState()
    tally = {"path": str(path), "bytes": path.stat().st_size, "tables": 0, "rows": 0}
    report.looked_at[_PLACE] = tally
    try:
        with closing(read_only(path)) as connection:
            if not _is_ours(connection, path, report, state):
                return state
            if not wanted:
                _check_structure(connection, path, report, state)
            _check_tables(connection, report, state)
            _check_progress(connection, report, state)
            present = [series for series in state.series if series not in state.missing]
            late_ms = now_ms if now_ms is not None else _newest_ms(connection, present)
            for symbol, own in _by_symbol(present, wanted):
                progress(symbol)
                with _reading(connection):
                    _check_symbol(connection, own, report, state, late_ms, tally)
    except sqlite3.Error as error:
        # It happens to have no code where Python itself could not make sense of what it got.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGE:
            raise ArchiveError(schema.describe(path, error)) from error
        state.broken = True
        report.add(_PLACE, path.name, "structure", detail=str(error))
    return state


_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR)


def read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
    connection.text_factory = _text  # a flipped bit in a name is damage, not an exception
    return connection


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


@contextmanager
def _reading(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def _is_ours(connection: sqlite3.Connection, path: Path, report: Report, state: ArchiveState) -> bool:
    """Return whether there is something to look at; refuse what other versions or programs wrote."""
    try:
        return schema.check_version(connection, path)
    except ArchiveError as error:
        tables = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        version = None
        if "meta" in tables:
            version = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        is_foreign = not any(table.startswith(("k_", "meta", "series")) for table in tables)
        if is_foreign or (version is not None and isinstance(version[0], int) and version[0] > 0):
            raise
        state.broken = True
        report.add(_PLACE, path.name, "structure", detail=str(error))
        return False


def _check_structure(connection: sqlite3.Connection, path: Path, report: Report, state: ArchiveState) -> None:
    for (line,) in connection.execute(f"PRAGMA integrity_check({_STRUCTURE_LINES})"):
        for part in str(line).splitlines():
            if part != "ok":
                state.broken = True
                report.add(_PLACE, path.name, "structure", detail=part)


def _check_tables(connection: sqlite3.Connection, report: Report, state: ArchiveState) -> None:
    tables = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    query = "SELECT table_name, symbol, interval, onboard_ms, price_decimals, quantity_decimals, retired FROM series"
    known = set()
    for found in connection.execute(query).fetchall():
        series = Series(*found)
        known.add(series.table)
        if problem := _wrong_entry(series):
            report.add(_PLACE, str(series.table), "format", detail=problem)
            guess = _written_for(connection, series) if series.table in tables else None
            if guess is not None:
                state.renamed[series.table] = guess
                series = series._replace(symbol=guess[0], interval=guess[1])
        if _is_usable(series):
            state.series.append(series)
            if series.table not in tables:
                state.missing.append(series)
                report.add(_PLACE, series.table, "format", detail="series names this table, and it is not there")
            elif not _has_columns(connection, series.table):
                state.broken = True
                report.add(_PLACE, series.table, "format", detail="its columns are not those of bars")
        else:
            state.broken = True
    for table in sorted(tables - known - {"meta", "series"}):
        if names.parse_table(table) is None:
            report.add(_PLACE, table, "foreign", detail="a table that klshm did not make")
        else:
            state.broken = True
            report.add(_PLACE, table, "format", detail="a table of bars that series does not name")


def _is_usable(series: Series) -> bool:
    numbers = series.onboard_ms, series.price_decimals, series.quantity_decimals
    return (
        isinstance(series.table, str)
        and names.parse_table(series.table) is not None
        and isinstance(series.symbol, str)
        and names.is_legal_symbol(series.symbol)
        and series.interval in intervals.INTERVALS
        and all(isinstance(number, int) for number in numbers)
    )


def _wrong_entry(series: Series) -> str:
    """Return what is wrong with a row of `series`; nothing if it is right."""
    if not _is_usable(series):
        return f"series has an entry that cannot be: {series.symbol!r} {series.interval!r}"
    parsed = names.parse_table(series.table)
    assert parsed is not None
    stem, interval, day = parsed
    wanted = names.parse_table(names.table_name(series.symbol, series.interval))
    assert wanted is not None
    if interval != series.interval or wanted[0] not in (stem, re.sub(r"__\d+$", "", stem)):
        return f"series says that it holds {series.symbol} {series.interval}"
    if bool(day) != bool(series.retired):
        return f"series says retired = {series.retired}"
    if not 0 <= series.price_decimals + series.quantity_decimals <= _MAX_DECIMALS:
        return f"series says {series.price_decimals} and {series.quantity_decimals} decimals"
    return ""


def _written_for(connection: sqlite3.Connection, series: Series) -> tuple[str, str] | None:
    """Return the symbol and interval that the bars of a table were written for, None if they do not tell."""
    parsed = names.parse_table(series.table)
    if parsed is None:
        return None
    stem = re.sub(r"__\d+$", "", parsed[0]).upper()
    sample = connection.execute(f"SELECT * FROM {names.quoted(series.table)} LIMIT 50").fetchall()
    candidates = [(str(series.symbol), parsed[1]), (f"{stem}USDT", parsed[1]), (stem, parsed[1])]
    counts = {one: len(rows.intact_rows(sample, rows.series_seed(*one))) for one in candidates}
    best = max(counts, key=lambda one: counts[one])
    return best if counts[best] and names.is_legal_symbol(best[0]) else None


def _has_columns(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute(f"PRAGMA table_info({names.quoted(table)})").fetchall()
    return tuple(column[1] for column in found) == rows.COLUMNS


def _check_progress(connection: sqlite3.Connection, report: Report, state: ArchiveState) -> None:
    for key, value in connection.execute("SELECT key, value FROM meta").fetchall():
        if key in ("watermark", "historian_cursor"):
            if not isinstance(value, str) or not _MARK.fullmatch(value):
                report.add(_PLACE, "meta", "progress", detail=f"{key} = {value!r}, expected a uuid and a position")
            elif key == "watermark":
                uuid, _, number = value.rpartition(":")
                state.watermark = uuid, int(number)
        elif key != "version" and not str(key).startswith(ABSENT):
            report.add(_PLACE, "meta", "foreign", detail=f"key {key!r}")


def _newest_ms(connection: sqlite3.Connection, present: list[Series]) -> int:
    newest = 0
    for series in present:
        query = f"SELECT max(open_time) FROM {names.quoted(series.table)} WHERE state >= {lay.STATE_CLOSED}"
        (found,) = connection.execute(query).fetchone()
        if isinstance(found, int) and series.interval == intervals.INTERVALS[0]:
            newest = max(newest, found + intervals.length_ms(series.interval))
    return newest


def _by_symbol(present: list[Series], wanted: Sequence[str]) -> Iterator[tuple[str, list[Series]]]:
    for symbol in sorted({series.symbol for series in present}):
        if not wanted or symbol in wanted:
            yield symbol, [series for series in present if series.symbol == symbol]


def _check_symbol(
    connection: sqlite3.Connection,
    own: list[Series],
    report: Report,
    state: ArchiveState,
    now_ms: int,
    tally: dict[str, Any],
) -> None:
    """Look at all series of a symbol, seen at one moment."""
    current: dict[str, tuple[Series, SeriesState]] = {}
    for series in own:
        values = connection.execute(f"SELECT * FROM {names.quoted(series.table)} ORDER BY open_time").fetchall()
        tally["tables"] += 1
        tally["rows"] += len(values)
        seed = rows.series_seed(series.symbol, series.interval)
        decimals = (series.price_decimals, series.quantity_decimals)
        found = look_at(values, series.interval, seed, *decimals, now_ms)
        found.holes = _without_absent(connection, series, found.holes, report)
        _tell(series, found, report)
        if found.wrong or found.holes or found.unconfirmed:
            state.states[series.table] = found
        if len(found.good):
            state.spans[series.table] = int(found.good["open_time"][0]), int(found.good["open_time"][-1])
        if not series.retired:
            current[series.interval] = series, found
    _check_folds(current, report, state)


def _without_absent(
    connection: sqlite3.Connection, series: Series, holes: list[Hole], report: Report
) -> list[Hole]:
    """Return the holes but for those where the exchange itself is known to have nothing."""
    query = "SELECT value FROM meta WHERE key = ?"
    stored = connection.execute(query, (f"{ABSENT}{series.table}",)).fetchone() if holes else None
    if stored is None:
        return holes
    try:
        known = [Hole(int(first), int(last)) for first, last in json.loads(stored[0])]
    except (TypeError, ValueError):
        report.add(_PLACE, "meta", "progress", detail=f"{ABSENT}{series.table} is no list of times")
        return holes
    left = []
    for hole in holes:
        if any(one.first_ms <= hole.first_ms and hole.last_ms <= one.last_ms for one in known):
            number = (hole.last_ms - hole.first_ms) // intervals.length_ms(series.interval) + 1
            report.add(_PLACE, series.table, "absent", open_time=hole.first_ms, number=number)
        else:
            left.append(hole)
    return left


def _tell(series: Series, found: SeriesState, report: Report) -> None:
    for time, (problem, detail) in found.wrong.items():
        open_time = time if isinstance(time, int) else None
        report.add(_PLACE, series.table, problem, open_time=open_time, detail=detail)
    for hole in found.holes:
        number = (hole.last_ms - hole.first_ms) // intervals.length_ms(series.interval) + 1
        report.add(
            _PLACE, series.table, "hole", open_time=hole.first_ms, number=number, detail=f"{number} bars are missing"
        )
    for open_ms in found.unconfirmed:
        report.add(_PLACE, series.table, "unconfirmed", open_time=open_ms)


def _check_folds(current: dict[str, tuple[Series, SeriesState]], report: Report, state: ArchiveState) -> None:
    kept = tuple(name for name in intervals.INTERVALS if name in current)
    if not kept or kept[0] != intervals.INTERVALS[0]:
        return
    for name, source in zip(kept[1:], intervals.parents_of(kept)[1:], strict=True):
        series, found = current[name]
        for one in differences(found.good, current[kept[source]][1].good, name, kept[source]):
            problem = "fold" if one.is_derived else "contradiction"
            report.add(_PLACE, series.table, problem, open_time=one.open_time, detail=", ".join(one.fields))
            if one.is_derived:
                state.folds.setdefault(series.table, []).append(one.open_time)
