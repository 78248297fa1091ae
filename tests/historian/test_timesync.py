"""The exchange's clock."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.errors import BadMessage, ExchangeUnreachable
from klshm.historian.timesync import ExchangeClock, Sample, TimeSync, next_second_30_ms
from klshm.shm.view import read_clock
from tests.support.segments import segment


@given(
    offset_ns=st.integers(-(10**18), 10**18),
    there_ns=st.integers(0, 10**9),
    back_ns=st.integers(0, 10**9),
    sent_ns=st.integers(0, 10**15),
)
def test_true_offset_lies_within_the_error(offset_ns: int, there_ns: int, back_ns: int, sent_ns: int) -> None:
    # The exchange cuts its time to whole milliseconds.
    server_ms = (sent_ns + there_ns + offset_ns) // 1_000_000
    sample = Sample.of(sent_ns, sent_ns + there_ns + back_ns, server_ms)
    assert abs(sample.offset_ns - offset_ns) <= sample.error_ns + 1
    assert sample.round_trip_ns == there_ns + back_ns


@pytest.mark.parametrize(
    ("now_ms", "expected"), [(0, 30_000), (29_999, 30_000), (30_000, 90_000), (89_999, 90_000), (60_000, 90_000)]
)
def test_next_second_30(now_ms: int, expected: int) -> None:
    assert next_second_30_ms(now_ms) == expected


@given(
    offset_ns=st.integers(-(10**18), 10**18),
    round_trip_ns=st.integers(0, 10**9),
    margin_ms=st.integers(0, 10_000),
    ahead_ms=st.integers(20_000, 100_000),
)
def test_a_request_sent_when_told_arrives_when_wanted(
    offset_ns: int, round_trip_ns: int, margin_ms: int, ahead_ms: int
) -> None:
    clock = ExchangeClock.__new__(ExchangeClock)
    clock.offset_ns, clock.round_trip_ns = offset_ns, round_trip_ns
    arrive_ms = clock.now_ms() + ahead_ms
    before_ns = time.monotonic_ns()
    wait_s = clock.seconds_until_sending(arrive_ms, margin_ms)
    after_ns = time.monotonic_ns()
    for asked_ns in (before_ns, after_ns):  # the truth lies between
        arrives_ns = asked_ns + round(wait_s * 1e9) + round_trip_ns // 2 + offset_ns
        late_ns = arrives_ns - (arrive_ms + margin_ms) * 1_000_000
        assert abs(late_ns) <= after_ns - before_ns + 1_000
    assert clock.seconds_until_sending(clock.now_ms() - 60_000, margin_ms) == 0


def test_requests_reach_the_exchange_at_the_time_aimed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an exchange on a slow line: whoever merely waits until then comes later than the margin."""

    async def main() -> None:
        with segment(tmp_path, monkeypatch) as made:
            clock = ExchangeClock(made)
            assert clock.arrival_ms() - clock.now_ms() <= 1

            def exchange_ms() -> int:
                return time.monotonic_ns() // 1_000_000 + 10**12

            async def ask() -> int:
                await asyncio.sleep(0.2)
                server_ms = exchange_ms()
                await asyncio.sleep(0.2)
                return server_ms

            await TimeSync(made, clock, ask).measure()
            assert clock.round_trip_ns >= 400_000_000
            assert ExchangeClock(made).round_trip_ns == clock.round_trip_ns  # the next historian aims as well
            assert 200 <= clock.arrival_ms() - clock.now_ms() <= clock.round_trip_ns / 1e6
            wanted_ms = exchange_ms() + 500
            await asyncio.sleep(clock.seconds_until_sending(wanted_ms, 20))
            assert exchange_ms() < wanted_ms
            assert await ask() >= wanted_ms

    asyncio.run(main())


def test_shortest_round_trip_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with segment(tmp_path, monkeypatch) as made:
            clock = ExchangeClock(made)
            before_ms = time.time_ns() // 1_000_000
            assert not clock.measured and before_ms - 1 <= clock.now_ms() <= time.time_ns() // 1_000_000 + 1
            clock.offset_ns = 10**18
            delays = iter([0.2, 0.001, 0.2, 0.2, 0.2])

            async def ask() -> int:
                server_ms = (time.monotonic_ns() + 10**18) // 1_000_000
                await asyncio.sleep(next(delays))
                return server_ms

            timesync = TimeSync(made, clock, ask)
            sample = await timesync.measure()
            assert timesync.samples == 5 and sample.round_trip_ns < 200_000_000
            published = read_clock(made)
            assert published is not None
            assert (published.offset_ns, published.error_ns) == (sample.offset_ns, sample.error_ns)
            assert (published.synced_ns, published.round_trip_ns) == (sample.taken_ns, sample.round_trip_ns)
            assert abs(clock.offset_ns - 10**18) <= sample.error_ns
            assert ExchangeClock(made).offset_ns == sample.offset_ns  # a successor takes it over

    asyncio.run(main())


def test_step_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        with segment(tmp_path, monkeypatch) as made:
            shift_ms = 0

            async def ask() -> int:
                return time.monotonic_ns() // 1_000_000 + shift_ms

            timesync = TimeSync(made, ExchangeClock(made), ask)
            await timesync.measure()
            await timesync.measure()
            assert timesync.steps == 0
            shift_ms = 1000
            await timesync.measure()
            assert timesync.steps == 1

    asyncio.run(main())
    assert "exchange clock stepped by_ms=" in caplog.text


def test_a_leap_is_believed_when_two_rounds_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars are closed by this clock, and old ones deleted: one wrong answer of a server must not move it."""

    async def main() -> None:
        with segment(tmp_path, monkeypatch) as made:
            year_ms = 365 * 86_400_000
            ahead_ms = [0]
            asked = 0

            async def ask() -> int:
                nonlocal asked
                asked += 1
                if asked % 5 == 0 and len(ahead_ms) > 1:  # the next round
                    ahead_ms.pop(0)
                return time.time_ns() // 1_000_000 + ahead_ms[0]

            clock = ExchangeClock(made)
            timesync = TimeSync(made, clock, ask)
            good = await timesync.measure()
            asked, ahead_ms[:] = 0, [year_ms, 0]
            with pytest.raises(BadMessage, match="neither is believed"):
                await timesync.measure()
            published = read_clock(made)
            assert published is not None and published.offset_ns == good.offset_ns == clock.offset_ns
            asked, ahead_ms[:] = 0, [year_ms]
            after = await timesync.measure()  # it says so again and again
            assert abs(after.offset_ns - good.offset_ns - year_ms * 1_000_000) < 5_000_000_000
            assert timesync.steps == 1

    asyncio.run(main())


def test_failure_counts_only_when_nothing_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with segment(tmp_path, monkeypatch) as made:
            answers = [5, None, None]

            async def ask() -> int:
                answer = answers.pop(0)
                if answer is None:
                    raise ExchangeUnreachable("gone")
                return answer

            clock = ExchangeClock(made)
            clock.offset_ns = -time.monotonic_ns()
            timesync = TimeSync(made, clock, ask)
            await timesync.measure()
            assert timesync.samples == 1
            with pytest.raises(ExchangeUnreachable):
                await timesync.measure()

    asyncio.run(main())
