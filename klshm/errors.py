"""Every error that klshm raises on purpose, under one root.

::

    KlshmError
    ├─ ConfigError            file, key, found, expected            (exit code 4)
    ├─ UnsupportedPlatform    this machine or Python cannot run it
    ├─ InstanceError
    │  ├─ InstanceNotFound    no engine of that name runs           (exit code 3)
    │  ├─ InstanceAmbiguous   several run and none was named        (exit code 2)
    │  └─ InstanceRunning     the name is taken by a running engine
    ├─ SegmentError
    │  ├─ SegmentNotReady     exists, but is not filled yet
    │  ├─ SegmentTooLarge     shared memory has x, needs y
    │  ├─ SegmentDamaged      structure or sanity check failed
    │  └─ LayoutMismatch      reader and segment disagree on the layout
    ├─ ReadError
    │  ├─ EngineGone          heartbeat old, segment closed or replaced
    │  ├─ StaleData           the writer of this row is silent      (exit code 6)
    │  ├─ WaitTimeout         nothing came in the time given        (exit code 5)
    │  ├─ RowBusy             one row could not be read consistently
    │  └─ SnapshotBusy        no consistent cut could be taken
    ├─ UnknownSymbol          also a KeyError                       (exit code 2)
    ├─ UnknownInterval        also a KeyError                       (exit code 2)
    ├─ ExchangeError
    │  ├─ ExchangeUnreachable no answer: network, proxy, name
    │  ├─ ExchangeRefused     the exchange answered with an error code
    │  ├─ RateLimited         429; retry_after_s
    │  ├─ IpBanned            418; until_ms
    │  └─ BadMessage          a frame or body that does not fit its schema
    │     └─ RowsRefused      rows that fit it and cannot be true
    └─ StoreError
       ├─ JournalError        LMDB: full, damaged, of another format
       ├─ ArchiveError        SQLite: locked, damaged, of another schema
       └─ SnapshotFileError   a snapshot file: missing, damaged, of a newer format

Messages are one line: what was found, what was expected, what to do.
"""

from __future__ import annotations


__all__ = [
    "ArchiveError",
    "BadMessage",
    "ConfigError",
    "EngineGone",
    "ExchangeError",
    "ExchangeRefused",
    "ExchangeUnreachable",
    "InstanceAmbiguous",
    "InstanceError",
    "InstanceNotFound",
    "InstanceRunning",
    "IpBanned",
    "JournalError",
    "KlshmError",
    "LayoutMismatch",
    "RateLimited",
    "ReadError",
    "RowBusy",
    "RowsRefused",
    "SegmentDamaged",
    "SegmentError",
    "SegmentNotReady",
    "SegmentTooLarge",
    "SnapshotBusy",
    "SnapshotFileError",
    "StaleData",
    "StoreError",
    "UnknownInterval",
    "UnknownSymbol",
    "UnsupportedPlatform",
    "WaitTimeout",
]


class KlshmError(Exception):
    """Base of every error that klshm raises on purpose."""

    exit_code = 1
    """Exit code of a command that ends with this error."""

    def __str__(self) -> str:
        return " ".join(str(argument) for argument in self.args)


class ConfigError(KlshmError):
    """A configuration file, variable or option that cannot be used."""

    exit_code = 4


class UnsupportedPlatform(KlshmError):
    """This machine, system or Python version cannot run klshm."""


class InstanceError(KlshmError):
    """Something about which engine is meant."""


class InstanceNotFound(InstanceError):
    """No engine of that name runs here."""

    exit_code = 3


class InstanceAmbiguous(InstanceError):
    """Several engines run and none was named."""

    exit_code = 2


class InstanceRunning(InstanceError):
    """An engine of that name runs already."""


class SegmentError(KlshmError):
    """The shared memory segment cannot be created or used."""


class SegmentNotReady(SegmentError):
    """The segment exists but its creator has not finished it."""

    exit_code = 3


class SegmentTooLarge(SegmentError):
    """Shared memory has less room than the segment needs."""


class SegmentDamaged(SegmentError):
    """The segment fails a check of structure or sanity."""


class LayoutMismatch(SegmentError):
    """The segment was written by another layout than this code reads."""


class ReadError(KlshmError):
    """A reader could not get what it asked for."""


class EngineGone(ReadError):
    """The engine stopped, died or was replaced."""

    exit_code = 3


class StaleData(ReadError):
    """The data is older than the reader may take for live."""

    exit_code = 6


class WaitTimeout(ReadError):
    """Nothing came within the time given."""

    exit_code = 5


class RowBusy(ReadError):
    """A row could not be read consistently within the bounded tries."""


class SnapshotBusy(ReadError):
    """No consistent cut could be taken within the bounded tries."""


class UnknownSymbol(KlshmError, KeyError):
    """A symbol that the engine does not carry."""

    exit_code = 2


class UnknownInterval(KlshmError, KeyError):
    """An interval that the engine does not keep."""

    exit_code = 2


class ExchangeError(KlshmError):
    """The exchange could not be reached, or refused."""


class ExchangeUnreachable(ExchangeError):
    """No answer came: network, name, proxy or TLS."""


class ExchangeRefused(ExchangeError):
    """The exchange answered with an error.

    Args:
        message: One line for people.
        status: HTTP status of the answer.
        code: The exchange's own error code (negative), 0 where there is none.
    """

    def __init__(self, message: str, *, status: int, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def is_about_request(self) -> bool:
        """Whether it is this request that was refused: another one, or another symbol, may be answered."""
        return self.status in (400, 404) and self.code != 0


class RateLimited(ExchangeError):
    """The request weight of this minute is used up (HTTP 429).

    Args:
        message: One line for people.
        retry_after_s: Seconds to wait, as the exchange or its rules say.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IpBanned(ExchangeError):
    """This address is banned (HTTP 418).

    Args:
        message: One line for people.
        until_ms: End of the ban, UTC ms.
    """

    def __init__(self, message: str, *, until_ms: int) -> None:
        super().__init__(message)
        self.until_ms = until_ms


class BadMessage(ExchangeError):
    """A frame or body that does not fit its schema."""


class RowsRefused(BadMessage):
    """Rows that fit their schema and cannot be true: impossible, or none where there must be some."""


class StoreError(KlshmError):
    """The journal or the archive cannot be used."""


class JournalError(StoreError):
    """The LMDB journal is full, damaged or of another format."""


class ArchiveError(StoreError):
    """The SQLite archive is locked, damaged or of another schema."""


class SnapshotFileError(StoreError):
    """A snapshot file is missing, damaged or of a newer format."""
