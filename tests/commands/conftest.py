"""Commands in this process, and an engine for them to look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from klshm import cli
from klshm.shm import layout as lay
from tests.commands.support import Result, Run
from tests.support.desk import MINUTE, START, Desk
from tests.support.desk import make_desk as make_desk


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def run(*arguments: str) -> Result:
        try:
            code = cli.main(arguments)
        except SystemExit as usage:
            code = int(usage.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory, with nothing of klshm in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("KLSHM_") or name == "CONFIG_PATH":
            monkeypatch.delenv(name)


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    desk = make_desk()
    for name in ("BTCUSDT", "币安人生USDT"):
        desk.list_symbol(name)
        for minute in range(1, 4):
            desk.keep(name, "1m", START - minute * MINUTE, volume=0.1 + minute, state=lay.STATE_CONFIRMED)
        desk.live(name, "1m", START, volume=0.30000000000000004, flags=lay.FLAG_PARTIAL)
        desk.live(name, "5m", START)
    desk.list_symbol("OLDUSDT", status=lay.SYMBOL_DELISTED)
    desk.settle(START)
    desk.publish(closed_through_ms=START)
    return desk
