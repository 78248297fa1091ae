"""The latency scenario where the worker mostly sleeps and where it hardly does: 1,000 and 50,000 messages a second."""

from __future__ import annotations

from typing import Final

from bench.scenario import latency
from bench.support.figures import print_figures


__all__ = ["measure"]

_RATES: Final = (1_000, 50_000)


def measure(quick: bool) -> dict[str, float]:
    """Return percentiles in microseconds of all kinds of workers, `klshm_50000_p50_us`.

    Args:
        quick: Shorter.
    """
    return latency.measure(quick, _RATES)


if __name__ == "__main__":
    print_figures(measure)
