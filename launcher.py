"""Start klshm: ``python launcher.py --workers 4`` (add ``--demo`` to run without a network)."""

from __future__ import annotations

import os
import sys


# Before NumPy is loaded: it would start a thread, and threads do not survive a fork.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

if not (3, 11) <= sys.version_info[:2] < (3, 15):
    sys.exit(f"launcher: klshm needs Python 3.11 to 3.14, this is {sys.version.split()[0]}; start it with one of them")


if __name__ == "__main__":
    try:
        from klshm.run.launch import main
    except ModuleNotFoundError as error:
        sys.exit(f"launcher: not installed for {sys.executable}: {error.name}; run: pip install -r requirements.txt")
    sys.exit(main())
