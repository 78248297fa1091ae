"""`python -m klshm NOUN`."""

from __future__ import annotations

import sys

from klshm.cli import main


if __name__ == "__main__":
    sys.exit(main())
