"""What is said of an exchange that fails, fails now and then, or fails in one way after the other."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from klshm.errors import ExchangeRefused, ExchangeUnreachable, IpBanned
from klshm.historian.health import Health
from tests.historian.support import make_role
from tests.support.segments import segment


UNREACHABLE = ExchangeUnreachable("no way")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of the clock, as the test sets it."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.name == "klshm.historian.health"]
    caplog.clear()
    return lines


def test_one_line_at_the_first_failure_then_one_a_minute_and_one_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: list[float]
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")
    with segment(tmp_path, monkeypatch) as made:
        health = Health(make_role(made, ""))
        for second in range(150):
            at[0] = 1000.0 + second
            health.failed("clock", UNREACHABLE)
        assert said(caplog) == ["clock failed, trying again: no way"] * 3
        health.answered()
        health.answered()
        assert said(caplog) == ["exchange answers again after_s=149"]
        assert health.reachable and health.counters.get("exchange_reachable") == 1


def test_what_fails_now_and_then_is_said_six_times_a_minute_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: list[float]
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")
    with segment(tmp_path, monkeypatch) as made:
        health = Health(make_role(made, ""))
        for tenth in range(600):
            at[0] = 1000.0 + tenth / 10
            health.failed("repair of A", UNREACHABLE)
            assert not health.reachable
            health.answered()
        lines = said(caplog)
    assert lines.count("repair of A failed, trying again: no way") == 6
    assert len(lines) == 12


def test_a_failure_of_another_kind_is_said_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: list[float]
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")
    with segment(tmp_path, monkeypatch) as made:
        health = Health(make_role(made, ""))
        for error in (
            ExchangeRefused("a page", status=403),
            ExchangeRefused("a page", status=403),
            ExchangeRefused("no service", status=503),
            IpBanned("banned", until_ms=1),
        ):
            health.failed("listings", error)
            at[0] += 10.0
    assert [line.rpartition(": ")[2] for line in said(caplog)] == ["a page", "no service", "banned"]
