"""`klshm backfill` from the simulator into an empty archive: rows per second, request weight included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.demo import ROOT
from bench.support.figures import print_figures


__all__ = ["measure"]

_SYMBOLS: Final = 20
_PATIENCE_S: Final = 300


def measure(quick: bool) -> dict[str, float]:
    """Return rows per second.

    Args:
        quick: A quarter of the symbols.

    Raises:
        RuntimeError: If it failed.
    """
    symbols = _SYMBOLS // 4 if quick else _SYMBOLS
    simulator = [sys.executable, "-m", "klshm.sim", "--port", "0", "--exit-with-parent", "--symbols", str(symbols)]
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as directory,
        subprocess.Popen(simulator, stdout=subprocess.PIPE, cwd=ROOT) as exchange,
    ):
        try:
            assert exchange.stdout is not None
            port = json.loads(exchange.stdout.readline())["port"]
            return _fetched(Path(directory), port)
        finally:
            exchange.terminate()


def _fetched(directory: Path, port: int) -> dict[str, float]:
    command = [sys.executable, "-m", "klshm", "backfill", "--json", "--instance", "bench-backfill"]
    for key, value in {"data.directory": directory, "exchange.rest_url": f"http://127.0.0.1:{port}"}.items():
        command += ["--set", f"{key}={value}"]
    # A purse of request weight of its own: the one of this user is the real exchange's.
    environment = {**os.environ, "XDG_STATE_HOME": str(directory / "state")}
    began_s = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "failed").splitlines()[-1])
    elapsed_s = time.monotonic() - began_s
    rows = float(json.loads(done.stdout)["rows"])
    return {"rows_per_s": rows / elapsed_s, "rows": rows, "seconds": elapsed_s}


if __name__ == "__main__":
    print_figures(measure)
