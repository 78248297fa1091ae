"""What a segment held is copied out under names."""

from __future__ import annotations

from klshm.shm import layout as lay
from klshm.store.remains import SegmentCopy, remains
from tests.store.engine import Engine
from tests.store.fresh import fill


def test_a_copy_holds_what_the_segment_held(engine: Engine) -> None:
    fill(engine)
    wanted = remains(engine.segment, whole=True)
    pieces = [piece.tobytes() for piece in wanted.closed]
    copy = SegmentCopy(engine.segment)
    engine.words[:] = 0
    found = copy.read()
    assert found.state.symbols.tobytes() == wanted.symbols.tobytes()
    assert found.state.live.tobytes() == wanted.live.tobytes()
    assert [piece.tobytes() for piece in found.state.closed] == pieces
    copy.close()


def test_delisted_and_illegal_symbols_are_not_carried(engine: Engine) -> None:
    fill(engine)
    engine.write_symbol(1, "ETHUSDT", status=lay.SYMBOL_DELISTED)
    engine.write_symbol(2, "../x")
    engine.write_symbol(3, "币安人生USDT", torn=True)
    found = remains(engine.segment, whole=True)
    assert [bytes(name).decode() for name in found.symbols["name"]] == ["BTCUSDT", "币安人生USDT"]
    assert set(found.live["slot"]) == {0, 1}
    assert found.closed_rows == 220
