"""The simulator that `--demo` starts: a process of its own, independent of the engine."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
import tempfile

from klshm.config import Config, SimConfig
from klshm.errors import KlshmError


__all__ = ["Simulator"]

_log = logging.getLogger(__name__)


class Simulator:
    """A running simulator.

    Args:
        config: `[sim]`.

    Raises:
        KlshmError: If it does not start; carries what it said.
    """

    def __init__(self, config: SimConfig) -> None:
        # A file, not a pipe: nobody would read on, and what matters is what it says last.
        self._said = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C reaches the launcher only, which stops the simulator last.
        self.process = subprocess.Popen(
            _command(config), stdout=subprocess.PIPE, stderr=self._said, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
            if not line:
                code = self.process.wait()
                raise KlshmError(f"the simulator did not start (exit code {code}): {self._last_words()}")
            self.port = int(json.loads(line)["port"])
        except BaseException:
            self.stop()
            raise
        _log.info("simulator serves address=http://127.0.0.1:%d symbols=%d", self.port, config.symbols)

    def addressed(self, config: Config) -> Config:
        """Return the configuration with the exchange's addresses replaced by the simulator's."""
        exchange = dataclasses.replace(
            config.exchange,
            rest_url=f"http://127.0.0.1:{self.port}",
            ws_url=f"ws://127.0.0.1:{self.port}",
            proxy="",
        )
        return dataclasses.replace(config, exchange=exchange)

    def check(self) -> None:
        """Return if it is still there.

        Raises:
            KlshmError: If it has ended; carries what it said last.
        """
        code = self.process.poll()
        if code is not None:
            raise KlshmError(f"the simulator has ended (exit code {code}): {self._last_words()}; start the demo again")

    def stop(self) -> None:
        """Stop it and wait until it is gone; may be repeated."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._said.close()

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _command(config: SimConfig) -> list[str]:
    command = [sys.executable, "-m", "klshm.sim", "--port", "0", "--exit-with-parent"]
    command += ["--seed", str(config.seed), "--symbols", str(config.symbols), "--rate", f"{config.rate:g}"]
    command += ["--history-days", str(config.history_days)]
    command.append("--boundary-effect" if config.boundary_effect else "--no-boundary-effect")
    command.append("--id-gaps" if config.id_gaps else "--no-id-gaps")
    if config.start_at:
        command += ["--start-at", config.start_at]
    if config.faults:
        command += ["--faults", config.faults]
    return command
