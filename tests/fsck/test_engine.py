"""A whole engine's files: clean while it runs, clean after it was killed, clean after a repair and after a start."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine, engine
from tests.support.exchange import exchange
from tests.support.processes import wait_for


pytestmark = pytest.mark.e2e


def fsck(running: Engine, *options: str) -> tuple[int, dict[str, Any]]:
    done = running.klshm("fsck", "--json", *options)
    assert done.stderr == "" or done.returncode == 1, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {"refused": done.stderr}


def test_files_of_an_engine_that_runs_and_is_killed(tmp_path: Path) -> None:
    options = ["--set", "run.workers=2", "--set", "historian.bars_per_interval={default=60}"]
    with exchange("--symbols", "5", "--rate", "40", "--start-at", "2026-11-20T12:03:40Z") as market:
        with engine(tmp_path, market, "checked", *options) as running:
            running.wait_live()
            wait_for(lambda: fsck(running)[1]["looked_at"].get("archive", {}).get("tables") == 30, explain=running.text)
            wait_for(lambda: market.now_ms() > market.start_ms + 65_000)  # some bars of its own are closed
            code, found = fsck(running)
            assert (code, found["problems"]) == (0, {}), found
            assert found["looked_at"]["segment"]["runs"] and found["looked_at"]["segment"]["rows"] > 1000
            code, refused = fsck(running, "--repair")
            assert code == 1 and "is running" in refused["refused"]
            doctor = running.klshm("doctor", "--json")
            lines = {line["topic"]: line["verdict"] for line in json.loads(doctor.stdout)["lines"]}
            # The simulated exchange lives at another time than this machine.
            assert (lines["shared memory"], lines["exchange"]) == ("ok", "warn") and "growth" in lines
            running.end(signal.SIGKILL)
            wait_for(lambda: not fsck(running)[1]["looked_at"]["segment"]["runs"])
            code, found = fsck(running)
            assert (code, found["problems"]) == (0, {}), found
            assert not found["looked_at"]["segment"]["runs"] and found["looked_at"]["journal"]["latest"] > 0
