"""What a process takes of memory."""

from __future__ import annotations

from pathlib import Path


__all__ = ["proportional_bytes"]


def proportional_bytes(pid: int) -> int:
    """Return the proportional memory (PSS) of a process without the segment."""
    total, mapped = 0, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            mapped = line
        elif line.startswith("Pss:") and "/dev/shm/klshm." not in mapped:
            total += int(line.split()[1]) * 1024
    return total
