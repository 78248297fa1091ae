from __future__ import annotations

import json

import pytest

from klshm.sim.hub import websocket_frame
from klshm.sim.protocol import MAX_STREAMS, Close, Session, TokenBucket, route_serves


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        ('{"method":"SUBSCRIBE","params":["btcusdt@aggTrade"],"id":1}', '{"result":null,"id":1}'),
        ('{"method":"SUBSCRIBE","params":["BTCUSDT@nonsense"],"id":"a-b"}', '{"result":null,"id":"a-b"}'),
        ('{"method":"UNSUBSCRIBE","params":["never@was"],"id":312}', '{"result":null,"id":312}'),
        ('{"method":"LIST_SUBSCRIPTIONS","id":3}', '{"result":[],"id":3}'),
        ('{"method":"GET_PROPERTY","params":["combined"],"id":2}', '{"result":false,"id":2}'),
        ('{"method":"SET_PROPERTY","params":["combined",true],"id":5}', '{"result":null,"id":5}'),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":5}', "1 Invalid value type: expected Boolean"),
        ('{"method":"GET_PROPERTY","params":["other"],"id":5}', "0 Unknown property"),
        ('{"method":"GET_PROPERTY","params":[7],"id":5}', "2 Invalid request: property name must be a string"),
        ('{"method":"GET_PROPERTY","params":["combined",1],"id":5}', "2 Invalid request: too many parameters"),
        ('{"method":"SUBSCRIBE","params":[],"id":5}', "2 Invalid request: streams must have non-zero length"),
        ('{"method":"SUBSCRIBE","params":["a@b"]}', "2 Invalid request: request ID must be an unsigned integer"),
        (
            '{"method":"SUBSCRIBE","params":["a@b"],"id":-1}',
            "2 Invalid request: request ID must be an unsigned integer",
        ),
        ('{"id":1}', "2 Invalid request: missing field `method` at line 1 column 8"),
        ('{"method":"X","id":1}', "2 Invalid request: unknown variant `X`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`"),
        ("{", "3 Invalid JSON: expected value at line 1 column"),
        ("7", "3 Invalid JSON: expected value at line 1 column 1"),
    ],
)
def test_replies(sent: str, reply: str) -> None:
    answer, *_ = Session(False).handle(sent)
    if reply.startswith("{"):
        assert answer.decode() == reply
    else:
        error = json.loads(answer)["error"]
        assert f"{error['code']} {error['msg']}".startswith(reply)


def test_subscriptions_are_listed_in_order_and_names_kept_as_sent() -> None:
    session = Session(True)
    names = ["币安人生usdt@kline_1m", "btcusdt@aggTrade", "BTCUSDT@aggTrade"]
    _, fresh, _, _ = session.handle(json.dumps({"method": "SUBSCRIBE", "params": [*names, names[0]], "id": 1}))
    assert fresh == names
    _, _, dropped, _ = session.handle(json.dumps({"method": "UNSUBSCRIBE", "params": [names[1], "x@y"], "id": 1}))
    assert dropped == [names[1]]
    assert json.loads(session.handle('{"method":"LIST_SUBSCRIPTIONS","id":3}')[0])["result"] == [names[0], names[2]]


def test_the_1025th_stream_closes() -> None:
    session = Session(True)
    session.subscribe([f"s{n}@aggTrade" for n in range(MAX_STREAMS)])
    reply, fresh, _, close = session.handle('{"method":"SUBSCRIBE","params":["one@more"],"id":9}')
    assert json.loads(reply) == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 9}
    assert fresh == [] and close == Close(1008, "Invalid request")


def test_bursts_of_15_and_10_a_second() -> None:
    bucket = TokenBucket()
    assert [bucket.take(1000) for _ in range(16)] == [True] * 15 + [False]
    assert [bucket.take(2000) for _ in range(11)] == [True] * 10 + [False]


@pytest.mark.parametrize(
    ("route", "stream", "served"),
    [
        ("market", "btcusdt@aggTrade", True),
        ("market", "!miniTicker@arr", True),
        ("market", "btcusdt_perpetual@continuousKline_1m", True),
        ("market", "btcusdt@trade", False),
        ("public", "btcusdt@trade", True),
        ("public", "btcusdt@kline_1m", False),
        ("", "btcusdt@kline_1m", False),
        ("", "btcusdt@trade", True),
        ("private", "btcusdt@aggTrade", False),
    ],
)
def test_routes(route: str, stream: str, served: bool) -> None:
    assert route_serves(route, stream) is served


@pytest.mark.parametrize(("size", "head"), [(5, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_frame_heads(size: int, head: int) -> None:
    frame = websocket_frame(b"x" * size)
    assert len(frame) == size + head and frame[0] == 0x81
