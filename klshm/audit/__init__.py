"""The audit: every closed bar of the archive against the exchange's own, in nine fields, exactly."""

from __future__ import annotations


__all__: list[str] = []
