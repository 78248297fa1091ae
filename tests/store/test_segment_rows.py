from __future__ import annotations

import ctypes
import os
import signal

import numpy as np
import pytest

from klshm.errors import RowBusy
from klshm.shm import layout as lay
from klshm.shm.compile import kernel
from klshm.shm.rows import write_row
from klshm.store.segment_rows import OPEN, Namer, interval_names, walk_history
from tests.store.engine import MINUTE, START, Engine, bars


def test_rows_get_the_names_of_their_slots(engine: Engine) -> None:
    namer = Namer(engine.segment)
    batch = namer.batch(bars(np.full(4, START), slot=np.arange(4)))
    assert [batch.listings[slot].name for slot in batch.rows["slot"]] == engine.symbols
    engine.write_symbol(4, "NEWUSDT", onboard_ms=START)
    batch = namer.batch(bars([START], slot=4))
    assert batch.listings[4] == ("NEWUSDT", START)


def test_a_tombstone_keeps_its_name(engine: Engine) -> None:
    engine.write_symbol(1, "ETHUSDT", status=lay.SYMBOL_DELISTED)
    batch = Namer(engine.segment).batch(bars([START], slot=1))
    assert batch.listings[1].name == "ETHUSDT"


@pytest.mark.parametrize(
    "fields",
    [
        {"slot": 9},
        {"slot": 4},
        {"interval": 250},
        {"state": lay.STATE_LIVE},
        {"state": lay.STATE_EMPTY},
        {"close": np.nan},
        {"quote_volume": np.inf},
    ],
)
def test_rows_that_cannot_be_stored_are_left_out(engine: Engine, fields: dict[str, object]) -> None:
    engine.write_symbol(4, "BAD-USDT")
    rows = np.concatenate([bars([START]), bars([START + MINUTE], **fields), bars([START + 2 * MINUTE])])
    kept = Namer(engine.segment).batch(rows).rows["open_time"].tolist()
    assert kept == [START, START + 2 * MINUTE]


def test_open_bars_are_another_state(engine: Engine) -> None:
    rows = np.concatenate([bars([START]), bars([START], state=lay.STATE_LIVE)])
    assert Namer(engine.segment).batch(rows, OPEN).rows["state"].tolist() == [lay.STATE_LIVE]


def test_a_table_being_written_is_waited_for_but_not_at_rest(engine: Engine) -> None:
    engine.write_symbol(1, "ETHUSDT", torn=True)
    with pytest.raises(RowBusy):
        Namer(engine.segment).batch(bars([START]))
    batch = Namer(engine.segment, at_rest=True).batch(bars([START], slot=1))
    assert batch.listings[1].name == "ETHUSDT"


def test_the_walk_yields_every_whole_row(engine: Engine) -> None:
    rows = np.concatenate(
        [bars(START + np.arange(90) * MINUTE, slot=slot) for slot in (0, 2)]
        + [bars(START // (5 * MINUTE) * (5 * MINUTE) + np.arange(30) * 5 * MINUTE, slot=2, interval="5m")]
    )
    engine.keep(rows)
    pieces = list(walk_history(engine.segment, 0))
    found = np.concatenate(pieces)
    key = ["slot", "interval", "open_time"]
    assert np.array_equal(np.sort(found[key]), np.sort(rows[key]))
    assert list(walk_history(engine.segment, 1)) == []

    history = engine.layout.history_offset(0) // 8
    torn = next(word for word in range(history, engine.layout.total_bytes // 8, lay.ROW_WORDS) if engine.words[word])
    engine.words[torn] += 1
    assert sum(map(len, walk_history(engine.segment, 0))) == len(rows) - 1


@kernel("void(int64[::1], int64, int64, int64[:, ::1])", cache=False)
def rewrite(words, at, rows, images):
    """Write the same rows over and over, one image after the other."""
    for _ in range(200_000):
        for k in range(len(images)):
            for row in range(rows):
                write_row(words, at + row * lay.ROW_WORDS, images[k], 0)


@pytest.mark.stress
def test_the_walk_yields_no_torn_row(engine: Engine) -> None:
    images = np.array([np.full(lay.ROW_WORDS, number, dtype=np.int64) for number in (1, 2)])
    at = engine.layout.history_offset(0) // 8
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        while True:
            rewrite(engine.words, at, 8, images)
    try:
        seen, walks = set(), 0
        while seen != {1, 2} or walks < 20_000:  # a writer without a pause is seldom seen between two rows
            walks += 1
            for rows in walk_history(engine.segment, 0):
                words = rows.view(np.int64).reshape(-1, lay.ROW_WORDS)[:, 1:]
                assert (words == words[:, :1]).all()
                seen.update(words[:, 0].tolist())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_names_of_kept_intervals(engine: Engine) -> None:
    assert set(interval_names(engine.segment).values()) == {"1m", "5m"}
