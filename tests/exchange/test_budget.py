"""The state file and the gate."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import threading
import time
from pathlib import Path

import pytest

from klshm.errors import IpBanned
from klshm.exchange.budget import Gate, StateFile, default_state_path
from klshm.exchange.governor import Governor, GovernorState, Priority


URL = "https://fapi.binance.com"
T0 = 29_000_000 * 60_000 + 10_000


def test_default_path_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_path() == tmp_path / "klshm" / "governor.json"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_path() == tmp_path / ".local" / "state" / "klshm" / "governor.json"


def test_state_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "governor.json"
    state = GovernorState(7, 1200, 11, 99)
    StateFile(path, URL).save(state)
    assert StateFile(path, URL).load() == state
    assert StateFile(path, "http://127.0.0.1:1").load() == GovernorState()
    assert [p.name for p in path.parent.iterdir() if p.suffix == ".tmp"] == []


def test_unchanged_state_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "governor.json"
    file, state = StateFile(path, URL), GovernorState(7, 1200)
    file.save(state)
    path.unlink()
    file.save(state)
    assert not path.exists()
    state.used += 1
    file.save(state)
    assert path.exists()


def test_engines_of_one_address_learn_from_each_other(tmp_path: Path) -> None:
    path = tmp_path / "governor.json"
    StateFile(path, URL).save(GovernorState(7, 1200, 0, 5000))
    mine = GovernorState(7, 100)
    StateFile(path, URL).save(mine)
    assert mine == GovernorState(7, 1200, 0, 5000)


def test_old_entries_of_other_addresses_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "governor.json"
    now_ms = time.time_ns() // 1_000_000
    week_ms = 7 * 86_400_000
    path.write_text(json.dumps({"a": {"saved_ms": now_ms - week_ms - 1}, "b": {"saved_ms": now_ms}, "c": 1}))
    StateFile(path, URL).save(GovernorState(7, 1))
    assert sorted(json.loads(path.read_text())) == ["b", URL]


@pytest.mark.parametrize("text", ["{", "[]", f'{{"{URL}": 3}}', f'{{"{URL}": {{"used": "x"}}}}'])
def test_damaged_file_counts_as_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "governor.json"
    path.write_text(text)
    file = StateFile(path, URL)
    assert file.load() == GovernorState()
    file.save(GovernorState(1, 2))
    assert file.load() == GovernorState(1, 2)


def test_unwritable_place_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    file, state = StateFile(blocked / "governor.json", URL), GovernorState(1, 1)
    for _ in range(3):
        state.used += 1
        file.save(state)
    assert len(caplog.records) == 1
    assert "governor.json" in caplog.text


def test_gate_lets_through_in_order_of_importance() -> None:
    async def main() -> None:
        now = [T0]
        governor = Governor(0.9, 0.6)
        gate = Gate(governor, lambda: now[0])
        governor.sent(T0, 2160)
        order: list[str] = []

        async def ask(name: str, priority: Priority) -> None:
            await gate.admit(1, priority)
            order.append(name)

        names = ("backfill", "listings", "confirm", "repair", "repair 2")
        kinds = (Priority.BACKFILL, Priority.LISTINGS, Priority.CONFIRM, Priority.REPAIR, Priority.REPAIR)
        tasks = [asyncio.create_task(ask(n, p)) for n, p in zip(names, kinds, strict=True)]
        cancelled = asyncio.create_task(ask("cancelled", Priority.REPAIR))
        await asyncio.sleep(0)
        assert gate.waiting == 6 and not order
        cancelled.cancel()
        now[0] += 60_000
        gate.pump()
        await asyncio.gather(*tasks)
        assert order == ["repair", "repair 2", "confirm", "listings", "backfill"]
        assert governor.used(now[0]) == 5

    asyncio.run(main())


def test_gate_opens_by_itself_at_the_next_minute() -> None:
    async def main() -> None:
        start = time.monotonic()
        # 50 ms before the next minute begins for the governor
        gate = Gate(Governor(), lambda: 29_000_001 * 60_000 + 150 + int((time.monotonic() - start) * 1000))
        gate.governor.sent(29_000_001 * 60_000 + 150, 2160)
        await gate.admit(1, Priority.REPAIR)
        assert time.monotonic() - start >= 0.05

    asyncio.run(main())


def test_ban_is_an_error_at_once_and_for_those_who_wait() -> None:
    async def main() -> None:
        gate = Gate(Governor(), lambda: T0)
        gate.governor.sent(T0, 2160)
        waiting = asyncio.create_task(gate.admit(1, Priority.REPAIR))
        await asyncio.sleep(0)
        gate.governor.banned(T0, T0 + 300_000, None)
        gate.pump()
        with pytest.raises(IpBanned, match="another 300 s") as caught:
            await waiting
        assert caught.value.until_ms == T0 + 300_000
        with pytest.raises(IpBanned):
            await gate.admit(1, Priority.LISTINGS)

    asyncio.run(main())


def test_saving_waits_for_another_engine_that_saves(tmp_path: Path) -> None:
    path = tmp_path / "governor.json"
    with open(tmp_path / "governor.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        saver = threading.Thread(target=StateFile(path, URL).save, args=(GovernorState(1, 1),))
        saver.start()
        saver.join(0.1)
        assert saver.is_alive() and not path.exists()
    saver.join()
    assert StateFile(path, URL).load() == GovernorState(1, 1)


def test_lock_file_is_released(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    StateFile(tmp_path / "g.json", URL).save(GovernorState(1, 1))
    assert len(os.listdir("/proc/self/fd")) == before
