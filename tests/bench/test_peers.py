"""Every peer that is installed makes the same bars of the same trades; one that does not is told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.peers.compare import PEERS, Peer, install, requirement, run_peer, write_trades
from bench.support.market import Trades


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.package)
def test_a_peer_agrees_with_the_kernel_on_the_same_trades(peer: Peer, tmp_path: Path) -> None:
    if peer.interpreter is None:
        pytest.skip(f"{peer.package} is not installed; python -m bench --install-peers")
    trades = Trades.make(2_000, 40)
    write_trades(tmp_path / "trades.npz", trades)
    found = run_peer(peer, tmp_path / "trades.npz")
    assert found["ns"] > 0
    assert found["version"]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.package)
def test_a_peer_whose_bars_differ_is_not_timed(peer: Peer, tmp_path: Path) -> None:
    if peer.interpreter is None:
        pytest.skip(f"{peer.package} is not installed; python -m bench --install-peers")
    trades = Trades.make(500, 10)
    path = tmp_path / "trades.npz"
    write_trades(path, trades)
    with np.load(path) as file:
        changed = {name: file[name] for name in file.files}
    changed["bars"] = changed["bars"] + np.eye(10, 5)
    np.savez(path, **changed)
    with pytest.raises(RuntimeError, match="bars differ from the trades' own"):
        run_peer(peer, path)


def test_a_peer_that_is_not_installed_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"^nobody_has_this: not installed; python -m bench --install-peers$"):
        run_peer(Peer("nobody_has_this", "nobody_has_this", "ccxt_bars"), tmp_path)


def test_a_peer_that_fails_says_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^numpy: .*No module named bench\.peers\.nothing"):
        run_peer(Peer("numpy", "numpy", "nothing"), tmp_path)


def test_each_peer_has_a_range_of_versions_that_was_tested() -> None:
    for peer in PEERS:
        assert requirement(peer).startswith(f"{peer.package}>=")
        assert ",<" in requirement(peer)


def test_a_peer_that_cannot_be_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert install(PEERS[1]).startswith("polars: not installed: ERROR: ")
