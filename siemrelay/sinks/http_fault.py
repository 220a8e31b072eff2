"""What went wrong on the way to an HTTP answer, and what to change: one sentence each."""

from __future__ import annotations

import socket
import ssl
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from siemrelay.errors import SinkHolds, SinkWaits
from siemrelay.sinks.servers import connect_reason
from siemrelay.sinks.tls import CUT_OFF, tls_fault

_FORBIDDEN_BY_PROXY: Final = frozenset({"403", "405"})


def proxy_for(url: str) -> str | None:
    """The variable of the environment whose proxy requests to that address go through, if any."""
    parts = urlsplit(url)
    proxies = getproxies()
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    for scheme in (parts.scheme, "all"):
        if proxies.get(scheme):
            return f"{scheme.upper()}_PROXY"
    return None


def proxy_advice(status: int, variable: str) -> str:
    """What to change about an answer of a proxy's own."""
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


def proxy_fault(said: str, url: str) -> SinkWaits | SinkHolds:
    """For what a proxy answered, in `said`, instead of opening a tunnel."""
    status, variable = said[:3], proxy_for(url) or "HTTPS_PROXY"
    if status == "407" or status in _FORBIDDEN_BY_PROXY:
        return SinkHolds(f"the proxy said {said}", advice=proxy_advice(int(status), variable))
    return SinkWaits(
        f"the proxy said {said}; can the proxy of {variable} reach the receiver, or does NO_PROXY "
        "have to name it?"
    )


def transport_fault(error: BaseException, url: str, *, shows_certificate: bool) -> Exception:
    """SinkWaits or SinkHolds for a request to `url` that had no answer.

    `shows_certificate`: whether this side has one for the TLS of the receiver.
    """
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    where = _place(url)
    for cause in chain:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, CUT_OFF):
            return tls_fault(cause, plainly="check the port, or write http:// for plain HTTP")
        if isinstance(cause, socket.gaierror):
            return SinkWaits(f"cannot resolve {where}: {cause.strerror}; check the name")
        if isinstance(cause, OSError) and "connect" in type(error).__name__.lower():
            return SinkWaits(f"cannot connect to {where}: {connect_reason(cause)}")
    said = str(error).rstrip(".") or "the connection broke before an answer"
    if "disconnected without" in said or "illegal" in said:
        # What a server that expects TLS does on plain HTTP, and one that speaks no HTTP at all.
        return SinkWaits(f"{said}; does it speak HTTP on this port, or is it TLS (https://)?")
    if url.startswith("https:") and not shows_certificate:
        # The alert that says so is lost where the receiver closes with our request unread.
        said += "; does it want a client certificate (`tls: {certificate: FILE, key: FILE}`)?"
        return SinkWaits(said)
    return SinkWaits(f"{said}; is {where} the receiver, and is it running?")


def _place(url: str) -> str:
    variable = proxy_for(url)
    place = urlsplit(url).netloc
    return f"{place} through the proxy of {variable}" if variable else place
