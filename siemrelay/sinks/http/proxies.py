"""The HTTP proxies of the environment: which one a request takes, and faults in their variables.

Messages show a proxy's address without user and password.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from siemrelay.core.errors import SinkHolds, SinkWaits

_FORBIDDEN: Final = frozenset({"403", "405"})

# The order in which a variable is looked for, after the one of the request's own scheme.
_SCHEMES: Final = ("http", "https", "all")


class Proxy(NamedTuple):
    """A proxy: the variable that names it, and its host and port."""

    variable: str
    address: str

    def __str__(self) -> str:
        return f"the proxy of {self.variable} ({self.address})"


def proxy_for(url: str) -> Proxy | None:
    """The proxy for requests to that address, if any."""
    parts = urlsplit(url)
    proxies = getproxies()
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    for scheme in (parts.scheme, "all"):
        if proxy := proxies.get(scheme):
            return Proxy(_variable(scheme), _whole(proxy).partition("://")[2].rpartition("@")[2])
    return None


def unusable_proxies() -> list[SinkHolds]:
    """The faults in the variables that a person must fix before any request can be made."""
    proxies = getproxies()
    return [
        SinkHolds(
            f"{variable} {trouble}",
            advice=f"set {variable}=http://PROXY:PORT where the relay is started, or unset it",
        )
        for scheme in _SCHEMES
        if (proxy := proxies.get(scheme)) and (trouble := _trouble(_whole(proxy)))
        for variable in (_variable(scheme),)
    ]


def _variable(scheme: str) -> str:
    # Lower case wins where both are set (urllib.request.getproxies_environment).
    name = f"{scheme}_proxy"
    return name if os.environ.get(name) else name.upper()


def _whole(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _trouble(proxy: str) -> str | None:
    """The fault of a proxy's address, without the address: it may hold a password."""
    import httpx2  # slow to import, and needed only where there is a proxy

    if proxy.lower().startswith("socks"):
        return "names a SOCKS proxy; this relay supports HTTP proxies only"
    try:
        parts = urlsplit(proxy)
        httpx2.Proxy(proxy)
        usable = bool(parts.hostname) and parts.port != 0
    except (httpx2.InvalidURL, ValueError):
        usable = False
    return None if usable else "is not a proxy's address"


def proxy_advice(status: int, proxy: Proxy) -> str:
    """Advice for an answer of the proxy itself."""
    variable = proxy.variable
    if status == 407:
        return (
            f"the proxy of {variable} wants credentials: write {variable}="
            "http://USER:PASSWORD@PROXY:PORT where the relay is started, or name the receiver in "
            "NO_PROXY"
        )
    return (
        f"let the proxy of {variable} allow the receiver, or name the receiver in NO_PROXY where "
        "the relay is started"
    )


def tunnel_error(answer: str, proxy: Proxy) -> SinkWaits | SinkHolds:
    """The error for a proxy that answered `STATUS REASON` instead of opening a tunnel."""
    status = answer[:3]
    if status == "407" or status in _FORBIDDEN:
        return SinkHolds(f"{proxy} answered {answer}", advice=proxy_advice(int(status), proxy))
    return SinkWaits(
        f"{proxy} answered {answer}; can the proxy of {proxy.variable} reach the receiver, or does "
        "NO_PROXY have to name it?"
    )
