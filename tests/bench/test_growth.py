"""Curves and their drawings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]


def test_a_curve_is_measured_written_and_drawn(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.growth", "--quick", "wave", "--directory", str(tmp_path / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "results" / "growth.json").read_text())
    assert document["failures"] == {}
    curve = document["curves"]["wave"]
    assert len(curve["x"]) == len(curve["wave ms"]) == 4
    assert min(curve["wave ms"]) > 0
    drawing = (tmp_path / "results" / "growth-wave.svg").read_text()
    assert drawing.startswith("<svg ")
    assert "symbols of one worker" in drawing


def test_an_unknown_curve_is_refused() -> None:
    command = [sys.executable, "-m", "bench.growth", "waves"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "invalid choice: 'waves'" in done.stderr
