"""From the start of launcher.py to all bars served again, after a crash and after an ordered stop.

Runs the simulator and an engine until its history is full enough, then, for each kind of end (`kill`: SIGKILL
to every process of the engine at once; `stop`: an ordered stop), starts it again and measures, from the start
of the interpreter, until every symbol that was carried has an open bar of every interval in the new segment and
its worker has published them in a cut of its own. Kernels are cached. Also how long the newest of these bars
took until they were of the present minute.

    python bench/restart.py --symbols 600 --rate 1000
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo import ROOT, save

import klshm
from klshm.shm import layout as lay


_LIMIT_S = 300.0
_LOOK_S = 0.005
_INSTANCE = "restart"


def main() -> int:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=600)
    parser.add_argument("--rate", type=float, default=1000.0, help="trades per second over all symbols")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3, help="restarts of each kind")
    parser.add_argument("--fill", type=float, default=60.0, help="seconds the first engine runs once all is live")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, simulator(options) as port:
        command = engine_command(Path(directory), port, options)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or the engine would outlive a bench that is cut off
        running, figures = start(command, Path(directory)), {}
        try:
            wait_served(running, options.symbols).close()
            time.sleep(options.fill)
            for kind in ("kill", "stop"):
                runs = []
                for _ in range(options.runs):
                    last = end(running, kind)
                    began_s = time.monotonic()
                    running = start(command, Path(directory))
                    runs.append(measure(running, options.symbols, began_s, last))
                    time.sleep(2)
                figures |= {f"{kind}_{name}": statistics.median(run[name] for run in runs) for name in runs[0]}
        finally:
            running.terminate()
            running.wait(60)
    print(json.dumps({"symbols": options.symbols, "workers": options.workers, "runs": options.runs, **figures}))
    if options.json:
        save(options.json, figures)
    return 0


@contextlib.contextmanager
def simulator(options: argparse.Namespace) -> Iterator[int]:
    """Run the simulator; yield its port."""
    command = [
        sys.executable,
        "-m",
        "klshm.sim",
        "--port",
        "0",
        "--exit-with-parent",
        "--symbols",
        str(options.symbols),
    ]
    with subprocess.Popen([*command, "--rate", str(options.rate)], stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["port"]
        finally:
            process.terminate()


def engine_command(directory: Path, port: int, options: argparse.Namespace) -> list[str]:
    """Return the command line of the engine: default sizes but for the number of symbols."""
    keys: dict[str, Any] = {
        "data.directory": directory,
        "exchange.rest_url": f"http://127.0.0.1:{port}",
        "exchange.ws_url": f"ws://127.0.0.1:{port}",
        "segment.max_symbols": options.symbols,
        "log.level": "info",
    }
    command = [sys.executable, str(ROOT / "launcher.py"), "--instance", _INSTANCE, "--workers", str(options.workers)]
    config = directory / "klshm.toml"
    config.write_text("")
    for key, value in keys.items():
        command += ["--set", f"{key}={value}"]
    return [*command, "--config", str(config)]


def start(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    """Start the engine in a session of its own, its log in a file."""
    with (directory / "engine.log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def end(engine: subprocess.Popen[bytes], kind: str) -> str:
    """End the engine, all of it at once or in order; return which segment it had."""
    with klshm.attach(_INSTANCE) as reader:
        segment = reader.source.segment.uuid
        pids = [process["pid"] for process in reader.status()["processes"] if process["pid"]]
    if kind == "kill":
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it died with the launcher
                os.kill(pid, signal.SIGKILL)
    else:
        engine.terminate()
    engine.wait(60)
    return segment


def wait_served(engine: subprocess.Popen[bytes], symbols: int, last: str = "") -> klshm.Reader:
    """Return a reader once every symbol has an open bar of every interval, published by its worker."""
    deadline_s = time.monotonic() + _LIMIT_S
    reader = None
    while time.monotonic() < deadline_s:
        if engine.poll() is not None:
            raise SystemExit(f"the engine has ended with exit code {engine.returncode}")
        try:
            reader = reader or klshm.attach(_INSTANCE)
            if reader.source.segment.uuid == last:
                raise klshm.KlshmError("the segment of the engine before")
            if all(view.generation for view in reader.source.views):
                cut = reader.snapshot()
                if len(cut) >= symbols and (cut.rows["state"] == lay.STATE_LIVE).all():
                    return reader
        except klshm.KlshmError:
            if reader is not None:
                reader.close()
            reader = None
        time.sleep(_LOOK_S)
    raise SystemExit(f"not all bars were served within {_LIMIT_S:.0f} s")


def measure(engine: subprocess.Popen[bytes], symbols: int, began_s: float, last: str) -> dict[str, float]:
    """Return when all bars were served, and when they were of the present minute."""
    with wait_served(engine, symbols, last) as reader:
        figures = {"served_s": time.monotonic() - began_s}
        while int(reader.snapshot().rows["open_time"][:, 0].min()) < time.time() * 1000 // 60_000 * 60_000:
            time.sleep(_LOOK_S)
        figures["present_s"] = time.monotonic() - began_s
        while any(p["state"] != "live" for p in reader.status()["processes"] if p["role"] == "worker"):
            time.sleep(_LOOK_S)
        figures["workers_live_s"] = time.monotonic() - began_s
    return figures


if __name__ == "__main__":
    sys.exit(main())
