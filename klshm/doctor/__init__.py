"""The machine: whether an engine can run here, how well, and for how long.

Every look yields lines, each with a verdict and, unless it is "ok", with what to do. Nothing is
changed, no network is used, and neither an engine nor the engine's packages need be there.
"""

from __future__ import annotations


__all__: list[str] = []
