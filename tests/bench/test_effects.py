"""What switches are worth: the comparison, its table, and the measurements in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import effects, switched
from bench.effects import MARKERS, Effect, markdown
from bench.support.dealing import busiest_share, dealt_to
from tests.bench.test_report import ORIGIN


ROOT = Path(__file__).resolve().parents[2]
CLEAR = {"p50_us": {"with": [1.0, 2.0, 3.0, 2.0, 2.0], "without": [4.0, 8.0, 9.0, 8.0, 8.0]}}


def test_an_effect_is_judged_by_runs_that_do_not_overlap() -> None:
    assert Effect("busy_poll", CLEAR).cells() == [
        ("busy_poll", "p50_us", "2 (1..3)", "8 (4..9)", "0.25 x", "better"),
    ]
    turned = {"rate_per_s": CLEAR["p50_us"]}
    assert Effect("busy_poll", turned).cells()[0][-1] == "worse"
    overlapping = {"p50_us": {"with": [1.0, 2.0, 3.0, 2.0, 4.5], "without": [4.0, 8.0, 9.0, 8.0, 8.0]}}
    assert Effect("busy_poll", overlapping).cells()[0][-1] == "within the spread"
    few = {"p50_us": {"with": [1.0, 2.0], "without": [4.0, 8.0]}}
    assert Effect("busy_poll", few).cells()[0][-1] == "-"


def test_what_cannot_be_measured_or_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(quick: bool) -> switched.Figures:
        raise switched.NotMeasurable("no room")

    def failing(quick: bool) -> switched.Figures:
        raise TimeoutError("gone")

    monkeypatch.setitem(switched.EFFECTS, "isolated", unable)
    monkeypatch.setitem(switched.EFFECTS, "pinning", failing)
    assert Effect.of("isolated", True).cells() == [("isolated", "-", "-", "-", "-", "not measured: no room")]
    assert Effect.of("pinning", True).reason == "failed: TimeoutError: gone"
    assert effects.main(["isolated"]) == 0
    assert effects.main(["isolated", "pinning"]) == 1


def test_unknown_names_are_refused_and_the_known_ones_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert effects.main(["busy_pol"]) == 2
    assert capsys.readouterr().err.startswith("bench.effects: no effect 'busy_pol'; effects are busy_poll, gc_freeze, ")


def test_all_are_written_and_a_part_is_only_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(quick: bool) -> switched.Figures:
        """Do something."""
        return CLEAR

    for name in switched.EFFECTS:
        monkeypatch.setitem(switched.EFFECTS, name, measured)
    report, saved = tmp_path / "REPORT.md", tmp_path / "effects.json"
    report.write_text(f"before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nafter\n")
    arguments = ["--report", str(report), "--json", str(saved)]
    assert effects.main(["busy_poll", *arguments]) == 0
    assert "busy_poll" in capsys.readouterr().out
    assert not saved.exists()
    assert effects.main(arguments) == 0
    document = json.loads(saved.read_text())
    assert set(document["effects"]) == set(switched.EFFECTS)
    assert document["effects"]["busy_poll"]["figures"] == CLEAR
    assert document["about"]["command"].startswith("python -m bench.effects")
    text = report.read_text()
    assert "| busy_poll | p50_us | 2 (1..3) | 8 (4..9) | 0.25 x | better |" in text
    assert "old" not in text


def test_the_report_has_a_place_for_the_table() -> None:
    text = (ROOT / "bench" / "REPORT.md").read_text()
    assert all(text.count(marker) == 1 for marker in MARKERS)
    assert "* `prefetch`: " in markdown([Effect("prefetch", {}, "not measured")], ORIGIN)


@pytest.mark.parametrize("workers", [2, 4])
def test_dealing_by_load_gives_each_worker_the_same(workers: int) -> None:
    for seed in range(5):
        by_load, by_number = dealt_to(seed, workers, True), dealt_to(seed, workers, False)
        assert np.ptp(np.bincount(by_number)) == 0
        assert busiest_share(by_load, seed) == pytest.approx(1 / workers, rel=0.01)
        assert busiest_share(by_load, seed) < busiest_share(by_number, seed)


@pytest.mark.parametrize(
    "call",
    [
        "s._woken_us('futex', 5).tolist()",
        "s._woken_us('spin', 5).tolist()",
        "[d.two_kernels_per_s(d.dealt_to(1, 2, True), 1)]",
    ],
)
def test_measurements_in_small(call: str) -> None:
    code = "import json; from bench import switched as s; from bench.support import dealing as d; d._TRADES = 4000\n"
    done = subprocess.run([sys.executable, "-c", f"{code}print(json.dumps({call}))"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert min(found) > 0


def test_frozen_memory_stays_shared() -> None:
    code = "from bench import switched as s; print(s._forked_mib(True) < s._forked_mib(False))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
