"""What went wrong on the way to an HTTP answer, and what to change: one sentence each."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from siemrelay.core.errors import SinkWaits
from siemrelay.core.options import show_seconds
from siemrelay.net.tls_client import CUT_OFF, tls_fault
from siemrelay.sinks.http.proxies import Proxy, proxy_for
from siemrelay.sinks.stream.failover import connect_reason


def no_answer(url: str, timeout_s: float) -> SinkWaits:
    """For a request to `url` that was not answered in time."""
    place, within = urlsplit(url).netloc, f"within {show_seconds(timeout_s)} (`timeout`)"
    if (proxy := proxy_for(url)) is not None:
        return SinkWaits(
            f"no answer from {place} through {proxy} {within}; is the proxy alive, and can it "
            "reach the receiver?"
        )
    return SinkWaits(
        f"no answer from {place} {within}; is that the receiver's port, and is it overloaded?"
    )


def transport_fault(error: BaseException, url: str, *, shows_certificate: bool) -> Exception:
    """SinkWaits or SinkHolds for a request to `url` that had no answer.

    `shows_certificate`: whether this side has one for the TLS of the receiver.
    """
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    proxy, place = proxy_for(url), urlsplit(url).netloc
    for cause in chain:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, CUT_OFF):
            return tls_fault(cause, plainly="check the port, or write http:// for plain HTTP")
        if isinstance(cause, OSError) and "connect" in type(error).__name__.lower():
            return _not_connected(cause, place, proxy)
    said = str(error).rstrip(".") or "the connection broke before an answer"
    if proxy is not None:
        return SinkWaits(f"{said}; the request went through {proxy}: can it reach {place}?")
    if "disconnected without" in said or "illegal" in said:
        # What a server that expects TLS does on plain HTTP, and one that speaks no HTTP at all.
        return SinkWaits(f"{said}; does it speak HTTP on this port, or is it TLS (https://)?")
    if url.startswith("https:") and not shows_certificate:
        # The alert that says so is lost where the receiver closes with our request unread.
        said += "; does it want a client certificate (`tls: {certificate: FILE, key: FILE}`)?"
        return SinkWaits(said)
    return SinkWaits(f"{said}; is {place} the receiver, and is it running?")


def _not_connected(cause: OSError, place: str, proxy: Proxy | None) -> SinkWaits:
    unknown = isinstance(cause, socket.gaierror)
    if proxy is None:
        if unknown:
            return SinkWaits(f"cannot resolve {place}: {cause.strerror}; check the name")
        return SinkWaits(f"cannot connect to {place}: {connect_reason(cause)}")
    trying = "resolve" if unknown else "connect to"
    # The system's words; what `connect_reason` asks after them is about the receiver.
    reason = cause.strerror if unknown else connect_reason(cause).partition(";")[0]
    return SinkWaits(
        f"cannot {trying} {proxy}: {reason}; is the proxy running there? Correct {proxy.variable}, "
        "or name the receiver in NO_PROXY, where the relay is started"
    )
