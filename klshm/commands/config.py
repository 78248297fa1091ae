"""`config`: what is in force, why, and whether a file is right. Needs no running engine."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from klshm.commands.output import print_json, print_line
from klshm.config.keys import Key, keys
from klshm.config.settings import Settings, render_default, resolve, to_json
from klshm.config.toml import render_value, type_words
from klshm.errors import ConfigError
from klshm.read.attach import attach


__all__ = ["add"]


def add(nouns: Any) -> None:
    """Declare the command."""
    config = nouns.add_parser("config", help="the configuration: show, explain, check, default")
    verbs = config.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, run, words in (
        ("show", _show, "what is in force: files, environment and options, or a running engine's"),
        ("explain", _explain, "every key with its value, where that comes from, and what it means"),
        ("check", _check, "whether the configuration can be used"),
        ("default", _default, "the shipped file, every key commented out"),
    ):
        parser = verbs.add_parser(verb, help=words)
        parser.set_defaults(run=run)
        parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="for programs")
        parser.add_argument("--instance", default=argparse.SUPPRESS, help="name of the engine")
        if verb != "default":
            parser.add_argument("--config", metavar="FILE", help="instead of configs/klshm.toml")
            parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
        if verb == "show":
            parser.add_argument("--running", action="store_true", help="the one a running engine was started with")
        if verb == "explain":
            parser.add_argument("key", nargs="?", help="one key, such as run.workers, or one section")


def _resolve(options: argparse.Namespace) -> Settings:
    overrides = list(options.overrides)
    if options.instance:
        overrides.append(f"instance={options.instance}")
    return resolve(options.config, overrides)


def _show(options: argparse.Namespace) -> int:
    if options.running:
        with attach(options.instance) as reader:
            config = reader.config
    else:
        config = _resolve(options).config
    if options.json:
        print_json(json.loads(to_json(config)))
        return 0
    print_line(f"instance = {render_value(config.instance)}")
    for item in dataclasses.fields(config):
        section = getattr(config, item.name)
        if dataclasses.is_dataclass(section):
            print_line(f"\n[{item.name}]")
            for key in dataclasses.fields(section):
                print_line(f"{key.name} = {render_value(getattr(section, key.name))}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    settings = _resolve(options)
    wanted = [key for key in keys().values() if options.key in (None, key.path, key.section)]
    if not wanted:
        raise ConfigError(f"unknown key {options.key}, expected section.key; list them with `config explain`")
    rows = [_explained(key, settings) for key in wanted]
    if options.json:
        print_json(rows)
        return 0
    for row in rows:
        print_line(f"{row['key']} = {render_value(row['value'])}   ({row['source']})")
        print_line(f"    {row['meaning']}; {row['type']}{', ' + row['limit'] if row['limit'] else ''}")
        print_line(f"    default {render_value(row['default'])}, variable {row['variable']}")
    return 0


def _explained(key: Key, settings: Settings) -> dict[str, Any]:
    holder = getattr(settings.config, key.section) if key.section else settings.config
    return {
        "key": key.path,
        "value": getattr(holder, key.name),
        "source": settings.sources.get(key.path, "default"),
        "default": key.default,
        "meaning": key.meaning,
        "type": type_words(key.kind),
        "limit": key.limit.expected,
        "variable": key.variable,
    }


def _check(options: argparse.Namespace) -> int:
    settings = _resolve(options)
    read = str(settings.file) if settings.file else None
    if options.json:
        print_json({"ok": True, "file": read, "changed": dict(settings.sources)})
    else:
        print_line(f"ok: {read or 'no file, defaults'}, {len(settings.sources)} keys differ from the defaults")
    return 0


def _default(options: argparse.Namespace) -> int:
    if options.json:
        print_json({key.path: key.default for key in keys().values()})
    else:
        sys.stdout.write(render_default())
    return 0
