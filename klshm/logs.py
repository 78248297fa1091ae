"""Log output of the engine's processes: one line per event, on stderr, as text or JSON.

Only programs call `configure`; library code asks for its logger and says what happened.
A message that repeats is held back after a few times and its number told later, so that a
fault that strikes every symbol cannot bury the log.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TextIO


__all__ = ["JsonFormatter", "RepeatFilter", "TextFormatter", "configure"]

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(level: str, format: str, role: str, *, stream: TextIO | None = None) -> None:
    """Send everything klshm logs to stderr; may be called again, as after a fork.

    Args:
        level: "debug", "info", "warning" or "error".
        format: "text", or "json" for one JSON object per line.
        role: Name of the process, such as "worker 2".
        stream: Where to; None: stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(role) if format == "json" else TextFormatter(role))
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # What other libraries say below a warning is about them, not about the market.
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger("klshm").setLevel(_LEVELS[level])
    logging.captureWarnings(True)


class TextFormatter(logging.Formatter):
    """`2026-11-20T10:09:00.123Z info    worker 2     message key=value`."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_instant(record)} {record.levelname.lower():<7} {self._role:<10} {_message(record)}"
        return line.replace("\r", " ").replace("\n", " | ")


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": …, "role": …, "logger": …, "message": …}`."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": _message(record),
        }
        return json.dumps(event, ensure_ascii=False)


@dataclass
class _Series:
    began_s: float
    passed: int = 0
    held: int = 0


class RepeatFilter(logging.Filter):
    """Lets `burst` records of one message through per `window_s`, and counts the others.

    Records are of one message when logger, level and text before the arguments agree. The first
    one after the window says how many were held back.

    Args:
        burst: Records let through per window.
        window_s: Length of the window, seconds of the records' own time.
    """

    _MOST_SERIES: Final = 1024

    def __init__(self, burst: int = 10, window_s: float = 10.0) -> None:
        super().__init__()
        self._burst = burst
        self._window_s = window_s
        self._series: dict[tuple[str, int, str], _Series] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, record.levelno, str(record.msg))
        series = self._series.get(key)
        if series is None or not 0 <= record.created - series.began_s < self._window_s:
            held = series.held if series else 0
            if len(self._series) >= self._MOST_SERIES:
                self._series.clear()
            series = self._series[key] = _Series(record.created)
            if held:
                record.held_back = held
        series.passed += 1
        if series.passed > self._burst:
            series.held += 1
            return False
        return True


def _instant(record: logging.LogRecord) -> str:
    instant = datetime.fromtimestamp(record.created, UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    held = getattr(record, "held_back", 0)
    if held:
        text += f" held_back={held}"
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    return text
