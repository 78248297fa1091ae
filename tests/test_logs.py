"""Log output: one line per event, repeats held back and counted."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from klshm import logs
from klshm.logs import RepeatFilter


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    """Put logging back as it was."""
    root, ours = logging.getLogger(), logging.getLogger("klshm")
    before = (list(root.handlers), root.level, ours.level)
    yield
    root.handlers[:], root.level, ours.level = before
    logging.captureWarnings(False)


def lines(level: str = "info", form: str = "text", role: str = "worker 2") -> tuple[io.StringIO, logging.Logger]:
    stream = io.StringIO()
    logs.configure(level, form, role, stream=stream)
    return stream, logging.getLogger("klshm.test")


def test_text_is_one_line_per_event() -> None:
    stream, logger = lines()
    logger.info("connected streams=%d url=%s", 3, "ws://x\ny")
    logger.debug("not shown")
    line = stream.getvalue()
    assert line.count("\n") == 1
    moment, level, rest = line.split(maxsplit=2)
    assert moment.endswith("Z") and len(moment) == len("2026-11-20T10:09:00.123Z")
    assert (level, rest) == ("info", "worker 2   connected streams=3 url=ws://x | y\n")


def test_json_is_one_object_per_line() -> None:
    stream, logger = lines("debug", "json", "historian")
    logger.debug("listing symbol=%s", "币安人生USDT")
    event = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "debug",
        "role": "historian",
        "logger": "klshm.test",
        "message": "listing symbol=币安人生USDT",
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_stays_on_the_line(form: str) -> None:
    stream, logger = lines("info", form)
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed")
    assert stream.getvalue().count("\n") == 1
    assert "ValueError: bad" in stream.getvalue()


def test_other_libraries_speak_from_warnings_on() -> None:
    stream, _ = lines("debug")
    logging.getLogger("aiohttp").info("not shown")
    logging.getLogger("aiohttp").warning("shown")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("a warning of Python's", UserWarning, stacklevel=1)
    assert "not shown" not in stream.getvalue()
    assert "shown" in stream.getvalue() and "a warning of Python's" in stream.getvalue()
    stream, _ = lines("error")
    logging.getLogger("aiohttp").warning("not shown")
    assert stream.getvalue() == ""


def test_configuring_again_replaces_what_was() -> None:
    first, _ = lines()
    second, logger = lines(role="persister")
    logger.info("hello")
    assert first.getvalue() == "" and "persister" in second.getvalue()


def record(at_s: float, message: str = "hole symbol=%s", argument: object = "BTCUSDT") -> logging.LogRecord:
    made = logging.LogRecord("klshm.test", logging.WARNING, "x.py", 1, message, (argument,), None)
    made.created = at_s
    return made


def test_repeats_are_held_back_and_counted() -> None:
    repeats = RepeatFilter(burst=2, window_s=10)
    passed = [repeats.filter(record(100 + i, argument=i)) for i in range(5)]
    assert passed == [True, True, False, False, False]
    assert repeats.filter(record(101, "other symbol=%s")), "another message has a window of its own"
    later = record(110)
    assert repeats.filter(later)
    assert logs.TextFormatter("x").format(later).endswith("hole symbol=BTCUSDT held_back=3")
    quiet = record(121)
    assert repeats.filter(quiet) and not hasattr(quiet, "held_back")


def test_a_clock_that_steps_back_holds_nothing_back_for_ever() -> None:
    repeats = RepeatFilter(burst=1, window_s=10)
    assert repeats.filter(record(1000))
    assert not repeats.filter(record(1001))
    assert repeats.filter(record(10))


def test_messages_without_end_do_not_fill_memory() -> None:
    repeats = RepeatFilter()
    for number in range(5000):
        repeats.filter(record(1.0, f"unique {number} %s"))
    assert len(repeats._series) <= 1024
