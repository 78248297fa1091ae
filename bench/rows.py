"""The table: what is measured, what it shall reach, and which figure of which module tells.

A row holds two targets at most: an absolute one, which counts as missed only below nine tenths of
it by the best run (machines differ and disturb), and a ratio to a reference taken in the same run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


__all__ = ["EXTRA", "ROWS", "Row", "modules_of"]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: What it is called on the command line.
        what: For people.
        figure: Module and figure, `micro.kernel:batch_4096_ns`.
        unit: Of figure and target.
        better: Whether less or more is better.
        target: Bound of the figure; None: only the ratio counts.
        reference: Another figure, likewise; empty: none.
        ratio: Bound of figure / reference; None: it is only shown.
    """

    name: str
    what: str
    figure: str
    unit: str
    better: Literal["less", "more"] = "less"
    target: float | None = None
    reference: str = ""
    ratio: float | None = None

    @property
    def target_text(self) -> str:
        """Both targets, as the table prints them."""
        sign = "<=" if self.better == "less" else ">="
        parts = [f"{sign} {self.target:,g} {self.unit}"] if self.target is not None else []
        if self.ratio is not None:
            parts.append(f"{sign} {self.ratio:g} x")
        return " and ".join(parts) or "-"


ROWS: Final = (
    Row(
        "burst",
        "one worker, socket to published bars; plain: aiohttp, orjson, NumPy fields",
        *("scenario.burst:messages_per_s", "msg/s", "more", 500_000, "scenario.burst:plain_stack_per_s", 20),
    ),
    Row(
        "kernel",
        "one trade into six intervals, batches of 4096; fastest peer likewise",
        *("micro.kernel:batch_4096_ns", "ns", "less", 60, "peers.compare:fastest_ns", 0.2),
    ),
    Row(
        "latency",
        "socket to visible, 10,000 messages/s, median; bare blocking recv()",
        *("scenario.latency:klshm_p50_us", "us", "less", None, "scenario.latency:bare_p50_us", 1.25),
    ),
    Row(
        "latency-p99",
        "the same, 99th percentile",
        *("scenario.latency:klshm_p99_us", "us", "less", None, "scenario.latency:bare_p99_us", 1.5),
    ),
    Row(
        "busy-poll",
        "the same with busy_poll, median; without",
        *("scenario.latency:busy_poll_p50_us", "us", "less", None, "scenario.latency:klshm_p50_us", 0.5),
    ),
    Row(
        "wave",
        "closing wave, 150 symbols x 6 intervals, first store to last wake",
        "scenario.wave:wave_ms",
        "ms",
        "less",
        1,
    ),
    Row("amend", "one old minute amended, its whole column", "micro.amend:alone_us", "us", "less", 5),
    Row(
        "live-bytes",
        "one live record as bytes; LMDB get",
        "micro.live:live_bytes_us",
        "us",
        "less",
        0.5,
        "micro.live:lmdb_us",
    ),
    Row(
        "live-numbers",
        "one live record as numbers; SQLite",
        "micro.live:live_numbers_us",
        "us",
        "less",
        1.5,
        "micro.live:sqlite_us",
    ),
    Row(
        "cut",
        "exact cut of 600 x 6; memcpy of as much",
        "micro.live:cut_us",
        "us",
        "less",
        None,
        "micro.live:memcpy_us",
        2.5,
    ),
    Row(
        "wake",
        "waiting reader woken by futex, median; by sleep(1 ms)",
        "micro.wake:futex_p50_us",
        "us",
        "less",
        60,
        "micro.wake:poll_p50_us",
    ),
    Row(
        "journal",
        "3,600 rows durable in LMDB; as many bytes into a file, fdatasync",
        "micro.journal:wave_ms",
        "ms",
        "less",
        2,
        "micro.journal:fdatasync_ms",
    ),
    Row(
        "archive",
        "3,600 rows durable in SQLite, a table each; one plain table",
        "micro.archive:wave_ms",
        "ms",
        "less",
        60,
        "micro.archive:one_table_wave_ms",
    ),
    Row("bulk", "bulk into 3,600 tables", "micro.archive:bulk_rows_per_s", "rows/s", "more", 400_000),
    Row(
        "memory",
        "a worker of 150 symbols, proportional, without the segment",
        "scenario.engine:worker_mib",
        "MiB",
        "less",
        60,
    ),
    Row("segment", "segment for 1024 symbols", "scenario.engine:segment_1024_mib", "MiB", "less", 512),
    Row("segment-demo", "segment of the demo", "scenario.engine:segment_demo_mib", "MiB", "less", 64),
    Row(
        "restart",
        "launcher started after an ordered stop, to all bars served",
        "scenario.restart:stop_served_s",
        "s",
        "less",
        2,
    ),
    Row("worker-back", "a killed worker, to live again", "scenario.engine:worker_back_s", "s", "less", 0.5),
)

EXTRA: Final = (
    *(
        row
        for rate, title in ((1_000, "1k"), (50_000, "50k"))
        for row in (
            Row(
                f"latency-{title}",
                f"socket to visible, {rate:,} messages/s, median; bare blocking recv()",
                f"scenario.latency_rates:klshm_{rate}_p50_us",
                "us",
                reference=f"scenario.latency_rates:bare_{rate}_p50_us",
            ),
            Row(
                f"latency-{title}-p99",
                "the same, 99th percentile",
                f"scenario.latency_rates:klshm_{rate}_p99_us",
                "us",
                reference=f"scenario.latency_rates:bare_{rate}_p99_us",
            ),
            Row(
                f"busy-poll-{title}",
                "the same with busy_poll, median; without",
                f"scenario.latency_rates:busy_poll_{rate}_p50_us",
                "us",
                reference=f"scenario.latency_rates:klshm_{rate}_p50_us",
            ),
        )
    ),
    Row(
        "kernel-offline",
        "the same; fastest peer with all trades at once, no state",
        "micro.kernel:batch_4096_ns",
        "ns",
        reference="peers.compare:fastest_whole_ns",
    ),
    Row(
        "decode-trade",
        "aggTrade frame to event; orjson to Python numbers",
        "micro.decode:trade_ns",
        "ns",
        reference="micro.decode:trade_orjson_ns",
    ),
    Row(
        "decode-kline",
        "kline frame to event; orjson to Python numbers",
        "micro.decode:kline_ns",
        "ns",
        reference="micro.decode:kline_orjson_ns",
    ),
    Row(
        "publish",
        "one record under its lock; one NumPy store per field",
        "micro.publish:compiled_ns",
        "ns",
        reference="micro.publish:numpy_fields_ns",
    ),
    Row("swap", "halves published, all of 600 symbols changed", "micro.swap:swap_600_us", "us"),
    Row("ring", "log entry written", "micro.ring:append_ns", "ns"),
    Row(
        "live-bar",
        "Reader.live: checks, names, a Bar; SQLite",
        "micro.live:live_bar_us",
        "us",
        reference="micro.live:sqlite_us",
    ),
    Row(
        "snapshot",
        "Reader.snapshot of 600 x 6; memcpy of as much",
        "micro.live:snapshot_us",
        "us",
        reference="micro.live:memcpy_us",
    ),
    Row(
        "readers",
        "burst with 8 readers of snapshots; without",
        "scenario.readers:messages_per_s_8",
        "msg/s",
        "more",
        reference="scenario.readers:messages_per_s_0",
    ),
    Row(
        "restart-killed",
        "launcher started after kill -9 of everything, to all bars served",
        "scenario.restart:kill_served_s",
        "s",
    ),
    Row(
        "backfill", "klshm backfill of 20 symbols from the simulator", "scenario.backfill:rows_per_s", "rows/s", "more"
    ),
)
"""Rows without a target: shown to compare."""


def modules_of(rows: tuple[Row, ...]) -> list[str]:
    """Return the modules that rows need, each once, in order."""
    figures = [figure for row in rows for figure in (row.figure, row.reference) if figure]
    return list(dict.fromkeys(figure.partition(":")[0] for figure in figures))
