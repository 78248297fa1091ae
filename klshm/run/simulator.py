"""The simulator that `--demo` starts: a process of its own, independent of the engine."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys

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
        self.process = subprocess.Popen(_command(config), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise KlshmError(f"the simulator did not start: exit code {self.process.wait()}; its message stands above")
        self.port = int(json.loads(line)["port"])
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

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


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
