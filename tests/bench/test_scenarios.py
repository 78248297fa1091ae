"""The scenarios in small: every worker takes everything, also the twins; in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


ROOT = Path(__file__).resolve().parents[2]


def run(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


BURST = """
import json
from functools import partial
from bench.scenario.burst import intake_per_s, klshm_worker
from bench.scenario.readers import SnapshotReaders
from bench.baselines.plain_stack import run_plain_stack
plain = lambda segment, worker, port: run_plain_stack(segment, port)
"""
LATENCY = """
import json
from bench.scenario import latency as l
klshm = lambda segment, port: l.run_worker(segment)
"""


@pytest.mark.parametrize(
    "call",
    [
        "intake_per_s(3000, 10, klshm_worker)",
        "intake_per_s(3000, 10, klshm_worker, workers=2)",
        "intake_per_s(3000, 520, klshm_worker)",  # two connections
        "intake_per_s(3000, 10, plain)",
        "intake_per_s(3000, 10, klshm_worker, readers=[SnapshotReaders(1)])",
    ],
)
def test_a_burst_is_taken_whole(call: str) -> None:
    assert run(f"{BURST}\nprint(json.dumps({call}))") > 0


def test_a_pace_is_kept() -> None:
    """A burst that is sent in its time cannot be visible before."""
    assert 0 < run(f"{BURST}\nprint(json.dumps(intake_per_s(3000, 10, klshm_worker, offered_per_s=4000)))") <= 4100


def test_the_rates_of_the_table_have_names_of_their_own() -> None:
    code = "import json; from bench.scenario import latency_rates as r; r._RATES = (400,)\n"
    figures = run(f"{code}print(json.dumps(r.measure(True)))")
    assert {"bare_400_p50_us", "klshm_400_p99_us", "busy_poll_400_p50_us", "plain_stack_400_p50_us"} <= set(figures)


@pytest.mark.parametrize(
    "arguments",
    [
        "l.run_bare_recv, l.bytes_seen, False",
        "klshm, l.trade_seen, False",
        "klshm, l.trade_seen, True",
        "klshm, l.trade_seen, False, is_pinned=False",
        "l.run_plain_stack, l.trade_seen, False",
    ],
)
def test_every_frame_is_seen_and_timed(arguments: str) -> None:
    code = f"{LATENCY}\nprint(json.dumps(l.latencies_us(400, 0.5, {arguments}, symbols=3).tolist()))"
    latencies = run(code)
    assert len(latencies) == 200
    assert min(latencies) > 0


def test_a_wave_closes_every_bar() -> None:
    code = "import json; from bench.scenario.wave import wave_ns; print(json.dumps(wave_ns(20, None)))"
    assert run(code) > 0


def test_a_waiting_reader_is_woken_every_time() -> None:
    code = "import json; from bench.micro import wake as w"
    times = run(f"{code}; print(json.dumps(w.times_us(20, w._by_futex, w._wake_futex).tolist()))")
    assert len(times) == 20
    assert min(times) > 0
