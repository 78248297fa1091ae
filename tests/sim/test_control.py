from __future__ import annotations

from klshm.sim.faults import PARAMETERS
from tests.sim.client import Session, client, fault
from tests.support.exchange import exchange


def test_faults_are_told_started_and_refused_while_it_runs() -> None:
    async def body(session: Session) -> None:
        async with session.get("/sim/faults") as response:
            assert await response.json() == PARAMETERS
        for parameters, message in (
            ({"name": "nonsense"}, "expected one of close, freeze"),
            ({"name": "freeze"}, "without seconds"),
            ({"name": "freeze", "seconds": "x"}, "expected a number"),
            ({"name": "close", "who": 1}, "found parameter 'who'"),
            ({"name": "delist_symbol", "symbol": "NOPE"}, "found no symbol 'NOPE'"),
        ):
            status, answer = await fault(session, **parameters)
            assert (status, answer["ok"]) == (400, False) and message in answer["error"]
        for raw in (b"[]", b"{", b""):
            async with session.post("/sim/faults", data=raw) as response:
                assert response.status == 400 and not (await response.json())["ok"]
        assert (await fault(session, name="mute", stream="kline", seconds=600))[1]["ok"]
        async with session.get("/sim/state") as response:
            state = (await response.json())["faults"]
        assert state["active"] == ["mute"] and state["started"] == {"mute": 1}

    with exchange("--symbols", "1", "--rate", "1") as market:
        client(market.port, body)
