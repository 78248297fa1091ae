"""The simulator that a demo starts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from klshm.config import Config, SimConfig
from klshm.errors import KlshmError
from klshm.run.simulator import Simulator
from tests.support.processes import is_alive


def test_it_begins_when_and_as_it_is_told() -> None:
    simulator = Simulator(SimConfig(symbols=2, start_at="2026-11-22T23:59:50Z", faults="standard", history_days=2))
    try:
        config = simulator.addressed(Config())
        assert config.exchange.rest_url == f"http://127.0.0.1:{simulator.port}"
        assert config.exchange.ws_url == f"ws://127.0.0.1:{simulator.port}"
        line = Path(f"/proc/{simulator.process.pid}/cmdline").read_text().replace("\0", " ")
        assert "--start-at 2026-11-22T23:59:50Z --faults standard" in line
        assert os.getsid(simulator.process.pid) == simulator.process.pid  # Ctrl-C does not reach it
        simulator.check()
    finally:
        simulator.stop()
    assert simulator.process.returncode == 0
    simulator.stop()


def test_what_it_said_last_is_told() -> None:
    with pytest.raises(KlshmError, match=r"the simulator did not start \(exit code 2\): .*expected ISO-8601"):
        Simulator(SimConfig(symbols=2, start_at="soon"))


def test_one_that_hangs_is_killed() -> None:
    simulator = Simulator(SimConfig(symbols=2, history_days=2))
    os.kill(simulator.process.pid, signal.SIGSTOP)
    simulator.stop()
    assert not is_alive(simulator.process.pid)
    assert simulator.process.returncode == -signal.SIGKILL
