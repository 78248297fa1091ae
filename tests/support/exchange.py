"""The exchange: the simulator as a process, on a port of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.processes import PROJECT


@dataclass
class Exchange:
    """A running simulator."""

    port: int
    start_ms: int
    process: subprocess.Popen[str]

    @property
    def rest_url(self) -> str:
        """Address of its REST."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **query: object) -> Any:
        """Return the answer of a REST request."""
        text = "?" + urllib.parse.urlencode({k: str(v) for k, v in query.items()}) if query else ""
        with urllib.request.urlopen(self.rest_url + path + text) as answer:
            return json.load(answer)

    def now_ms(self) -> int:
        """Return the exchange's time."""
        return int(self.get("/fapi/v1/time")["serverTime"])

    def fault(self, **parameters: Any) -> None:
        """Let it misbehave."""
        request = urllib.request.Request(
            f"{self.rest_url}/sim/faults",
            json.dumps(parameters).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200


@contextmanager
def exchange(*options: str) -> Iterator[Exchange]:
    """Run a simulator until the block is left, and insist on an ordered end."""
    command = [sys.executable, "-m", "klshm.sim", "--port", "0", "--exit-with-parent", *options]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=PROJECT) as process:
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                if line:
                    ready = json.loads(line)
                    yield Exchange(ready["port"], ready["start_ms"], process)
            finally:
                process.terminate()
        errors.seek(0)
        assert (process.returncode, errors.read()) == (0, ""), "the simulator did not end in order"
