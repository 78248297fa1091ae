"""The match rates: what a bar said at its tick and at its settle, against the exchange's own."""

from __future__ import annotations

import pytest

from tests.core.feed import Feed


GROUPS = ("traded", "filled", "partial", "provisional")


def begun() -> Feed:
    """Minute 0 began with a trade that an official frame has measured, so that minute 1 is known from its start."""
    feed = Feed()
    feed.trade(1, 10, 10, 4, 50.0)
    feed.frame(10, 4, 1)
    feed.frame(10, 4, 1, final=True, sent_s=60)
    feed.tick(1)
    feed.settle(1)
    return feed


def told(feed: Feed, moment: str) -> dict[str, tuple[int, int]]:
    """Return compared and equal of every class that has any."""
    found = {
        group: (
            feed.count(f"match_{moment}_{group}_compared_total"),
            feed.count(f"match_{moment}_{group}_equal_total"),
        )
        for group in GROUPS
    }
    return {group: pair for group, pair in found.items() if pair != (0, 0)}


def final(feed: Feed, v: float = 5, n: int = 1) -> None:
    feed.frame(11, v, n, first=11, minute=1, final=True)


@pytest.mark.parametrize("moment", ["tick", "settle", "later"])
def test_a_bar_is_compared_at_the_moments_before_it_was_confirmed(moment: str) -> None:
    feed = begun()
    before = {m: feed.count(f"match_{m}_confirmed_total") for m in ("tick", "settle")}
    feed.trade(2, 11, 11, 5, 70)
    if moment == "tick":
        final(feed)
    feed.tick(2)
    if moment == "settle":
        final(feed)
    feed.settle(2)
    final(feed)
    confirmed = {m: feed.count(f"match_{m}_confirmed_total") - before[m] for m in ("tick", "settle")}
    assert confirmed == {"tick": int(moment == "tick"), "settle": int(moment != "later")}
    assert told(feed, "tick").get("provisional", (0, 0)) == ((0, 0) if moment == "tick" else (1, 1))
    assert sum(pair[0] for pair in told(feed, "settle").values()) == int(moment == "later")


def test_what_was_wrong_at_its_settle_stays_a_miss() -> None:
    feed = begun()
    feed.trade(2, 11, 11, 5, 70)
    feed.tick(2)
    feed.settle(2)
    feed.frame(12, 8, 2, first=11, minute=1, final=True)
    assert list(told(feed, "settle").values()) == [(1, 0)]


def test_minutes_without_trades_are_a_class_of_their_own() -> None:
    feed = begun()
    before = feed.count("match_settle_confirmed_total")
    feed.tick(2)
    feed.settle(2)
    feed.frame(-1, 0, 0, first=-1, minute=1, final=True)
    assert told(feed, "settle") == {"filled": (1, 1)}
    assert feed.count("match_settle_confirmed_total") == before
