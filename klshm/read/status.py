"""How an engine is, in one document, from the counters that its roles keep in the segment."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from klshm.read.source import Source
from klshm.shm import counters
from klshm.shm import layout as lay
from klshm.shm.counters import Counters
from klshm.shm.view import read_clock, take_cuts
from klshm.version import __version__


__all__ = ["StatusReport"]

_PURPOSES: Final = ("repair", "confirm", "listings", "backfill")
_RATE_WINDOW_S: Final = 0.25
"""Shortest time over which a rate is measured."""
_CONFIRMED: Final = (
    "confirmed_by_final_frame_total",
    "confirmed_by_next_frame_total",
    "confirmed_by_rest_total",
    "confirmed_empty_total",
)


class StatusReport:
    """Collects the status of one engine; keeps the last message count to tell the rate.

    Args:
        source: The segment's views.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        words, layout = source.segment, source.segment.layout
        self._blocks = {
            ("launcher", 0): words.block(layout.launcher_offset),
            ("historian", 0): words.block(layout.historian_offset),
            ("persister", 0): words.block(layout.persister_offset),
            ("web", 0): words.block(layout.web_offset),
            **{("worker", view.worker): view.block for view in source.views},
        }
        self._workers = [Counters(view.block, counters.WORKER) for view in source.views]
        self._historian = Counters(self._blocks["historian", 0], counters.HISTORIAN)
        self._persister = Counters(self._blocks["persister", 0], counters.PERSISTER)
        self._sample: tuple[float, int] | None = None

    def collect(self) -> dict[str, Any]:
        """Return the status document."""
        source, mapped = self._source, self._source.segment
        config, words = source.config, mapped.words
        state = int(words[lay.H_STATE])
        return {
            "instance": mapped.path.name.removeprefix("klshm."),
            "version": __version__,
            "state": lay.SEGMENT_STATE_NAMES[state] if state < len(lay.SEGMENT_STATE_NAMES) else "unknown",
            "started_ms": int(words[lay.H_CREATED_MS]),
            "data_directory": f"{config.data.directory}/{config.instance}",
            "segment": {"path": str(mapped.path), "bytes": mapped.layout.total_bytes},
            "exchange": self._exchange(config.exchange.rest_url),
            "symbols": self._symbols(),
            "bars": self._bars(),
            "match_rate": self._match_rate(),
            "lag_ms": {
                "p50": max(worker.get("lag_p50_us") for worker in self._workers) / 1000,
                "p99": max(worker.get("lag_p99_us") for worker in self._workers) / 1000,
            },
            "messages_per_s": self._messages_per_s(),
            "connections": self._sum("connections"),
            "swaps": self._sum("swaps_total"),
            "journal": {
                "behind_rows": self._persister.get("journal_behind_rows"),
                "last_commit_ms": self._persister.get("commit_last_ms"),
            },
            "processes": self._processes(),
            "rings": self._rings(),
            "counters": self._counters(),
        }

    def _sum(self, *names: str) -> int:
        return sum(worker.get(name) for worker in self._workers for name in names)

    def _exchange(self, rest_url: str) -> dict[str, Any]:
        clock = read_clock(self._source.segment)
        banned_until_ms = self._historian.get("banned_until_ms")
        return {
            "rest_url": rest_url,
            "offset_ms": None if clock is None else round(clock.now_ms() - time.time() * 1000, 3),
            "error_ms": None if clock is None else clock.error_ns / 1e6,
            "weight_used": self._historian.get("weight_used"),
            "weight_limit": self._historian.get("weight_limit"),
            "banned_until_ms": banned_until_ms or None,
            "weights": {name: self._historian.get(f"weight_{name}_total") for name in _PURPOSES},
        }

    def _rings(self) -> list[dict[str, Any]]:
        """Return how full the rings are in which a producer waits for its consumer."""
        layout, historian = self._source.segment.layout, self._blocks["historian", 0]
        rings = [
            ("inbox", worker, int(historian[lay.B_INBOX_TAILS + worker]), block[lay.B_CURSOR], layout.inbox_rows)
            for worker, block in enumerate(view.block for view in self._source.views)
        ]
        persister = self._blocks["persister", 0]
        filled = (int(historian[lay.B_TAIL]), persister[lay.B_CURSOR], layout.historian_log_rows)
        rings.append(("historian_log", 0, *filled))
        return [
            {"ring": ring, "index": index, "rows": max(0, tail - int(cursor)), "capacity": capacity}
            for ring, index, tail, cursor, capacity in rings
        ]

    def _counters(self) -> dict[str, Any]:
        """Return every counter of every role, as they stand in the segment."""
        return {
            "workers": [worker.as_dict() for worker in self._workers],
            "historian": self._historian.as_dict(),
            "persister": self._persister.as_dict(),
            "launcher": Counters(self._blocks["launcher", 0], counters.LAUNCHER).as_dict(),
        }

    def _symbols(self) -> dict[str, int]:
        table = self._source.table.rows()
        trading = table[table["status"] == lay.SYMBOL_TRADING]
        cuts = take_cuts(self._source.views)
        live = quiet = 0
        for worker, cut in enumerate(cuts):
            minutes = cut.rows[trading["local_slot"][trading["worker"] == worker], 0]
            is_live = minutes["state"] == lay.STATE_LIVE
            live += int(np.count_nonzero(is_live))
            quiet += int(np.count_nonzero(is_live & (minutes["trade_count"] == 0)))
        return {"trading": len(trading), "live": live, "quiet": quiet, "silent": self._sum("symbols_silent")}

    def _bars(self) -> dict[str, int]:
        return {
            "closed": self._sum("closed_total"),
            "confirmed": self._sum(*_CONFIRMED),
            "filled": self._sum("filled_total"),
            "partial": self._sum("partial_total"),
            "late": self._sum("late_total"),
            "corrected": self._sum("corrected_total"),
        }

    def _match_rate(self) -> dict[str, float | None]:
        rates: dict[str, float | None] = {}
        for moment in ("tick", "settle"):
            rates[moment] = self._traded_rate(f"match_{moment}")
        rates["aggtrade_only"] = _share(
            self._sum("match_aggtrade_equal_total"), self._sum("match_aggtrade_compared_total")
        )
        return rates

    def _traded_rate(self, prefix: str) -> float | None:
        """Return the share of minutes with trades that were right, provisional, confirmed already or neither.

        What was known to lack trades is a miss, and so is a minute that looked empty and was not.
        """
        whole = [f"{prefix}_{group}" for group in ("traded", "provisional")]
        confirmed = f"{prefix}_confirmed_total"
        equal = self._sum(confirmed, *(f"{group}_equal_total" for group in whole))
        compared = self._sum(confirmed, f"{prefix}_partial_compared_total", *(f"{g}_compared_total" for g in whole))
        looked_empty = self._sum(f"{prefix}_filled_compared_total") - self._sum(f"{prefix}_filled_equal_total")
        return _share(equal, compared + looked_empty)

    def _messages_per_s(self) -> float:
        now = (time.monotonic(), self._sum("messages_total"))
        if self._sample is None:
            self._sample = now
        if now[0] - self._sample[0] < _RATE_WINDOW_S:
            time.sleep(_RATE_WINDOW_S)  # a rate needs two looks with time between them
            now = (time.monotonic(), self._sum("messages_total"))
        (before_s, before), self._sample = self._sample, now
        return round((now[1] - before) / (now[0] - before_s), 1)

    def _processes(self) -> list[dict[str, Any]]:
        now_ns = time.monotonic_ns()
        rows = []
        for (role, index), block in self._blocks.items():
            if not int(block[lay.B_PID]):
                continue
            cpu = int(block[lay.B_CPU])
            rows.append(
                {
                    "role": role,
                    "index": index,
                    "pid": int(block[lay.B_PID]),
                    "cpu": cpu if cpu >= 0 else None,
                    "heartbeat_age_ms": (now_ns - int(block[lay.B_HEARTBEAT_NS])) // 1_000_000,
                    "restarts": max(0, int(block[lay.B_INCARNATION]) - 1),
                    "state": _role_state(int(block[lay.B_ROLE_STATE])),
                    "error": _last_error(block),
                }
            )
        return rows


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _role_state(state: int) -> str:
    return lay.ROLE_STATE_NAMES[state] if state < len(lay.ROLE_STATE_NAMES) else "unknown"


def _last_error(block: Any) -> str | None:
    length = int(block[lay.B_ERROR_LENGTH])
    if not 0 < length <= lay.ERROR_TEXT_BYTES:
        return None
    return bytes(block[lay.B_ERROR_TEXT :].tobytes()[:length]).decode(errors="replace")
