"""Which segments are removed, and which are left."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from klshm.run.retire import retire
from klshm.shm import layout as lay
from tests.support.segments import segment


@pytest.mark.parametrize(
    ("state", "persister", "worker", "is_left"),
    [
        (lay.STATE_STARTING, lay.ROLE_ABSENT, lay.ROLE_ABSENT, False),  # no role ever ran
        (lay.STATE_DRAINING, lay.ROLE_STOPPED, lay.ROLE_STOPPED, False),
        (lay.STATE_DRAINING, lay.ROLE_STOPPED, lay.ROLE_ABSENT, False),  # it never got so far
        (lay.STATE_DRAINING, lay.ROLE_DRAINING, lay.ROLE_STOPPED, True),  # the disk did not take all
        (lay.STATE_DRAINING, lay.ROLE_LIVE, lay.ROLE_STOPPED, True),  # killed
        (lay.STATE_DRAINING, lay.ROLE_STOPPED, lay.ROLE_LIVE, True),  # killed between writing and showing
        (lay.STATE_SERVING, lay.ROLE_LIVE, lay.ROLE_LIVE, True),  # an error of ours ended the launcher
    ],
)
def test_what_no_disk_has_is_left(
    state: int,
    persister: int,
    worker: int,
    is_left: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with segment(tmp_path, monkeypatch) as made:
        made.words[lay.H_STATE] = state
        made.block(made.layout.persister_offset)[lay.B_ROLE_STATE] = persister
        for index in range(made.layout.workers):
            made.block(made.layout.partition_offset(index))[lay.B_ROLE_STATE] = worker
        with caplog.at_level(logging.ERROR):
            retire(made)
        assert int(made.words[lay.H_STATE]) == lay.STATE_CLOSED
        assert Path(made.path).exists() == is_left
        assert ("the next start takes it" in caplog.text) == is_left
