"""The snapshot file: what was written is read, and nothing else is believed."""

from __future__ import annotations

import os
import secrets
import signal
import stat
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.errors import SnapshotFileError
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, SYMBOL
from klshm.store.snapshot import read_snapshot, snapshot_path, sweep_temporary_snapshots, write_snapshot
from klshm.store.state import State
from tests.store.engine import MINUTE, START, bars
from tests.support.processes import exit_code, fork


INTERVALS = ("1m", "5m")


def symbols(*names: str, **fields: Any) -> Any:
    rows = np.zeros(len(names), dtype=SYMBOL)
    rows["name"] = rows["pair"] = [name.encode() for name in names]
    rows["status"], rows["contract"], rows["onboard_ms"], rows["trades_24h"] = lay.SYMBOL_TRADING, 1, 1000, 7
    rows["price_decimals"], rows["quantity_decimals"] = 2, 3
    for name, value in fields.items():
        rows[name] = value
    return rows


def state(**changes: Any) -> State:
    live = bars([START, START // (5 * MINUTE) * 5 * MINUTE], state=lay.STATE_LIVE, last_agg_id=7, quote_residual=-3)
    live["interval"][1] = 2
    fields = {
        "symbols": symbols("BTCUSDT", "币安人生USDT"),
        "live": live,
        "closed": (bars([START - MINUTE], slot=1), bars([START - 2 * MINUTE], slot=0, state=lay.STATE_CONFIRMED)),
        "time_ms": START + 5,
        "skew_ms": -17,
    }
    return State("snapshot", **{**fields, **changes})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_snapshot(snapshot_path(tmp_path), "main", INTERVALS, state())
    return snapshot_path(tmp_path)


def test_what_was_written_is_read(file: Path) -> None:
    found = read_snapshot(file)
    assert (found.instance, found.intervals, found.bytes) == ("main", INTERVALS, file.stat().st_size)
    assert (found.state.time_ms, found.state.skew_ms) == (START + 5, -17)
    assert found.age_s(START + 5 + 17 + 2500) == 2.5
    wanted = state()
    assert found.state.symbols.tobytes() == wanted.symbols.tobytes()
    assert found.state.live.tobytes() == wanted.live.tobytes()
    assert b"".join(piece.tobytes() for piece in found.state.closed) == np.concatenate(wanted.closed).tobytes()
    assert found.state.closed_rows == 2


def test_nobody_else_may_read_it_and_nothing_else_is_left(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == ["initial_state.bin"]


def test_a_file_that_cannot_be_written_leaves_the_one_that_was(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(SnapshotFileError, match="cannot write .*No such file or directory; check the directory"):
        write_snapshot(file.parent / "none" / "x.bin", "main", INTERVALS, state())
    (file.parent / "d").mkdir()
    with pytest.raises(SnapshotFileError, match="cannot write .*; check the directory"):
        write_snapshot(file.parent / "d", "main", INTERVALS, state())
    assert sorted(os.listdir(file.parent)) == ["d", "initial_state.bin"]
    assert file.read_bytes() == before


def test_what_killed_writers_left_is_swept_and_nothing_else(file: Path) -> None:
    def die(descriptor: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write_and_die() -> None:
        os.fsync = die
        write_snapshot(file, "main", INTERVALS, state())

    before = file.read_bytes()
    for _ in range(2):
        assert exit_code(fork(write_and_die)) == -signal.SIGKILL
    left = {path.name for path in file.parent.iterdir()} - {file.name}
    assert len(left) == 2
    Path(f"{file}.damaged").touch()
    assert {path.name for path in sweep_temporary_snapshots(file.parent)} == left
    assert sorted(os.listdir(file.parent)) == [file.name, f"{file.name}.damaged"]
    assert file.read_bytes() == before
    assert sweep_temporary_snapshots(file.parent) == []


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_lies_under_the_name_of_an_unfinished_one_is_not_touched(
    file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda size: "00" * size)
    victim = planted = Path(f"{file}.{'00' * 8}.tmp")
    if kind == "link":
        victim = file.parent / "victim"
        planted.symlink_to(victim)
    victim.write_text("precious")
    before = file.read_bytes()
    with pytest.raises(SnapshotFileError, match="cannot write .*: File exists; check the directory"):
        write_snapshot(file, "main", INTERVALS, state(time_ms=START))
    assert (victim.read_text(), file.read_bytes()) == ("precious", before)


def test_bars_that_cannot_be_bars_are_not_written(file: Path) -> None:
    bad = bars([START - MINUTE, START - 2 * MINUTE])
    bad["volume"][0] = np.nan
    write_snapshot(file, "main", INTERVALS, state(closed=(bad,)))
    assert read_snapshot(file).state.closed_rows == 1


def test_every_flipped_byte_is_seen(file: Path) -> None:
    content = file.read_bytes()
    for at in range(len(content)):
        for bit in (1, 0x80):
            file.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
            with pytest.raises(SnapshotFileError) as caught:
                read_snapshot(file)
            assert "\n" not in str(caught.value) and caught.value.exit_code == 1


def test_every_truncation_is_seen_and_every_addition(file: Path) -> None:
    content = file.read_bytes()
    for length in (*range(len(content)), len(content) + 1, 2 * len(content)):
        file.write_bytes((content * 2)[:length])
        with pytest.raises(SnapshotFileError):
            read_snapshot(file)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SnapshotFileError, match="cannot read snapshot .*No such file or directory; name another"):
        read_snapshot(tmp_path / "none")
    with pytest.raises(SnapshotFileError, match="cannot read snapshot .*Is a directory; name another"):
        read_snapshot(tmp_path)


def rewritten(file: Path, at: int, data: bytes) -> None:
    """Change bytes and make the checksum fit again: what a hostile writer does."""
    content = bytearray(file.read_bytes())
    content[at : at + len(data)] = data
    content[12:16] = struct.pack("<I", zlib.crc32(content[16:]))
    file.write_bytes(content)


def test_a_newer_format_is_refused_clearly(file: Path) -> None:
    rewritten(file, 8, struct.pack("<I", 2))
    with pytest.raises(SnapshotFileError, match="snapshot format 2, this klshm reads 1; use the klshm that wrote it"):
        read_snapshot(file)
    rewritten(file, 8, struct.pack("<I", 0))
    with pytest.raises(SnapshotFileError, match="is damaged"):
        read_snapshot(file)


@given(st.integers(0, 4), st.sampled_from([0, 1, 2, 3, 0xFFFF, 0x10000, 0xFFFFFFFF]))
def test_counts_that_lie_are_refused_before_anything_is_read(number: int, value: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "x")
        write_snapshot(file, "main", INTERVALS, state())
        at, form = [(32, "<I"), (36, "<I"), (40, "<I"), (44, "<H"), (46, "<H")][number]
        value &= 0xFFFFFFFF if form == "<I" else 0xFFFF
        true = struct.unpack_from(form, file.read_bytes(), at)[0]
        rewritten(file, at, struct.pack(form, value))
        if value == true:
            read_snapshot(file)
            return
        with pytest.raises(SnapshotFileError):
            read_snapshot(file)


FIRST_SYMBOL = 48 + 8
FIRST_ROW = FIRST_SYMBOL + 2 * 256


@pytest.mark.parametrize(
    ("at", "data", "reason"),
    [
        (16, struct.pack("<q", -1), "exchange time -1 ms"),
        (24, struct.pack("<q", 1 << 60), "clock skew"),
        (48, b"\xff", "utf-8"),
        (52, b"\x02\x00", "interval codes"),
        (52, b"\x00\x00", "interval codes"),
        (52, b"\x00\xff", "interval codes"),
        (FIRST_SYMBOL + 88, b"../x", "no legal name"),
        (FIRST_SYMBOL + 88, b"\xff", "utf-8"),
        (FIRST_SYMBOL + 88, "币安人生USDT".encode(), "twice"),
        (FIRST_SYMBOL + 88 + 64, b"\xff", "utf-8"),
        (FIRST_SYMBOL + 16, struct.pack("<q", lay.SYMBOL_DELISTED), "'BTCUSDT' has values"),
        (FIRST_SYMBOL + 40, struct.pack("<q", 200), "'BTCUSDT' has values"),
        (FIRST_SYMBOL + 40, struct.pack("<q", 8), "'BTCUSDT' has values"),
        (FIRST_SYMBOL + 48, struct.pack("<q", -1), "'BTCUSDT' has values"),
        (FIRST_SYMBOL + 56, struct.pack("<q", 1 << 60), "'BTCUSDT' has values"),
        (FIRST_SYMBOL + 80, struct.pack("<q", 99), "'BTCUSDT' has values"),
        (FIRST_ROW + 8, struct.pack("<q", START + 1), "1 of 2 bars"),
        (FIRST_ROW + 8, struct.pack("<q", -START), "1 of 2 bars"),
        (FIRST_ROW + 16, struct.pack("<d", float("nan")), "1 of 2 bars"),
        (FIRST_ROW + 24, struct.pack("<d", float("inf")), "1 of 2 bars"),
        (FIRST_ROW + 32, struct.pack("<d", -1.0), "1 of 2 bars"),
        (FIRST_ROW + 48, struct.pack("<d", -1.0), "1 of 2 bars"),
        (FIRST_ROW + 80, struct.pack("<d", 1e300), "1 of 2 bars"),
        (FIRST_ROW + 116, struct.pack("<H", 2), "1 of 2 bars"),
        (FIRST_ROW + 118, b"\x01", "1 of 2 bars"),
        (FIRST_ROW + 118, b"\xff", "1 of 2 bars"),
        (FIRST_ROW + 119, b"\x02", "1 of 2 bars"),
        (FIRST_ROW + 120, struct.pack("<H", 0x8000), "1 of 2 bars"),
        (FIRST_ROW + 122, b"\xff", "1 of 2 bars"),
        (FIRST_ROW + 2 * 128 + 119, b"\x01", "1 of 2 bars"),
    ],
)
def test_content_that_cannot_be_is_refused(file: Path, at: int, data: bytes, reason: str) -> None:
    rewritten(file, at, data)
    with pytest.raises(SnapshotFileError, match=f"is damaged: .*{reason}.*; write a new one"):
        read_snapshot(file)


def test_an_empty_state_is_a_file_too(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "x", "main", INTERVALS, State.empty("snapshot"))
    assert len(read_snapshot(tmp_path / "x").state.symbols) == 0
    assert KLINE.itemsize == 128
