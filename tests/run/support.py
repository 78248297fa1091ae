"""A launcher as a process, in shared memory and directories of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


PROJECT = Path(__file__).resolve().parents[2]
STARTED_S = 240.0
"""A start with a cold cache compiles; on a busy machine that takes minutes."""


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """Return the environment of a launcher that touches nothing outside a test's directory."""
    shared = tmp_path / "shm"
    shared.mkdir(exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("KLSHM_") and not k.lower().endswith("_proxy")}
    kept = {"KLSHM_CACHE": os.environ["KLSHM_CACHE"]} if "KLSHM_CACHE" in os.environ else {}
    own = {"KLSHM_SHM_DIRECTORY": str(shared), "XDG_STATE_HOME": str(tmp_path / "state")}
    return {**clean, **kept, **own, **more}


def command(tmp_path: Path, *options: str) -> list[str]:
    """Return the command line of a launcher with the demo's sizes and a data directory of its own."""
    return [
        *(sys.executable, "launcher.py", "--config", "configs/demo.toml"),
        *("--set", f"data.directory={tmp_path / 'data'}", *options),
    ]


def refused(tmp_path: Path, *options: str, own: bool = False, **more: str) -> tuple[int, str]:
    """Run a launcher that does not start; return its exit code and the one line that it says.

    Args:
        tmp_path: The test's directory.
        options: Command line; after the usual one unless `own`.
        own: Whether the options are the whole command line.
        more: Further environment variables.
    """
    done = subprocess.run(
        [sys.executable, "launcher.py", *options] if own else command(tmp_path, *options),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=environment(tmp_path, **more),
        timeout=60,
    )
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("launcher: ")
    return done.returncode, lines[0]


class Launcher:
    """A running launcher."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, shared: Path) -> None:
        self.process = process
        self.shared = shared
        self._log = log

    def text(self) -> str:
        """Return what it has said so far."""
        return self._log.read_text()

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def left(self) -> list[str]:
        """Return the names in its shared memory."""
        return sorted(path.name for path in self.shared.iterdir())


@contextmanager
def launcher(tmp_path: Path, *options: str, closed_output: bool = False, **more: str) -> Iterator[Launcher]:
    """Run a launcher.

    Args:
        tmp_path: The test's directory.
        options: Command line, after the usual one.
        closed_output: Whether nobody reads its standard output.
        more: Further environment variables.
    """
    variables = environment(tmp_path, **more)
    log = tmp_path / "launcher.log"
    reading, writing = os.pipe()
    os.close(reading)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(tmp_path, *options),
            stdout=writing if closed_output else output,
            stderr=output,
            cwd=PROJECT,
            env=variables,
        )
        os.close(writing)
        try:
            yield Launcher(process, log, Path(variables["KLSHM_SHM_DIRECTORY"]))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
