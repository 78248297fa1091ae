"""Start klshm: ``python launcher.py --workers 4`` (add ``--demo`` to run without a network)."""

from __future__ import annotations

import os
import sys


# Before NumPy is loaded: it would start a thread, and threads do not survive a fork.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

if sys.version_info < (3, 11):
    sys.exit(f"launcher: Python {sys.version.split()[0]} is too old, klshm needs 3.11 or newer; install one")


if __name__ == "__main__":
    from klshm.run.launch import main

    sys.exit(main())
