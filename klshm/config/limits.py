"""What a setting may be: small objects that judge a value and say in words what they expect."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from klshm.intervals import INTERVALS, length_ms


__all__ = [
    "Each",
    "Intervals",
    "Limit",
    "Matches",
    "OneOf",
    "PerName",
    "PowerOfTwo",
    "Range",
    "Url",
    "anything",
]


class Limit(Protocol):
    """Judges one value of the right type."""

    @property
    def expected(self) -> str:
        """What is accepted, as the end of "expected ..."."""

    def accepts(self, value: Any) -> bool:
        """Return whether the value can be used."""


@dataclass(frozen=True)
class Anything:
    """Accepts every value of the right type."""

    expected: str = ""

    def accepts(self, value: Any) -> bool:
        return True


anything = Anything()


@dataclass(frozen=True)
class Range:
    """Accepts finite numbers from `low` to `high`, both included."""

    low: float
    high: float = math.inf

    @property
    def expected(self) -> str:
        return f"at least {self.low:g}" if self.high == math.inf else f"{self.low:.12g} to {self.high:.12g}"

    def accepts(self, value: Any) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class PowerOfTwo:
    """Accepts powers of two from `low` to `high`."""

    low: int
    high: int

    @property
    def expected(self) -> str:
        return f"a power of two from {self.low} to {self.high}"

    def accepts(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high and value & (value - 1) == 0)


@dataclass(frozen=True)
class OneOf:
    """Accepts the words given."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        return "one of " + ", ".join(self.words)

    def accepts(self, value: Any) -> bool:
        return value in self.words


@dataclass(frozen=True)
class Matches:
    """Accepts text that a pattern matches as a whole."""

    pattern: str
    expected: str

    def accepts(self, value: Any) -> bool:
        return re.fullmatch(self.pattern, value) is not None


@dataclass(frozen=True)
class Url:
    """Accepts an address with a host and one of the schemes."""

    schemes: tuple[str, ...]
    may_be_empty: bool = False

    @property
    def expected(self) -> str:
        address = "an address such as " + f"{self.schemes[0]}://host" + f" (schemes: {', '.join(self.schemes)})"
        return f"empty or {address}" if self.may_be_empty else address

    def accepts(self, value: Any) -> bool:
        if not value:
            return self.may_be_empty
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            return False
        return parts.scheme in self.schemes and bool(parts.hostname) and port != 0


@dataclass(frozen=True)
class Each:
    """Accepts lists whose items all pass, none of them twice."""

    item: Limit
    at_least: int = 0

    @property
    def expected(self) -> str:
        length = "a list" if not self.at_least else f"a list of at least {self.at_least}"
        return f"{length} without repeats, each {self.item.expected}"

    @property
    def words(self) -> tuple[str, ...]:
        """The words that an item may be, if they are known: messages name the nearest."""
        return self.item.words if isinstance(self.item, OneOf) else ()

    def accepts(self, value: Collection[Any]) -> bool:
        distinct = len(set(value)) == len(value) >= self.at_least
        return distinct and all(self.item.accepts(item) for item in value)


@dataclass(frozen=True)
class Intervals:
    """Accepts the list of kept intervals: known ones, shortest first, 1m the first."""

    @property
    def expected(self) -> str:
        return f"intervals out of {', '.join(INTERVALS)}, shortest first, beginning with 1m"

    def accepts(self, value: list[str]) -> bool:
        if not value or value[0] != "1m" or not set(value) <= set(INTERVALS):
            return False
        lengths = [length_ms(name) for name in value]
        return all(shorter < longer for shorter, longer in zip(lengths, lengths[1:], strict=False))


@dataclass(frozen=True)
class PerName:
    """Accepts tables from known names to numbers that pass."""

    item: Limit
    names: tuple[str, ...] = INTERVALS

    @property
    def expected(self) -> str:
        return f"a table from {', '.join(self.names)} to numbers, each {self.item.expected}"

    def accepts(self, value: Mapping[str, Any]) -> bool:
        return set(value) <= set(self.names) and all(self.item.accepts(number) for number in value.values())
