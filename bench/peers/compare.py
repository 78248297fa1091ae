"""All peers on the trades that `bench.micro.kernel` takes: nanoseconds per trade into six intervals.

Each runs in a process of its own, and in the environment that `python -m bench --install-peers` made
for it; one that is not installed is left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.micro.kernel import SYMBOLS, TRADES
from bench.support.figures import print_figures
from bench.support.market import BEGIN_MS, PRICE_DECIMALS, QUANTITY_DECIMALS, Trades


__all__ = ["PEERS", "Peer", "install", "measure", "run_peer", "write_trades"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_PATIENCE_S: Final = 300


@dataclass(frozen=True)
class Peer:
    """One aggregator.

    Attributes:
        package: Its distribution.
        module: What it is imported as.
        script: Module of `bench.peers` that runs it.
    """

    package: str
    module: str
    script: str

    @property
    def directory(self) -> Path:
        """The environment of its own."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "klshm-bench" / self.package

    @property
    def interpreter(self) -> Path | None:
        """A Python that can import it; None: it is not installed."""
        own = self.directory / "bin" / "python"
        if own.exists():
            return own
        return Path(sys.executable) if find_spec(self.module) else None


PEERS: Final = (
    Peer("nautilus_trader", "nautilus_trader", "nautilus_bars"),
    Peer("polars", "polars", "polars_bars"),
    Peer("pandas", "pandas", "pandas_bars"),
    Peer("ccxt", "ccxt", "ccxt_bars"),
    Peer("cryptofeed", "cryptofeed", "cryptofeed_bars"),
)


def measure(quick: bool) -> dict[str, float]:
    """Return ns per trade of every peer that is installed, and of the fastest: in batches, and all at once.

    Args:
        quick: As the kernel is measured; the trades are the same.

    Raises:
        RuntimeError: If no peer is installed.
    """
    live, whole = {}, {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trades.npz"
        write_trades(path, Trades.make(TRADES, SYMBOLS))
        for peer in PEERS:
            try:
                found = run_peer(peer, path)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                continue
            live[f"{peer.package}_ns"] = float(found["ns"])
            whole[f"{peer.package}_whole_ns"] = float(found.get("whole_ns", found["ns"]))
    if not live:
        raise RuntimeError("no peer is installed: python -m bench --install-peers")
    return {**live, **whole, "fastest_ns": min(live.values()), "fastest_whole_ns": min(whole.values())}


def write_trades(path: Path, trades: Trades) -> None:
    """Write trades and the bars they make, for processes that have NumPy only."""
    answer = trades.answer()
    prices = [answer[name] / 10**PRICE_DECIMALS for name in ("open", "high", "low", "close")]
    np.savez(
        path,
        symbols=trades.symbols,
        begin_ms=BEGIN_MS,
        slot=trades.slot,
        time_ms=trades.time_ms,
        price=trades.price / 10**PRICE_DECIMALS,
        quantity=trades.quantity / 10**QUANTITY_DECIMALS,
        bars=np.stack([*prices, answer["volume"] / 10**QUANTITY_DECIMALS], axis=1),
    )


def run_peer(peer: Peer, path: Path) -> dict[str, Any]:
    """Return what a peer's process printed: `ns` and `version`.

    Raises:
        RuntimeError: If it is not installed, failed, or its bars are not the trades' own.
    """
    python = peer.interpreter
    if python is None:
        raise RuntimeError(f"{peer.package}: not installed; python -m bench --install-peers")
    command = [str(python), "-m", f"bench.peers.{peer.script}", str(path)]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{peer.package}: took longer than {_PATIENCE_S} s") from error
    if done.returncode:
        raise RuntimeError(f"{peer.package}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def requirement(peer: Peer) -> str:
    """Return the range of versions that was tested: the project's extra `bench`."""
    extras = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = [line for line in extras["bench"] if re.split(r"[^\w-]", line)[0] == peer.package]
    return str(wanted[0])


def install(peer: Peer) -> str:
    """Make a peer's environment.

    Returns:
        What became of it, one line.
    """
    if not (peer.directory / "bin" / "python").exists():
        venv.create(peer.directory, with_pip=True)
    command = [str(peer.directory / "bin" / "python"), "-m", "pip", "install", "-q", requirement(peer), "numpy"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"{peer.package}: not installed: {(done.stderr.strip() or 'pip failed').splitlines()[-1]}"
    return f"{peer.package}: installed in {peer.directory}"


if __name__ == "__main__":
    print_figures(measure)
