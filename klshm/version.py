"""The version of klshm, in the one place that code reads."""

from __future__ import annotations

from typing import Final


__all__ = ["__version__"]

__version__: Final = "0.1.0"
