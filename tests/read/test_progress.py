"""The bookkeeping of one series against a plain set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from klshm.read.progress import Progress


STEP = 60


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=80))
def test_it_agrees_with_a_set(steps: list[tuple[bool, int]]) -> None:
    progress = Progress(0, STEP, 1000)
    done: set[int] = set()
    held: set[int] = set()
    for is_finished, number in steps:
        open_time = number * STEP
        if is_finished:
            progress.finish(open_time)
            done.add(open_time)
            held.discard(open_time)
        elif open_time not in done:
            progress.hold(open_time, (number,))
            held.add(open_time)
        assert set(progress.waiting) == held
        assert [t for t in range(STEP, 31 * STEP, STEP) if progress.is_done(t)] == sorted(done)
        assert progress.through == next(t for t in range(0, 32 * STEP, STEP) if t + STEP not in done)
        seen = done | held
        assert progress.newest == max(seen, default=0)
        newest = progress.newest
        assert progress.has_missing(newest + STEP) == (set(range(STEP, newest + STEP, STEP)) != seen)


def test_what_fell_out_of_memory_is_given_up() -> None:
    progress = Progress(0, STEP, 4)
    progress.hold(STEP, ("old",))
    progress.finish(3 * STEP)
    progress.finish(100 * STEP)
    assert progress.through == 96 * STEP
    assert progress.waiting == {}
    assert progress.is_done(STEP) and not progress.is_done(97 * STEP)
    assert progress.has_missing(100 * STEP)
