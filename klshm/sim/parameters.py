"""Parameters of a REST request, refused as the exchange refuses them."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web


__all__ = ["Refusal", "integer", "limit_of", "mandatory", "window"]


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """An answer that is an error of the exchange."""

    code: int
    message: str
    status: int = 400


def mandatory(request: web.Request, name: str) -> str:
    """Return a parameter that must be there.

    Raises:
        Refusal: it is not.
    """
    value = request.query.get(name, "")
    if not value:
        raise Refusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return value


def integer(request: web.Request, name: str) -> int | None:
    """Return a whole number, or None if it was left out.

    Raises:
        Refusal: it is empty or no whole number.
    """
    text = request.query.get(name)
    if text is None:
        return None
    if text == "":
        raise Refusal(-1105, f"Parameter '{name}' was empty.")
    if not text.isdecimal() or not text.isascii() or len(text) > 20:
        raise Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)


def limit_of(request: web.Request, default: int, most: int) -> int:
    """Return how many rows are asked for.

    Raises:
        Refusal: none, or more than there may be.
    """
    limit = integer(request, "limit")
    if limit is None:
        return default
    if not 1 <= limit <= most:
        raise Refusal(-1130, "Data sent for parameter 'limit' is not valid.")
    return limit


def window(request: web.Request) -> tuple[int | None, int | None]:
    """Return startTime and endTime.

    Raises:
        Refusal: one is no number, or they are the wrong way round.
    """
    start_ms, end_ms = integer(request, "startTime"), integer(request, "endTime")
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise Refusal(-1023, "Start time is greater than end time.")
    # Beyond the year 9999 nothing exists and calendars overflow.
    far = 253_402_300_799_999
    return (None if start_ms is None else min(start_ms, far)), (None if end_ms is None else min(end_ms, far))
