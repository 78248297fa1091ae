"""Which proxy is taken."""

from __future__ import annotations

import pytest

from klshm.errors import ConfigError
from klshm.exchange.proxy import proxy_for


REST = "https://fapi.binance.com"
STREAM = "wss://fstream.binance.com/market/stream"


@pytest.mark.parametrize(
    ("url", "configured", "environment", "expected"),
    [
        (REST, "", {}, None),
        (REST, "http://10.0.0.1:1080", {}, "http://10.0.0.1:1080"),
        (REST, "127.0.0.1:1080", {}, "http://127.0.0.1:1080"),
        (REST, "socks5h://u:p@h:1", {}, "socks5://u:p@h:1"),
        (REST, "socks5://h:1", {"HTTPS_PROXY": "http://other:1"}, "socks5://h:1"),
        ("http://127.0.0.1:9", "socks5://h:1", {}, "socks5://h:1"),
        (REST, "", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        (STREAM, "", {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "http://low:1"),
        (STREAM, "", {"ALL_PROXY": "socks5://p:1"}, "socks5://p:1"),
        (STREAM, "", {"HTTP_PROXY": "http://p:1"}, None),
        ("ws://sim.lan:9", "", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("ws://127.0.0.1:9", "", {"ALL_PROXY": "http://p:1"}, None),
        ("http://[::1]:9", "", {"ALL_PROXY": "http://p:1"}, None),
        ("http://localhost:9", "", {"ALL_PROXY": "http://p:1"}, None),
        (REST, "", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x.org, .binance.com"}, None),
        (REST, "", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        (REST, "", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ance.com"}, "http://p:1"),
        (REST, "", {"HTTPS_PROXY": ""}, None),
    ],
)
def test_proxy_for(url: str, configured: str, environment: dict[str, str], expected: str | None) -> None:
    assert proxy_for(url, configured, environment) == expected


def test_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert proxy_for(REST) == "http://p:1"


@pytest.mark.parametrize("proxy", ["ftp://h:1", "http://", "socks6://user:secret@h:1"])
def test_impossible_proxy_is_refused_without_its_password(proxy: str) -> None:
    with pytest.raises(ConfigError, match=r"exchange\.proxy = ") as caught:
        proxy_for(REST, proxy)
    assert "secret" not in str(caught.value)
