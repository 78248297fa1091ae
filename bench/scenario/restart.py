"""From the start of the launcher until all bars are served again: `bench/restart.py` with fixed sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

from bench.demo import ROOT
from bench.support.figures import print_figures


__all__ = ["measure"]

_PATIENCE_S: Final = 400


def measure(quick: bool) -> dict[str, float]:
    """Return seconds after an ordered stop and after a kill of everything.

    Args:
        quick: 100 symbols and one restart each instead of 600 and three.

    Raises:
        RuntimeError: If it failed.
    """
    sizes = ["--symbols", "100", "--runs", "1", "--fill", "10"] if quick else ["--symbols", "600", "--fill", "30"]
    command = [sys.executable, str(ROOT / "bench" / "restart.py"), *sizes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_S)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "failed").splitlines()[-1])
    figures = json.loads(done.stdout.splitlines()[-1])
    return {name: float(value) for name, value in figures.items() if name.endswith("_s")}


if __name__ == "__main__":
    print_figures(measure)
