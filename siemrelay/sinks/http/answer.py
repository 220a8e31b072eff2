"""A receiver's HTTP answer, or its absence, and what it means for the batch that was sent.

2xx confirms. 408, 425, 429 and 5xx (but not 501) wait, as long as Retry-After says. 401, 403, 404,
405, 407, 501 and redirects hold. 400, 413, 415 and 422 refuse the batch.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits
from siemrelay.core.options import show_seconds
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.net.tcp_client import connect_reason
from siemrelay.net.tls_client import CUT_OFF, tls_error
from siemrelay.sinks.http.proxies import Proxy, proxy_for
from siemrelay.wire.rate_limits import retry_after_s

# A receiver's message in errors and logs: enough to show why, too little to flood them.
_TEXT_CHARACTERS: Final = 300

# Proxies and gateways answer with pages for browsers; their beginning has what went wrong.
_PAGE: Final = re.compile(r"\s*(?:<!doctype html|<html|<head|<body)\b", re.IGNORECASE)
_MARKUP: Final = re.compile(
    r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|<[^>]*(?:>|\Z)", re.IGNORECASE | re.DOTALL
)
_PAGE_CHARACTERS: Final = 4096

_REFUSED: Final = frozenset({400, 413, 415, 422})
_WAITING: Final = frozenset({408, 425, 429})

ADVICE: Final = {
    401: "the receiver does not accept `authorization`: check the token and its prefix",
    403: "the receiver knows the credentials but forbids this: check the token's rights",
    404: "nothing answers at this path: check `url`",
    405: "this path does not take POST: check `url`",
    407: "a proxy in the way wants credentials, and none is named by HTTPS_PROXY: ask who runs the "
    "network",
    501: "the receiver does not know POST here: check `url`",
}
_OWN_FAULT: Final = "the receiver has a fault of its own: its log says which"
_NOT_REACHED: Final = (
    "what stands in front of the receiver does not reach it: is the receiver running?"
)
_PATIENCE: Final = {
    408: "the request took too long to arrive: lower `batch: {max_bytes}` if the network is slow",
    429: "the receiver limits how much it takes; if this goes on, raise its limit or quota, or "
    "choose fewer `events`",
    502: _NOT_REACHED,
    503: "the receiver is overloaded, starting or out of room; if this goes on, see its load and "
    "its log",
    504: _NOT_REACHED,
}


def passing_fault_advice(status: int) -> str:
    """Advice for a passing fault that does not pass, by status."""
    return _PATIENCE.get(status, _OWN_FAULT)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with any status; `body` may lack what exceeds the client's limit.

    As text it is `HTTP STATUS MESSAGE`, for people.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"HTTP {self.status} {self.text}".strip()

    @property
    def text(self) -> str:
        """The body as one line of at most 300 characters, safe to display; of a page its words."""
        text = self.body.decode("utf-8", "replace")
        if _PAGE.match(text):
            from html import unescape  # only such an answer needs it

            text = unescape(_MARKUP.sub(" ", text[:_PAGE_CHARACTERS]))
        return sanitize_for_display(" ".join(text.split()), _TEXT_CHARACTERS)

    @property
    def retry_after_s(self) -> float | None:
        """The seconds from now that its Retry-After field asks for, if it has one."""
        return retry_after_s(self.headers.get("Retry-After"), now_s=time.time())

    def raise_for_status(
        self, advice: Mapping[int, str] = ADVICE, *, message: str | None = None
    ) -> None:
        """Return if it confirms the batch (2xx); else raise what `error` returns."""
        if not 200 <= self.status < 300:
            raise self.error(advice, message=message)

    def error(
        self, advice: Mapping[int, str] = ADVICE, *, message: str | None = None
    ) -> DeliveryError:
        """The error for a status other than 2xx: SinkWaits, SinkHolds or BatchRefused.

        `advice` states, by status, what a person must change. `message` is the receiver's error
        message where the sink can read it; the body otherwise.
        """
        status, text = self.status, self.text if message is None else message
        reason = f"HTTP {status} {text}".strip()
        if status in _REFUSED:
            return BatchRefused(code=str(status), reason=text or "no reason given")
        if status in _WAITING or (status >= 500 and status != 501):
            return SinkWaits(
                f"{reason}; {passing_fault_advice(status)}",
                after_s=self.retry_after_s,
                throttled=status == 429,
            )
        if 300 <= status < 400:
            where = self.headers.get("Location", "elsewhere")
            return SinkHolds(
                reason, advice=f"the receiver points to {where}: set `url` to the final address"
            )
        return SinkHolds(reason, advice=advice.get(status, "check `url` and `authorization`"))


# -- no answer -----------------------------------------------------------------


def timeout_error(url: str, timeout_s: float) -> SinkWaits:
    """The error for a request to `url` that was not answered in time."""
    place, within = urlsplit(url).netloc, f"within {show_seconds(timeout_s)} (`timeout`)"
    if (proxy := proxy_for(url)) is not None:
        return SinkWaits(
            f"no answer from {place} through {proxy} {within}; is the proxy alive, and can it "
            "reach the receiver?"
        )
    return SinkWaits(
        f"no answer from {place} {within}; is that the receiver's port, and is it overloaded?"
    )


def transport_error(error: BaseException, url: str, *, shows_certificate: bool) -> Exception:
    """SinkWaits or SinkHolds for a request to `url` that had no answer.

    `shows_certificate`: whether this side has a client certificate.
    """
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    proxy, place = proxy_for(url), urlsplit(url).netloc
    for cause in chain:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, CUT_OFF):
            return tls_error(cause, plainly="check the port, or write http:// for plain HTTP")
        if isinstance(cause, OSError) and "connect" in type(error).__name__.lower():
            return _not_connected(cause, place, proxy)
    reason = str(error).rstrip(".") or "the connection broke before an answer"
    if proxy is not None:
        return SinkWaits(f"{reason}; the request went through {proxy}: can it reach {place}?")
    if "disconnected without" in reason or "illegal" in reason:
        # A server that expects TLS does this on plain HTTP, and so does one without HTTP.
        plain = "" if url.startswith("https:") else ", or is it TLS (https://)"
        return SinkWaits(f"{reason}; does it speak HTTP on this port{plain}?")
    if url.startswith("https:") and not shows_certificate:
        # The TLS alert is lost if the receiver closes with our request unread.
        hint = "does it want a client certificate (`tls: {certificate: FILE, key: FILE}`)?"
        return SinkWaits(f"{reason}; {hint}")
    plain = "" if url.startswith("https:") else ", and does it take plain http://"
    return SinkWaits(f"{reason}; is {place} the receiver, is it running{plain}?")


def _not_connected(cause: OSError, place: str, proxy: Proxy | None) -> SinkWaits:
    unknown = isinstance(cause, socket.gaierror)
    if proxy is None:
        if unknown:
            return SinkWaits(f"cannot resolve {place}: {cause.strerror}; check the name")
        return SinkWaits(f"cannot connect to {place}: {connect_reason(cause)}")
    trying = "resolve" if unknown else "connect to"
    # The system's message; the question that `connect_reason` adds is about the receiver.
    reason = cause.strerror if unknown else connect_reason(cause).partition(";")[0]
    return SinkWaits(
        f"cannot {trying} {proxy}: {reason}; is the proxy running there? Correct {proxy.variable}, "
        "or name the receiver in NO_PROXY, where the relay is started"
    )
