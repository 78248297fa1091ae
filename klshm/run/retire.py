"""The end of a segment: removed when everything in it is stored, else left for the next start."""

from __future__ import annotations

import logging

from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["retire"]

_log = logging.getLogger(__name__)


def retire(segment: Segment) -> None:
    """Close a segment whose roles have ended, and remove it unless it holds what no disk has.

    Args:
        segment: The segment; this process made it.
    """
    layout = segment.layout
    served = int(segment.words[lay.H_STATE]) in (lay.STATE_SERVING, lay.STATE_DRAINING)
    # A worker that was killed may have written more than it had shown the persister.
    roles = (layout.persister_offset, *(layout.partition_offset(worker) for worker in range(layout.workers)))
    ended = all(int(segment.block(at)[lay.B_ROLE_STATE]) in (lay.ROLE_ABSENT, lay.ROLE_STOPPED) for at in roles)
    segment.words[lay.H_STATE] = lay.STATE_CLOSED
    if served and not ended:
        _log.error(
            "not all that closed could be stored; the segment stays, and the next start takes it path=%s", segment.path
        )
        return
    segment.unlink()
