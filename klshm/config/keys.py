"""The settings as a list: every key with its type, default, meaning and limit.

The dataclasses of `klshm.config` are the only place where keys are declared; loading, explaining
and the shipped file all walk this list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from klshm.config.limits import Limit
from klshm.config.schema import Config
from klshm.config.toml import render_value


__all__ = ["Key", "build", "keys", "render_default", "sections"]


@dataclass(frozen=True)
class Key:
    """One setting: where it belongs and what it may be."""

    section: str
    name: str
    kind: Any
    default: Any
    meaning: str
    limit: Limit

    @property
    def path(self) -> str:
        """Name as written in messages and after `--set`."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "KLSHM_" + self.path.replace(".", "__").upper()


def keys() -> dict[str, Key]:
    """Return all settings by path, in the order of the shipped file."""
    found: dict[str, Key] = {}
    for section, owner in [("", Config), *sections().items()]:
        hints = get_type_hints(owner)
        for item in dataclasses.fields(owner):
            if "meaning" in item.metadata:
                default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
                meta = item.metadata
                key = Key(section, item.name, hints[item.name], default, meta["meaning"], meta["limit"])
                found[key.path] = key
    return found


def sections() -> dict[str, Any]:
    """Return the sections of the configuration: name to dataclass."""
    hints = get_type_hints(Config)
    return {item.name: hints[item.name] for item in dataclasses.fields(Config) if "meaning" not in item.metadata}


def build(values: Mapping[str, Any]) -> Config:
    """Return the configuration that holds these values, given by path for every key."""
    built = {
        name: owner(**{item.name: values[f"{name}.{item.name}"] for item in dataclasses.fields(owner)})
        for name, owner in sections().items()
    }
    return Config(instance=values["instance"], **built)


def render_default() -> str:
    """Return the text of the shipped configuration file: every key commented out, with its meaning."""
    lines = [
        "# Configuration of klshm. Every key stands here with its default, commented out: remove the",
        "# '#' of those you change. Stronger than this file: KLSHM_<SECTION>__<KEY> in the environment,",
        "# and --set section.key=value. `python -m klshm config explain` says what is in force and why.",
    ]
    section = None
    for key in keys().values():
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"] if section else [""]
        limit = f" ({key.limit.expected})" if key.limit.expected and key.kind in (int, float) else ""
        lines += [f"# {key.meaning}{limit}", f"# {key.name} = {render_value(key.default)}"]
    return "\n".join(lines) + "\n"
