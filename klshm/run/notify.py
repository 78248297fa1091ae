"""What a service manager is told: ready, still alive, stopping (systemd's notification protocol).

Nothing happens unless `NOTIFY_SOCKET` is set. The engine counts as ready when its segment serves and
its processes run, not when the exchange answers: one that cannot be reached is no reason to be
started again and again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final


__all__ = ["Notifier"]

_log = logging.getLogger(__name__)

_SHARE: Final = 3
"""So many times within the watchdog's period a sign of life is given."""


class Notifier:
    """Sends datagrams to the service manager; a manager that does not listen costs one warning.

    Args:
        environment: Where `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are looked for.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An address that begins with "@" is an abstract one.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._period_s = _watchdog_s(environment) / _SHARE
        self._next_s = 0.0
        self._failed = False

    def ready(self, status: str) -> None:
        """Say that the engine serves."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Say in one line how the engine is."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Give a sign of life if one is due; call it from the supervising loop only: its hang is what is watched."""
        if self._period_s and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self._period_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the engine stops, in order."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(text.encode(), self._address)
        except OSError as error:
            if not self._failed:
                _log.warning("the service manager at NOTIFY_SOCKET does not listen reason=%r", error.strerror)
            self._failed = True


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Return the watchdog's period, 0 if there is none or it is another process's."""
    period, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return 0.0
    return int(period) / 1e6 if period.isascii() and period.isdigit() else 0.0
