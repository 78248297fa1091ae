"""What the launcher says: one block when all is live, one line a minute."""

from __future__ import annotations

from klshm.config import Config
from klshm.shm import layout as lay
from klshm.shm.counters import HISTORIAN, PERSISTER, WORKER, Counters
from klshm.shm.segment import Segment


__all__ = ["live_block", "status_line"]


def live_block(config: Config, segment: Segment) -> str:
    """Return the block that is shown once all workers are live."""
    layout = segment.layout
    workers = [Counters(segment.block(layout.partition_offset(i)), WORKER) for i in range(layout.workers)]
    symbols = sum(worker.get("symbols") for worker in workers)
    name = config.instance
    return "\n".join(
        (
            f"klshm {name} is live: {symbols} symbols, {layout.workers} workers, {layout.intervals} intervals",
            f"  segment   {segment.path}  {layout.total_bytes / 2**20:.0f} MiB",
            f"  exchange  {config.exchange.rest_url}",
            "  try, in another shell:",
            f"    python -m klshm status --instance {name}",
            f"    python -m klshm history BTCUSDT 1m --limit 5 --instance {name}",
            f"    python -m klshm top --instance {name}",
            "  stop with Ctrl-C",
        )
    )


def status_line(segment: Segment) -> str:
    """Return one line that says how the engine is doing."""
    layout = segment.layout
    totals: dict[str, int] = {}
    for index in range(layout.workers):
        for name, value in Counters(segment.block(layout.partition_offset(index)), WORKER).as_dict().items():
            totals[name] = max(totals.get(name, 0), value) if name.startswith("lag_") else totals.get(name, 0) + value
    historian = Counters(segment.block(layout.historian_offset), HISTORIAN)
    persister = Counters(segment.block(layout.persister_offset), PERSISTER)
    states = [
        lay.ROLE_STATE_NAMES[int(segment.block(layout.partition_offset(i))[lay.B_ROLE_STATE])]
        for i in range(layout.workers)
    ]
    confirmed = sum(totals[name] for name in totals if name.startswith("confirmed_"))
    return (
        f"status workers={','.join(states)} symbols={totals['symbols']} messages={totals['messages_total']} "
        f"closed={totals['closed_total']} confirmed={confirmed} holes={totals['holes_total']} "
        f"lag_p99_ms={totals['lag_p99_us'] / 1000:.0f} weight={historian.get('weight_used')} "
        f"journal_behind={persister.get('journal_behind_rows')} archived={persister.get('archive_rows_total')}"
    )
