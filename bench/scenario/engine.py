"""A whole engine: the memory of its workers, the size of its segment, and how fast a killed worker is back."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Final

import klshm
from bench.demo import ROOT, attach_live, demo_engine
from bench.support.figures import print_figures
from bench.support.memory import proportional_bytes
from bench.support.stage import wait_for
from klshm.config import Config, RunConfig
from klshm.config.settings import load
from klshm.run.sizes import layout_of
from klshm.shm import layout as lay


__all__ = ["measure"]

_INSTANCE: Final = "bench-engine"
_WORKERS: Final = 2
_SYMBOLS: Final = 300
_SETTLE_S: Final = 10.0


def measure(quick: bool) -> dict[str, float]:
    """Return MiB of a worker of 150 symbols and of segments, and seconds until a worker is live again.

    Args:
        quick: Makes no difference: an engine has to start, and only the first restart of a worker is at once.
    """
    sizes = {"segment__max_symbols": _SYMBOLS, "segment__log_rows": 16_384, "sim__symbols": _SYMBOLS}
    with demo_engine(_INSTANCE, _WORKERS, **sizes, sim__rate=1000) as (engine, _):
        with attach_live(_INSTANCE, engine, _SYMBOLS) as reader:
            time.sleep(_SETTLE_S)
            workers = [row["pid"] for row in reader.status()["processes"] if row["role"].startswith("worker")]
            memory = [proportional_bytes(pid) / 2**20 for pid in workers]
            back_s = _back_s(reader)
    return {
        "worker_mib": max(memory),
        "worker_back_s": back_s,
        "segment_1024_mib": _segment_mib(Config(run=RunConfig(workers=4))),
        "segment_demo_mib": _segment_mib(load(ROOT / "configs" / "demo.toml", overrides=["run.workers=4"], environ={})),
    }


def _back_s(reader: klshm.Reader) -> float:
    """Kill worker 0 and return the seconds until the next one is live on all its symbols."""
    view = reader.source.views[0]
    block: Any = view.block
    lived = int(block[lay.B_INCARNATION])
    began_s = time.monotonic()
    os.kill(int(block[lay.B_PID]), signal.SIGKILL)
    wait_for(
        lambda: block[lay.B_INCARNATION] > lived and block[lay.B_ROLE_STATE] == lay.ROLE_LIVE,
        "the worker is back",
    )
    return time.monotonic() - began_s


def _segment_mib(config: Config) -> float:
    return layout_of(config).total_bytes / 2**20


if __name__ == "__main__":
    print_figures(measure)
