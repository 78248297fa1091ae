"""Checking the files of an instance, and mending them from the exchange.

`audit` holds the archive against the exchange, `doctor` looks at the machine; this looks at the
bytes: the archive, the journal, the snapshot file, and the segment of a running or crashed
engine. Checking writes nothing and needs neither an engine nor a network. Mending needs both the
exchange and the instance to itself, and leaves every good row as it is, bit for bit.
"""

from __future__ import annotations


__all__: list[str] = []
