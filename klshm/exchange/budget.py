"""The governor's state on disk, and the gate that makes requests wait for it in order.

A ban outlives the process that earned it, and the weight of a minute outlives a restart inside
it. Both are kept per REST address in one small JSON file of this machine, which several engines
share: every save takes over what the others have written.
"""

from __future__ import annotations

import asyncio
import fcntl
import heapq
import itertools
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from klshm.errors import IpBanned
from klshm.exchange.governor import Governor, GovernorState, Priority


__all__ = ["Gate", "StateFile", "default_state_path"]

_log = logging.getLogger(__name__)

_KEEP_MS: Final = 7 * 86_400_000
"""Longer than the longest ban, three days."""


def default_state_path() -> Path:
    """Return `$XDG_STATE_HOME/klshm/governor.json`, by default under ~/.local/state."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "klshm" / "governor.json"


class StateFile:
    """Keeps the governor's state of one REST address.

    A file that cannot be read or written costs a warning, once, and nothing else.

    Args:
        path: The file; its directory is made.
        rest_url: Whose state it is.
    """

    def __init__(self, path: Path, rest_url: str) -> None:
        self._path = path
        self._key = rest_url
        self._saved: GovernorState | None = None
        self._warned = False

    def load(self) -> GovernorState:
        """Return the state an earlier process left, or an empty one."""
        return _state_of(self._read().get(self._key))

    def save(self, state: GovernorState) -> None:
        """Write the state if it changed, after merging into it what others wrote."""
        if state == self._saved:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The lock is a file of its own: the state file is replaced, and so is its inode.
            with open(self._path.with_suffix(".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                entries = self._read()
                state.merge(_state_of(entries.get(self._key)))
                now_ms = time.time_ns() // 1_000_000
                entries = {k: v for k, v in entries.items() if _saved_ms(v) > now_ms - _KEEP_MS}
                entries[self._key] = {**asdict(state), "saved_ms": now_ms}
                temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
                temporary.write_text(json.dumps(entries, indent=1))
                os.replace(temporary, self._path)
        except OSError as error:
            self._warn(f"cannot write {self._path}: {error.strerror}; a ban will not survive a restart")
        self._saved = GovernorState(**asdict(state))

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self._warn(f"cannot read {self._path}: {error}; taken for empty")
            return {}
        return entries if isinstance(entries, dict) else {}

    def _warn(self, text: str) -> None:
        if not self._warned:
            _log.warning("request weight state: %s", text)
            self._warned = True


def _saved_ms(entry: object) -> int:
    saved_ms = entry.get("saved_ms") if isinstance(entry, dict) else None
    return saved_ms if isinstance(saved_ms, int) else 0


def _state_of(entry: object) -> GovernorState:
    if not isinstance(entry, dict):
        return GovernorState()
    known = {f.name for f in fields(GovernorState)}
    return GovernorState(**{k: v for k, v in entry.items() if k in known and isinstance(v, int)})


class Gate:
    """Lets requests through one by one, the most important first, as the governor allows.

    Args:
        governor: The budget.
        now_ms: Returns the exchange's time, UTC ms.
    """

    def __init__(self, governor: Governor, now_ms: Callable[[], int]) -> None:
        self.governor = governor
        self._now_ms = now_ms
        self._waiting: list[tuple[Priority, int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(not future.done() for *_, future in self._waiting)

    async def admit(self, weight: int, priority: Priority) -> None:
        """Wait until a request may go, and count it as sent.

        Args:
            weight: Its request weight.
            priority: What it is for.

        Raises:
            IpBanned: If this address is banned: waiting hours inside a call helps nobody.
        """
        self._refuse_if_banned()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), weight, future))
        self.pump()
        await future

    def pump(self) -> None:
        """Let through whatever may go now; call it when the governor has learned something."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            priority, _, weight, future = self._waiting[0]
            if future.done():  # its owner was cancelled
                heapq.heappop(self._waiting)
                continue
            now_ms = self._now_ms()
            until_ms = self.governor.banned_until_ms(now_ms)
            if until_ms:
                heapq.heappop(self._waiting)
                future.set_exception(_ban(until_ms, now_ms))
                continue
            wait_ms = self.governor.wait_ms(now_ms, weight, priority)
            if wait_ms > 0:
                self._timer = asyncio.get_running_loop().call_later(wait_ms / 1000 + 0.002, self.pump)
                return
            heapq.heappop(self._waiting)
            self.governor.sent(now_ms, weight)
            future.set_result(None)

    def _refuse_if_banned(self) -> None:
        now_ms = self._now_ms()
        until_ms = self.governor.banned_until_ms(now_ms)
        if until_ms:
            raise _ban(until_ms, now_ms)


def _ban(until_ms: int, now_ms: int) -> IpBanned:
    return IpBanned(
        f"this address is banned by the exchange for another {(until_ms - now_ms) / 1000:.0f} s; "
        "nothing is sent until then",
        until_ms=until_ms,
    )
