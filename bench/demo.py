"""What several measurements share: an engine of its own against the simulator, and a file for the figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import klshm


__all__ = ["ROOT", "attach_live", "demo_engine", "save"]

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def demo_engine(instance: str, workers: int, **more: Any) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run an engine against the simulator; yield its launcher and its data directory.

    Args:
        instance: Its name.
        workers: Its worker processes.
        more: Keys of the configuration, `__` for the point.
    """
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, str(ROOT / "launcher.py"), "--demo", "--instance", instance]
        command += ["--config", str(ROOT / "configs" / "demo.toml"), "--workers", str(workers)]
        command += ["--set", "log.level=error"]
        for key, value in {"data__directory": directory, **more}.items():
            command += ["--set", f"{key.replace('__', '.')}={value}"]
        engine = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            yield engine, Path(directory) / instance
        finally:
            engine.terminate()
            engine.wait(60)


def attach_live(instance: str, engine: subprocess.Popen[bytes], symbols: int) -> klshm.Reader:
    """Return a reader once so many symbols are live; a cold start may compile first.

    Args:
        instance: Name of the engine.
        engine: Its launcher.
        symbols: How many are waited for; 0: as soon as it serves.
    """
    deadline_s = time.monotonic() + 300
    while time.monotonic() < deadline_s:
        if engine.poll() is not None:
            raise SystemExit(f"the engine has ended with exit code {engine.returncode}; see its message above")
        try:
            reader = klshm.attach(instance)
        except klshm.KlshmError:
            time.sleep(0.2)
            continue
        if reader.status()["symbols"]["live"] >= symbols:
            return reader
        reader.close()
        time.sleep(0.2)
    raise SystemExit("the engine was not live within 300 s")


def save(path: Path, figures: Mapping[str, Any]) -> None:
    """Write figures with the machine, the versions and the command that made them."""
    about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    about |= {"python": platform.python_version(), "klshm": klshm.__version__, "command": " ".join(sys.argv)}
    path.write_text(json.dumps({"about": about, "figures": figures}, indent=2) + "\n")
