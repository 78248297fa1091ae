"""Which proxy a connection goes through: the configured one, else the environment's, else none."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from klshm.errors import ConfigError


__all__ = ["SCHEMES", "proxy_for"]

SCHEMES: Final = ("http", "https", "socks4", "socks5")
_SECURE: Final = ("https", "wss")


def proxy_for(url: str, configured: str = "", environment: Mapping[str, str] | None = None) -> str | None:
    """Return the proxy to reach an address through, or None.

    A configured proxy is used for everything. Without one, HTTPS_PROXY (for https and wss),
    HTTP_PROXY (for http and ws) and ALL_PROXY count, unless NO_PROXY names the host; loopback
    addresses never go through a proxy of the environment.

    Args:
        url: Address to be reached, http(s) or ws(s).
        configured: `exchange.proxy`, empty for none.
        environment: Variables to look into; None: the process's own.

    Raises:
        ConfigError: If the proxy's scheme is not one that can be used.
    """
    if configured:
        return _checked(configured, "exchange.proxy")
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host):
        return None
    variables = _proxies(os.environ if environment is None else environment)
    if _is_exempt(host, variables.get("no", "")):
        return None
    own = "https" if parts.scheme in _SECURE else "http"
    found = variables.get(own) or variables.get("all")
    return _checked(found, f"{own.upper()}_PROXY or ALL_PROXY") if found else None


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the `..._proxy` variables by what stands before, lower case winning over upper case."""
    found: dict[str, str] = {}
    for name, value in sorted(environment.items()):  # upper case sorts first
        key = name.lower()
        if key.endswith("_proxy") and value:
            found[key.removesuffix("_proxy")] = value
    return found


def _checked(proxy: str, source: str) -> str:
    scheme, separator, rest = proxy.partition("://")
    if not separator:
        scheme, rest = "http", proxy  # curl's reading of a bare host:port
    if scheme == "socks5h":
        scheme = "socks5"  # names are resolved by the proxy in any case
    if scheme not in SCHEMES or not urlsplit(f"{scheme}://{rest}").hostname:
        raise ConfigError(
            f"{source} = {_without_password(proxy)!r}: expected {', '.join(f'{s}://host:port' for s in SCHEMES)}; "
            "correct it, or leave it empty"
        )
    return f"{scheme}://{rest}"


def _without_password(proxy: str) -> str:
    head, at, tail = proxy.rpartition("@")
    return f"...@{tail}" if at and head else proxy


def _is_exempt(host: str, no_proxy: str) -> bool:
    """Return whether NO_PROXY names the host: "*", the host itself or a domain above it."""
    names = [name.strip().lstrip(".").lower() for name in no_proxy.split(",")]
    return any(name == "*" or (name and (host == name or host.endswith(f".{name}"))) for name in names)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
