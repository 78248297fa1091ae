"""What several measurements share: an engine of its own against the simulator, and a file for the figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import klshm


__all__ = ["ROOT", "demo_engine", "save"]

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
        for key, value in {"data__directory": directory, **more}.items():
            command += ["--set", f"{key.replace('__', '.')}={value}"]
        engine = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            yield engine, Path(directory) / instance
        finally:
            engine.terminate()
            engine.wait(60)


def save(path: Path, figures: Mapping[str, Any]) -> None:
    """Write figures with the machine, the versions and the command that made them."""
    about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    about |= {"python": platform.python_version(), "klshm": klshm.__version__, "command": " ".join(sys.argv)}
    path.write_text(json.dumps({"about": about, "figures": figures}, indent=2) + "\n")
