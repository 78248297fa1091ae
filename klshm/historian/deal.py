"""Which worker carries which symbol: heaviest first to the lightest worker with room; pure."""

from __future__ import annotations

from collections.abc import Mapping


__all__ = ["deal"]


def deal(weights: Mapping[str, int], loads: list[int], rooms: list[int]) -> dict[str, int]:
    """Deal symbols to workers: heaviest first, each to the lightest worker that has room.

    Args:
        weights: Symbol to its weight (trades of 24 hours).
        loads: Weight each worker carries already; changed to what it carries afterwards.
        rooms: Free slots of each worker; changed likewise.

    Returns:
        Symbol to worker; symbols for which no worker has room are missing.
    """
    dealt: dict[str, int] = {}
    for name in sorted(weights, key=lambda n: (-weights[n], n)):
        free = [worker for worker, room in enumerate(rooms) if room > 0]
        if not free:
            break
        worker = min(free, key=lambda w: (loads[w], -rooms[w], w))
        dealt[name] = worker
        loads[worker] += weights[name]
        rooms[worker] -= 1
    return dealt
