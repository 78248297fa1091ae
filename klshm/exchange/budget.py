"""The request weight that all processes of this machine spend from one purse.

The exchange counts by address, whoever asks: engines, `audit`, `backfill`. So the governor's state
lies in one small JSON file per machine, by REST address, and every request is counted there, under
a lock, before it goes. A ban outlives the process that earned it, and the weight of a minute a
restart inside it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from klshm.config import ExchangeConfig
from klshm.exchange.governor import GovernorState
from klshm.exchange.proxy import proxy_for


__all__ = ["StateFile", "default_state_path", "shared_purse"]

_log = logging.getLogger(__name__)

_KEEP_MS: Final = 7 * 86_400_000
"""Longer than the longest ban, three days."""
_LOCK_S: Final = 0.2
_LOOK_S: Final = 0.001


def default_state_path() -> Path:
    """Return `$XDG_STATE_HOME/klshm/governor.json`, by default under ~/.local/state."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "klshm" / "governor.json"


def shared_purse(config: ExchangeConfig) -> StateFile:
    """Return where this user's processes on this machine count what they spend at an exchange."""
    return StateFile(default_state_path(), config.rest_url, proxy_for(config.rest_url, config.proxy) or "")


class StateFile:
    """Keeps the governor's state of one REST address.

    A file that cannot be locked, read or written costs a warning, once: the process then counts alone.

    Args:
        path: The file; its directory is made.
        rest_url: Whose state it is.
        proxy: What the exchange is asked through; it counts by the address that it sees.
    """

    def __init__(self, path: Path, rest_url: str, proxy: str = "") -> None:
        self._path = path
        self._key = _address(rest_url, proxy)
        self._warned = False
        self._patience_s = _LOCK_S

    @contextmanager
    def opened(self, state: GovernorState, minute: int) -> Iterator[None]:
        """Keep all others out: `state` learns what they have used, then they what it says at the end.

        Args:
            state: What this process knows; changed in place.
            minute: The UTC minute now.
        """
        with self._locked() as is_locked:
            if not is_locked:
                yield
                return
            entries = self._read()
            stored = _state_of(entries.get(self._key))
            state.merge(stored, minute)
            yield
            if state != stored:
                self._write(entries, state)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The lock is a file of its own: the state file is replaced, and so is its inode.
            lock = open(self._path.with_suffix(".lock"), "w")
        except OSError as error:
            self._warn(f"cannot write {self._path}: {error.strerror}; weight used here is counted here alone")
            yield False
            return
        with lock:
            yield self._take(lock.fileno())

    def _take(self, descriptor: int) -> bool:
        """Wait for the lock, but not long: who holds it may have been stopped, and this is an event loop."""
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    self._warn(f"{self._path} is locked by a process that does not go on; counting alone")
                    self._patience_s = 0.0  # once is enough: it is looked at, and waited for no more
                    return False
                time.sleep(_LOOK_S)
            else:
                self._patience_s = _LOCK_S
                return True

    def _write(self, entries: dict[str, Any], state: GovernorState) -> None:
        now_ms = time.time_ns() // 1_000_000
        entries = {key: entry for key, entry in entries.items() if _saved_ms(entry) > now_ms - _KEEP_MS}
        entries[self._key] = {**asdict(state), "saved_ms": now_ms}
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(entries, indent=1))
            os.replace(temporary, self._path)
        except OSError as error:
            self._warn(f"cannot write {self._path}: {error.strerror}; a ban will not survive a restart")

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


def _address(rest_url: str, proxy: str) -> str:
    """Return under which name weight is counted: scheme, host and port, however they are spelt."""
    found = urlsplit(rest_url)
    way = f" via {urlsplit(proxy).hostname}" if proxy else ""
    return f"{found.scheme}://{found.netloc.lower()}{way}"


def _saved_ms(entry: object) -> int:
    saved_ms = entry.get("saved_ms") if isinstance(entry, dict) else None
    return saved_ms if isinstance(saved_ms, int) else 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 12


def _state_of(entry: object) -> GovernorState:
    if not isinstance(entry, dict):
        return GovernorState()
    used = entry.get("used")
    minutes = used.items() if isinstance(used, dict) else ()
    ends = {name: entry.get(name) for name in ("blocked_until_ms", "banned_until_ms")}
    return GovernorState(
        {int(minute): weight for minute, weight in minutes if _is_number(minute) and isinstance(weight, int)},
        **{name: end for name, end in ends.items() if isinstance(end, int)},
    )
