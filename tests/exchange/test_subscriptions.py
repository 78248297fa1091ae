"""The control messages: paced, bounded, matched by id."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.exchange.subscriptions import MAX_NAMES, MAX_STREAMS, PACE_S, Subscriptions


def answer(subscriptions: Subscriptions, request: bytes) -> None:
    assert subscriptions.take_reply(json.dumps({"result": None, "id": json.loads(request)["id"]}).encode())


def test_names_are_sent_in_order_in_batches() -> None:
    names = [f"s{i}usdt@aggTrade" for i in range(450)]
    subscriptions = Subscriptions(names)
    now_s, sent = 10.0, []
    while (request := subscriptions.next_request(now_s)) is not None:
        message = json.loads(request)
        assert message["method"] == "SUBSCRIBE" and len(message["params"]) <= MAX_NAMES
        sent += message["params"]
        assert subscriptions.next_request(now_s + PACE_S / 2) is None
        now_s += PACE_S
    assert sent == names
    assert subscriptions.next_at_s() is None


def test_request_is_json_with_raw_utf8() -> None:
    request = Subscriptions(["币安人生usdt@kline_1m"]).next_request(0.0)
    assert request is not None and "币安人生usdt@kline_1m".encode() in request
    assert json.loads(request) == {"method": "SUBSCRIBE", "params": ["币安人生usdt@kline_1m"], "id": 1}


def test_removing_comes_before_adding() -> None:
    subscriptions = Subscriptions([f"s{i}" for i in range(MAX_STREAMS)])
    now_s = 0.0
    while subscriptions.next_request(now_s) is not None:
        now_s += PACE_S
    subscriptions.remove(["s0", "never"])
    subscriptions.add(["new"])
    first, second = subscriptions.next_request(now_s), subscriptions.next_request(now_s + PACE_S)
    assert first is not None and json.loads(first)["method"] == "UNSUBSCRIBE" and json.loads(first)["params"] == ["s0"]
    assert second is not None and json.loads(second)["params"] == ["new"]


def test_one_stream_too_many_is_refused_here() -> None:
    subscriptions = Subscriptions([f"s{i}" for i in range(MAX_STREAMS)])
    with pytest.raises(ValueError, match="1025 streams on one connection, at most 1024"):
        subscriptions.add(["one more"])
    subscriptions.add(["s0"])  # already there
    assert len(subscriptions.wanted) == MAX_STREAMS


def test_added_and_removed_in_between_sends_nothing() -> None:
    subscriptions = Subscriptions()
    subscriptions.add(["a"])
    subscriptions.remove(["a"])
    assert subscriptions.next_request(0.0) is None and subscriptions.settled


def test_new_connection_sends_all_again() -> None:
    subscriptions = Subscriptions(["a", "b"])
    assert subscriptions.next_request(5.0) is not None
    assert subscriptions.unanswered
    subscriptions.restart()
    assert not subscriptions.unanswered and not subscriptions.settled
    request = subscriptions.next_request(5.0)
    assert request is not None and json.loads(request)["params"] == ["a", "b"]


def test_replies_are_matched_by_id() -> None:
    subscriptions = Subscriptions(["a"])
    request = subscriptions.next_request(7.0)
    assert request is not None
    assert subscriptions.oldest_unanswered_s() == 7.0
    assert not subscriptions.settled
    assert not subscriptions.take_reply(b'{"result":null,"id":99}')
    assert not subscriptions.take_reply(b'{"stream":"a","data":{"id":1}}')
    assert not subscriptions.take_reply(b'{"id":1,' + b" " * 5000 + b'"result":null}')
    assert not subscriptions.take_reply(b"\xff\xfe")
    answer(subscriptions, request)
    assert subscriptions.settled and subscriptions.oldest_unanswered_s() is None


def test_error_replies_are_kept() -> None:
    subscriptions = Subscriptions(["a"])
    subscriptions.next_request(0.0)
    assert subscriptions.take_reply(b'{"error":{"code":4,"msg":"Too many subscriptions"},"id":1}')
    assert subscriptions.take_reply(b'{"error":{"code":3,"msg":"Invalid JSON: expected value"},"id":null}')
    assert subscriptions.refused == [(4, "Too many subscriptions"), (3, "Invalid JSON: expected value")]
    assert subscriptions.settled  # asking again would be refused again


@given(st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from("abcdefgh"), max_size=5)), max_size=30))
def test_whatever_is_wanted_is_what_the_exchange_ends_with(steps: list[tuple[bool, set[str]]]) -> None:
    subscriptions, there, now_s = Subscriptions(), set[str](), 0.0
    for adding, names in steps:
        (subscriptions.add if adding else subscriptions.remove)(sorted(names))
        now_s += PACE_S
        if request := subscriptions.next_request(now_s):
            message = json.loads(request)
            params = set(message["params"])
            there = there | params if message["method"] == "SUBSCRIBE" else there - params
    while request := subscriptions.next_request(now_s := now_s + PACE_S):
        message = json.loads(request)
        params = set(message["params"])
        there = there | params if message["method"] == "SUBSCRIBE" else there - params
    assert there == set(subscriptions.wanted)
