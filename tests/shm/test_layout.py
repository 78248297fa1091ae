"""Where every byte lies: nothing overlaps, nothing moves without its fingerprint, nonsense is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.errors import LayoutMismatch, SegmentDamaged
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, NEED, SYMBOL, Layout
from tests.shm.segments import make_layout


@st.composite
def layouts(draw: Any) -> Layout:
    intervals = draw(st.integers(1, 6))
    power = st.integers(5, 12).map(lambda n: 1 << n)
    return make_layout(
        max_symbols=draw(st.integers(1, 3000)),
        workers=draw(st.integers(1, 8)),
        slots=draw(st.integers(1, 500)),
        interval_codes=tuple(range(intervals)),
        history_rows=tuple(draw(st.integers(1, 40)) * 32 for _ in range(intervals)),
        log_rows=draw(power),
        inbox_rows=draw(power),
        historian_log_rows=draw(power),
    )


def regions(layout: Layout) -> list[tuple[int, int]]:
    """Return (offset, size) of every region, in the order of the file."""
    table = layout.slots * layout.intervals * lay.ROW_BYTES
    found = [
        (0, lay.HEADER_BYTES),
        (layout.config_offset, lay.CONFIG_BYTES),
        *(
            (offset, lay.BLOCK_BYTES)
            for offset in (
                layout.launcher_offset,
                layout.historian_offset,
                layout.persister_offset,
                layout.web_offset,
            )
        ),
        (layout.symbols_offset, layout.max_symbols * lay.SYMBOL_BYTES),
        (layout.historian_log_offset, layout.historian_log_rows * lay.ROW_BYTES),
    ]
    for worker in range(layout.workers):
        found += [
            (layout.partition_offset(worker), lay.BLOCK_BYTES),
            (layout.live_offset(worker), table),
            (layout.half_offset(worker, 0), table),
            (layout.half_offset(worker, 1), table),
            (layout.needs_offset(worker), layout.slots * lay.ROW_BYTES),
            (layout.inbox_offset(worker), layout.inbox_rows * lay.ROW_BYTES),
            (layout.log_offset(worker), layout.log_rows * lay.ROW_BYTES),
            (layout.history_offset(worker), layout.slots * layout.history_rows_per_symbol * lay.ROW_BYTES),
        ]
    return found


@given(layouts())
def test_no_region_overlaps_another(layout: Layout) -> None:
    found = regions(layout)
    ends = [offset + size for offset, size in found]
    assert all(end <= offset for end, (offset, _) in zip(ends, found[1:], strict=False))
    assert ends[-1] <= layout.total_bytes
    assert all(offset % 64 == 0 for offset, _ in found), "a row is two whole cache lines"
    own_pages = [offset for offset, _ in found if offset not in {layout.historian_offset, layout.web_offset}]
    assert all(offset % lay.PAGE_BYTES == 0 for offset in own_pages if offset > layout.web_offset)


@given(layouts())
def test_series_of_history_do_not_overlap(layout: Layout) -> None:
    series = sorted(
        (layout.history_row(slot, interval), layout.history_rows[interval])
        for slot in range(min(layout.slots, 20))
        for interval in range(layout.intervals)
    )
    for (row, rows), (following, _) in zip(series, series[1:], strict=False):
        assert row + rows <= following
    last = layout.history_row(layout.slots - 1, layout.intervals - 1) + layout.history_rows[-1]
    assert last == layout.slots * layout.history_rows_per_symbol


@given(layouts())
def test_the_header_says_all_of_the_layout(layout: Layout) -> None:
    header = np.zeros(lay.HEADER_BYTES // 8, dtype=np.int64)
    layout.write_header(header)
    assert header[lay.H_VERSION] == 0, "written last, by the creator"
    header[lay.H_VERSION] = lay.VERSION
    assert Layout.read_header(header, "x") == layout


def test_the_record_is_the_specified_one() -> None:
    offsets = {name: KLINE.fields[name][1] for name in KLINE.names}  # type: ignore[index, union-attr]
    assert offsets == {
        "sequence": 0, "open_time": 8, "open": 16, "high": 24, "low": 32, "close": 40, "volume": 48,
        "quote_volume": 56, "trade_count": 64, "publish_delay_us": 68, "taker_buy_volume": 72,
        "taker_buy_quote_volume": 80, "last_agg_id": 88, "last_trade_id": 96, "event_time": 104, "revision": 112,
        "slot": 116, "interval": 118, "state": 119, "flags": 120, "price_decimals": 122, "quantity_decimals": 123,
        "quote_residual": 124, "taker_quote_residual": 126,
    }  # fmt: skip
    assert (KLINE.itemsize, NEED.itemsize, SYMBOL.itemsize) == (lay.ROW_BYTES, lay.ROW_BYTES, lay.SYMBOL_BYTES)


def test_packed_words_are_where_the_record_has_them() -> None:
    """Kernels write whole words; readers read fields."""
    words = np.zeros(lay.ROW_WORDS, dtype=np.int64)
    words[lay.W_COUNT_DELAY] = 7 | -9 << 32
    words[lay.W_REVISION_SLOT] = 3 | 513 << 32 | 12 << 48 | 2 << 56
    words[lay.W_FLAGS] = 0x21 | 2 << 16 | 3 << 24 | (-5 & 0xFFFF) << 32 | -391 << 48
    row = words.view(KLINE)[0]
    assert (row["trade_count"], row["publish_delay_us"]) == (7, -9)
    assert (row["revision"], row["slot"], row["interval"], row["state"]) == (3, 513, 12, 2)
    assert (row["flags"], row["price_decimals"], row["quantity_decimals"]) == (0x21, 2, 3)
    assert (row["quote_residual"], row["taker_quote_residual"]) == (-5, -391)


def test_lines_that_are_waited_for_hold_nothing_else() -> None:
    line = [lay.B_GENERATION, lay.B_INTENT, lay.B_CUT, lay.B_CUT + 2 * lay.CUT_WORDS - 1]
    assert {word // lay.LINE_WORDS for word in line} == {0}
    assert {lay.B_TAIL // lay.LINE_WORDS, lay.B_SETTLED_THROUGH_MS // lay.LINE_WORDS} == {1}
    assert lay.B_CURSOR // lay.LINE_WORDS == 2
    assert lay.B_CLOCK_ROUND_TRIP_NS < lay.B_TAIL, "the clock is written as one row"
    assert lay.B_COUNTERS + lay.COUNTERS == lay.B_ERROR_MS
    assert lay.B_ERROR_TEXT * 8 + lay.ERROR_TEXT_BYTES == lay.BLOCK_BYTES


def test_states_and_their_names_go_together() -> None:
    """Bars and segments both have a state "closed", and one constant for it."""

    def named(prefix: str, names: tuple[str, ...]) -> dict[int, str]:
        return {getattr(lay, f"{prefix}_{name.upper()}"): name for name in names}

    for prefix, names in (
        ("STATE", lay.SEGMENT_STATE_NAMES),
        ("STATE", lay.STATE_NAMES),
        ("ROLE", lay.ROLE_STATE_NAMES),
        ("SYMBOL", lay.SYMBOL_STATUS_NAMES),
    ):
        assert named(prefix, names) == dict(enumerate(names))
    assert {getattr(lay, f"FLAG_{name.upper()}") for name in lay.FLAG_NAMES} == {1 << bit for bit in range(6)}


def written(**changes: int) -> Any:
    header = np.zeros(lay.HEADER_BYTES // 8, dtype=np.int64)
    make_layout().write_header(header)
    header[lay.H_VERSION] = lay.VERSION
    for name, value in changes.items():
        header[getattr(lay, name)] = value
    return header


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"H_MAGIC": 1}, "does not begin with the mark of a klshm segment"),
        ({"H_INTERVALS": 0}, r"claims 0 intervals, expected 1\.\.16"),
        ({"H_INTERVALS": 17}, r"claims 17 intervals, expected 1\.\.16"),
        ({"H_SLOTS": 0}, "impossible sizes"),
        ({"H_WORKERS": -1}, "impossible sizes"),
        ({"H_WORKERS": 65}, "impossible sizes"),
        ({"H_LOG_ROWS": 63}, "impossible sizes"),
        ({"H_INTERVAL_CODE": -1}, "impossible sizes"),
        ({"H_INTERVAL_CODE": 255}, "impossible sizes"),
        ({"H_SLOTS": 9}, "its sizes add up to"),
    ],
)
def test_a_damaged_header_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(SegmentDamaged, match=f"klshm.x .*{message}"):
        Layout.read_header(written(**changes), "klshm.x")


@pytest.mark.parametrize("changes", [{"H_VERSION": 2 << 16 | 3}, {"H_LAYOUT_HASH": 1}])
def test_another_layout_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(LayoutMismatch, match=r"written by layout \d\.\d, this klshm reads 1\.0; use the same klshm"):
        Layout.read_header(written(**changes), "klshm.x")


def test_a_newer_minor_version_is_read() -> None:
    assert Layout.read_header(written(H_VERSION=lay.VERSION + 1), "klshm.x") == make_layout()


@given(st.integers(0, 63), st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_one_damaged_word_is_refused_or_harmless(word: int, value: int) -> None:
    header = written()
    header[word] = value
    try:
        layout = Layout.read_header(header, "klshm.x")
    except (SegmentDamaged, LayoutMismatch):
        return
    assert layout.total_bytes == make_layout().total_bytes
    assert regions(layout) == regions(make_layout())
