"""Reading a running engine from any process, with NumPy alone."""

from __future__ import annotations

from klshm.read.attach import attach
from klshm.read.bars import Bar
from klshm.read.reader import Reader
from klshm.read.snapshot import Snapshot


__all__ = ["Bar", "Reader", "Snapshot", "attach"]
