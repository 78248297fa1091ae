"""Minutes that the exchange has no row of."""

from __future__ import annotations

from klshm.historian.absent import AGAIN_MS, Absent


M = 60_000
T0 = 1_000 * M


def test_a_minute_is_asked_for_twice_ten_minutes_apart_and_never_again() -> None:
    absent = Absent()
    assert absent.skip(1, T0, T0) == T0
    assert absent.note(1, [T0, T0 + M], T0 + 5 * M) == []
    assert absent.skip(1, T0, T0 + 5 * M + AGAIN_MS - 1) == T0 + 2 * M
    assert absent.note(1, [T0], T0 + 5 * M + AGAIN_MS - 1) == []  # another need's answer says it too early
    assert absent.skip(1, T0, T0 + 5 * M + AGAIN_MS) == T0
    assert absent.note(1, [T0], T0 + 5 * M + AGAIN_MS) == [T0]
    assert absent.skip(1, T0, T0 + 10**12) == T0 + M
    assert absent.note(1, [T0], T0 + 10**12) == []


def test_symbols_are_kept_apart() -> None:
    absent = Absent()
    absent.note(1, [T0], T0)
    assert absent.skip(2, T0, T0) == T0 and absent.skip(1, T0, T0) == T0 + M
