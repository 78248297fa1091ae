"""The commands of `python -m klshm`, one module per group of nouns.

Each module has `add(nouns)`, which declares its parsers and sets the function that runs; that
function takes the parsed options and returns the exit code.
"""

from __future__ import annotations


__all__: list[str] = []
