"""Every role, the launcher and all at once killed at any instant: no bar is missing, wrong or there twice.

One simulated exchange lives on while engine after engine is killed over the same data directory. By
default some 25 processes die; with `KLSHM_LONG=1` it goes on until 200 have, and what was found is written to
bench/results/kill-matrix.json. `KLSHM_SEED` repeats a run's decisions.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from pathlib import Path

import pytest

from tests.fault.matrix import POINTS, WORKERS, M, Matrix
from tests.support.exchange import exchange
from tests.support.processes import PROJECT


IS_LONG = bool(os.environ.get("KLSHM_LONG"))
KILLS = 200 if IS_LONG else 25
ENGINES = 12 if IS_LONG else 0
"""Engines in a round that die at random instants only."""
ROLES = ("worker", "historian", "persister")
RESULTS = PROJECT / "bench" / "results" / "kill-matrix.json"

pytestmark = [pytest.mark.fault, pytest.mark.timeout(7200 if IS_LONG else 900)]


def plans(chance: random.Random) -> list[tuple[list[str], int]]:
    """Return what the roles of the next two engines die of: every point once, in a new order, and at which passing."""
    halves: list[list[str]] = [[], []]
    for names in POINTS.values():
        drawn = chance.sample(names, len(names))
        for index, name in enumerate(drawn):
            halves[index * 2 // len(drawn)].append(name)
    # Backfill comes with the start only: a life that waits for it must be an early one.
    return [(sorted(half, key=lambda name: "backfill" not in name), 1) for half in halves]


def die_at_points(matrix: Matrix, points: list[str], after_n: int) -> None:
    """Let the roles of one engine die at points, kill one at random, then the engine as a whole."""
    deaths = sum(WORKERS if point.startswith("worker.") else 1 for point in points)
    with matrix.engine(points, after_n) as (running, roles):
        # Bars close at a minute's end only: a role may need two of them to come to all its points.
        matrix.wait_deaths(roles, deaths, 2.2 * M / 1000)
        matrix.check_confirmed()
        matrix.kill_one(running, roles, matrix.random.choice(ROLES))
        matrix.random.choice((matrix.kill_launcher, matrix.kill_all))(running)


def die_at_random(matrix: Matrix, engines: int) -> None:
    """Kill the roles of some engines at random instants, each engine as a whole; the last has every bar and stops."""
    for number in range(engines + 1):
        with matrix.engine() as (running, roles):
            if number in (0, engines):
                matrix.wait_complete(running)
            for kind in matrix.random.sample(ROLES, len(ROLES)):
                matrix.kill_one(running, roles, kind)
                matrix.check_confirmed()
            if number < engines:
                matrix.random.choice((matrix.kill_launcher, matrix.kill_all))(running)
                continue
            matrix.wait_complete(running)
            assert running.stop() == 0, running.text()
            matrix.check_confirmed()


def test_nothing_is_lost_whatever_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = int(os.environ.get("KLSHM_SEED") or time.time_ns() % 1_000_000)
    print(f"KLSHM_SEED={seed}")
    options = ("--weight-limit", "1000000", "--symbols", "6", "--rate", "60", "--history-days", "80")
    with (
        exchange(*options, "--seed", str(seed), "--start-at", "2026-11-20T11:59:25Z") as market,
        tempfile.TemporaryDirectory(prefix="klshm-test-", dir="/dev/shm") as shared,
    ):
        monkeypatch.setenv("KLSHM_SHM_DIRECTORY", shared)
        matrix = Matrix(market, tmp_path, random.Random(seed))
        while matrix.kills.total() < KILLS:
            for points, after_n in plans(matrix.random):
                die_at_points(matrix, points, after_n)
            die_at_random(matrix, ENGINES)
    print(f"kills {dict(matrix.kills)} audits {matrix.audits} bars {matrix.bars}")
    assert {"worker", "persister", "historian"} < set(matrix.kills)
    assert matrix.bars > 0
    if IS_LONG:
        found = {"seed": seed, "kills": dict(matrix.kills), "audits": matrix.audits, "bars_compared": matrix.bars}
        RESULTS.write_text(json.dumps({**found, "missing": 0, "wrong": 0, "twice": 0}, indent=2) + "\n")
