"""The engine: a launcher as a process, in shared memory and directories of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.exchange import Exchange
from tests.support.processes import PROJECT, wait_for


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """Return the environment of a launcher that touches nothing outside a test's directory."""
    shared = tmp_path / "shm"
    shared.mkdir(exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("KLSHM_") and not k.lower().endswith("_proxy")}
    kept = {"KLSHM_CACHE": os.environ["KLSHM_CACHE"]} if "KLSHM_CACHE" in os.environ else {}
    own = {"KLSHM_SHM_DIRECTORY": str(shared), "XDG_STATE_HOME": str(tmp_path / "state")}
    return {**clean, **kept, **own, **more}


def command(tmp_path: Path, *options: str, first: str = "") -> list[str]:
    """Return the command line of a launcher with the demo's sizes and a data directory of its own.

    Args:
        tmp_path: The test's directory.
        options: Further options.
        first: What is done in its process before it starts: times cut short, a machine that refuses.
    """
    code = f"{first}\nimport sys\nfrom klshm.run.launch import main\nsys.exit(main())"
    return [
        *(sys.executable, *(("-c", code) if first else ("launcher.py",))),
        *("--config", "configs/demo.toml", "--set", f"data.directory={tmp_path / 'data'}", *options),
    ]


def addresses(port: int) -> tuple[str, ...]:
    """Return the options that lead a launcher to an exchange on this machine."""
    return (
        *("--set", f"exchange.rest_url=http://127.0.0.1:{port}"),
        *("--set", f"exchange.ws_url=ws://127.0.0.1:{port}"),
    )


def refused(tmp_path: Path, *options: str, own: bool = False, first: str = "", **more: str) -> tuple[int, str]:
    """Run a launcher that does not start; return its exit code and the one line that it says.

    Args:
        tmp_path: The test's directory.
        options: Command line; after the usual one unless `own`.
        own: Whether the options are the whole command line.
        first: What is done in its process before it starts.
        more: Further environment variables.
    """
    done = subprocess.run(
        [sys.executable, "launcher.py", *options] if own else command(tmp_path, *options, first=first),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=environment(tmp_path, **more),
    )
    assert done.stdout == ""
    # On a busy machine it takes so long to load the kernels that their progress is told.
    lines = [line for line in done.stderr.splitlines() if "compiling kernels" not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("launcher: ")
    return done.returncode, lines[0]


class Engine:
    """A running launcher."""

    def __init__(
        self, instance: str, directory: Path, process: subprocess.Popen[bytes], log: Path, environment: dict[str, str]
    ) -> None:
        self.instance = instance
        self.archive = directory / instance / "klines.db"
        self.process = process
        self.environment = environment
        self.shared = Path(environment["KLSHM_SHM_DIRECTORY"])
        self._log = log

    def text(self) -> str:
        """Return what it has said so far."""
        return self._log.read_text()

    def wait_live(self) -> None:
        """Wait until it says that all workers are live."""
        self.wait_said(" is live:")

    def klshm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `klshm` on this engine."""
        line = [sys.executable, "-m", "klshm", *arguments, "--instance", self.instance]
        return subprocess.run(line, capture_output=True, text=True, cwd=PROJECT, env=self.environment)

    def status(self) -> dict[str, Any]:
        """Return `klshm status --json`, nothing where it cannot be had yet."""
        done = self.klshm("status", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def wait_said(self, text: str) -> None:
        """Wait until it has said something; that it ends meanwhile is an error."""
        wait_for(lambda: text in self.text() or self.process.poll() is not None, explain=self.text)
        assert text in self.text(), self.text()

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait()

    def stop(self) -> int:
        """Stop it in order and return its exit code."""
        return self.end(signal.SIGTERM)

    def left(self) -> list[str]:
        """Return the names in its shared memory."""
        return sorted(path.name for path in self.shared.iterdir())


@contextmanager
def launcher(
    tmp_path: Path,
    *options: str,
    instance: str = "demo",
    closed_output: bool = False,
    first: str = "",
    **more: str,
) -> Iterator[Engine]:
    """Run a launcher until the block is left.

    Args:
        tmp_path: The test's directory.
        options: Command line, after the usual one.
        instance: The engine's name.
        closed_output: Whether nobody reads its standard output.
        first: What is done in its process before it starts.
        more: Further environment variables.
    """
    variables = environment(tmp_path, **more)
    log = tmp_path / f"{instance}.log"
    reading, writing = os.pipe()
    os.close(reading)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(tmp_path, "--instance", instance, *options, first=first),
            stdout=writing if closed_output else output,
            stderr=output,
            cwd=PROJECT,
            env=variables,
        )
        os.close(writing)
        try:
            yield Engine(instance, tmp_path / "data", process, log, variables)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def engine(tmp_path: Path, market: Exchange, instance: str, *options: str) -> Iterator[Engine]:
    """Run a launcher against a simulator, its segment in real shared memory, where it must leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="klshm-test-", dir="/dev/shm") as shared:
        arguments = (*addresses(market.port), *options)
        with launcher(tmp_path, *arguments, instance=instance, KLSHM_SHM_DIRECTORY=shared) as running:
            yield running
        if running.process.returncode >= 0:
            assert running.left() == []
