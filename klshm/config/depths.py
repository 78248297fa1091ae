"""How many bars of each interval are worth fetching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from klshm import intervals


__all__ = ["depths_of"]

_DEFAULT_DEPTH: Final = 1000
_DAY_MS: Final = 86_400_000


def depths_of(
    bars: Mapping[str, int], retention_days: Mapping[str, int], least: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return how deep every interval is to be, rows: as configured, and not beyond what the archive keeps.

    Args:
        bars: `historian.bars_per_interval`.
        retention_days: `store.retention_days`.
        least: Rows that are wanted although the archive does not keep them.
    """
    default = bars.get("default", _DEFAULT_DEPTH)
    depths = {name: bars.get(name, default) for name in intervals.INTERVALS}
    for name, days in retention_days.items():
        kept = days * _DAY_MS // intervals.length_ms(name)
        depths[name] = min(depths[name], max(kept, (least or {}).get(name, 0)))
    return depths
