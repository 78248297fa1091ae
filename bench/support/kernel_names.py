"""Names for `perf`: where in memory the compiled kernels of this process lie.

The compiler gives its code no names that `perf` could find. It looks into /tmp/perf-PID.map for them:
address, size and name of each function. Sizes stand in the object files that the kernels' cache keeps,
addresses the compiler tells.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from klshm.core.kernel.apply import apply_events
from klshm.shm.compile import cache_directory


__all__ = ["write_map"]

_ELF: Final = b"\x7fELF"
_SYMBOL_TABLE: Final = 2
_FUNCTION: Final = 2


def write_map() -> Path:
    """Write the map of this process and return its file; whoever sampled it removes it."""
    library: Any = next(iter(apply_events.overloads.values())).library
    lines = []
    for symbol, size in _sizes().items():
        if address := library.get_pointer_to_function(symbol):
            lines.append(f"{address:x} {size:x} {_plain(symbol)}\n")
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.write_text("".join(lines))
    return path


def _sizes() -> dict[str, int]:
    """Return the functions of all cached object files."""
    found: dict[str, int] = {}
    for file in (cache_directory() or Path("/nonexistent")).rglob("*.nbc"):
        data = file.read_bytes()
        if _ELF in data:
            for symbol, size in _functions(data[data.index(_ELF) :]):
                found[symbol] = max(size, found.get(symbol, 0))
    return found


def _functions(elf: bytes) -> Iterator[tuple[str, int]]:
    (at,) = struct.unpack_from("<Q", elf, 40)
    entry_bytes, entries, _ = struct.unpack_from("<HHH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, at + number * entry_bytes) for number in range(entries)]
    for _, kind, _, _, offset, size, link, *_ in sections:
        if kind != _SYMBOL_TABLE:
            continue
        texts = sections[link][4]
        for symbol in range(offset, offset + size, 24):
            name, info, _, _, _, length = struct.unpack_from("<IBBHQQ", elf, symbol)
            if info & 15 == _FUNCTION and length:
                begin = texts + name
                yield elf[begin : elf.index(b"\0", begin)].decode(), length


def _plain(symbol: str) -> str:
    """Return module.function of a mangled name: `_ZN5klshm4core6kernel6trades11apply_tradeB4v202...`."""
    parts, at = [], len("_ZN")
    while symbol.startswith("_ZN") and at < len(symbol) and symbol[at].isdigit():
        end = at
        while symbol[end].isdigit():
            end += 1
        length = int(symbol[at:end])
        parts.append(symbol[end : end + length])
        at = end + length
    return ".".join(parts[-2:]) or symbol[:40]
