"""Which instance a command that needs no running engine is about, and its configuration."""

from __future__ import annotations

import argparse
import os
from typing import Any

from klshm.config import Config
from klshm.config.settings import from_json, load
from klshm.errors import KlshmError
from klshm.read.attach import running_instances
from klshm.shm.segment import open_segment


__all__ = ["add_configuration", "configured"]


def add_configuration(parser: Any) -> None:
    """Declare --config and --set."""
    parser.add_argument("--config", metavar="FILE", help="configuration file (default: the running engine's own)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a key")


def configured(options: argparse.Namespace) -> Config:
    """Return the configuration that is meant.

    That is the one given, else the one that the named or only running engine carries in its segment (also
    one that crashed), else the default one.

    Raises:
        ConfigError: If what is given cannot be used.
    """
    named = options.instance or os.environ.get("KLSHM_INSTANCE")
    if not options.config and not options.set and not os.environ.get("CONFIG_PATH"):
        running = [named] if named else running_instances()
        carried = _carried(running[0]) if len(running) == 1 else None
        if carried is not None:
            return carried
    return load(options.config, [*options.set, *([f"instance={named}"] if named else [])])


def _carried(instance: str) -> Config | None:
    try:
        segment = open_segment(instance)
        try:
            return from_json(segment.config_bytes())
        finally:
            segment.close()
    except KlshmError:
        return None
