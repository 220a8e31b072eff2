"""HTTP(S) out: runs of events as NDJSON or a JSON array, confirmed by the 2xx answer.

Verdicts on an answer are one table (`verdict`), as `facts.md` of the design has it for receivers
in general: 2xx confirmed; 408, 425, 429, 5xx but 501 and every network fault wait; 401, 403, 404,
405, 407, 501, redirects and TLS refusals hold; 400, 413, 415, 422 are about the run's content.
"""

from __future__ import annotations

import email.utils
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import trio
from pydantic import AfterValidator, Field

from siemrelay.errors import RunRefused, SinkHolds, SinkWaits
from siemrelay.options import Duration, Options, Secret, Size, show_seconds
from siemrelay.sinks.contract import Report, Settlement, no_report
from siemrelay.sinks.tls import TlsOptions, client_context

if TYPE_CHECKING:
    import httpx2

# A peer's words in errors and logs: enough to say why, too little to flood.
_WORDS_CHARACTERS: Final = 300

# An answer is read up to here; no receiver has more to say that matters.
_ANSWER_BYTES: Final = 64 * 1024

# Bodies above this are compressed in a thread, smaller ones at once: a hop costs about 80 µs.
_COMPRESS_IN_THREAD_BYTES: Final = 64 * 1024

_REFUSED: Final = frozenset({400, 413, 415, 422})
_WAITING: Final = frozenset({408, 425, 429})
_ADVICE: Final = {
    401: "the receiver does not accept `authorization`: check the token and its prefix",
    403: "the receiver knows the credentials but forbids this: check the token's rights",
    404: "nothing answers at this path: check `url`",
    405: "this path does not take POST: check `url`",
    407: "a proxy in the way wants credentials",
    501: "the receiver does not know POST here: check `url`",
}


def _absolute_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write a whole address, like https://siem.example.com:8443/events")
    if parts.username or parts.password:
        raise ValueError("no user:password@ in the address; use `authorization`")
    return value


class BatchOptions(Options):
    """How events become request bodies."""

    encoding: Literal["ndjson", "array"] = Field(
        "ndjson", description="one JSON object a line, or one array"
    )
    max_events: int = Field(500, ge=1, le=10_000, description="events in one request at the most")
    max_bytes: Size = Field(
        1024 * 1024, ge=1024, description="bytes in one request at the most, before gzip"
    )
    max_wait: Duration = Field(
        0.2, ge=0, le=60, description="how long a request waits for more events while few come"
    )


class HttpOptions(Options):
    """What an HTTP sink may set."""

    url: Annotated[str, AfterValidator(_absolute_url)] = Field(
        description="where to POST: http:// or https://"
    )
    authorization: Secret | None = Field(
        None, description="the Authorization header, word for word (`Bearer …`, `Splunk …`)"
    )
    headers: dict[str, str] = Field(default_factory=dict, description="further request headers")
    batch: BatchOptions = Field(default_factory=BatchOptions, description="how requests are filled")
    compression: Literal["none", "gzip"] = Field("none", description="of request bodies")
    timeout: Duration = Field(30.0, gt=0, description="for one request, answer included")
    tls: TlsOptions = Field(default_factory=TlsOptions, description="verification, certificates")


class HttpSink:
    """Runs of events POSTed to one address."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[HttpSession]:
        """See `sinks.contract.Sink`; connections are made by the first request."""
        import httpx2  # slow to import, and only sinks of this kind need it

        options = self._options
        context = await trio.to_thread.run_sync(client_context, options.tls)
        headers = {"User-Agent": "siemrelay", **options.headers}
        if options.authorization is not None:
            headers["Authorization"] = str(options.authorization)
        async with httpx2.AsyncClient(
            verify=context, headers=headers, timeout=options.timeout, follow_redirects=False
        ) as client:
            yield HttpSession(client, options, report)


class HttpSession:
    """See `sinks.contract.Session`; the answer to `send` settles the run."""

    def __init__(self, client: httpx2.AsyncClient, options: HttpOptions, report: Report) -> None:
        self._client, self._options, self._report = client, options, report
        self._array = options.batch.encoding == "array"
        self._extensions: dict[str, Any] = {"trace": self._trace}
        if options.tls.server_name:
            self._extensions["sni_hostname"] = options.tls.server_name

    async def send(self, messages: Sequence[bytes]) -> None:
        import httpx2

        body, headers = await self._body(messages)
        self._report("send", f"{len(body)} bytes to {self._options.url}")
        try:
            with trio.fail_after(self._options.timeout):
                async with self._client.stream(
                    "POST", self._options.url, content=body, headers=headers,
                    extensions=self._extensions,
                ) as answer:  # fmt: skip
                    words = await _read(answer)
        except trio.TooSlowError as error:
            raise SinkWaits(
                f"no answer within {show_seconds(self._options.timeout)} (`timeout`)"
            ) from error
        except httpx2.HTTPError as error:
            raise _fault(error) from error
        self._report("answer", f"HTTP {answer.status_code} {words}".strip())
        verdict(answer.status_code, answer.headers, words, now_s=time.time())

    async def confirm(self, ticket: None) -> Settlement:
        return ()

    async def _body(self, messages: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
        if self._array:
            body, kind = b"[" + b",".join(messages) + b"]", "application/json"
        else:
            body, kind = b"\n".join(messages) + b"\n", "application/x-ndjson"
        headers = {"Content-Type": kind}
        if self._options.compression == "gzip":
            headers["Content-Encoding"] = "gzip"
            work = partial(gzip.compress, body, compresslevel=1, mtime=0)
            large = len(body) > _COMPRESS_IN_THREAD_BYTES
            body = await trio.to_thread.run_sync(work) if large else work()
        return body, headers

    async def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        if name == "connection.connect_tcp.complete":
            self._report("connect", str(info["return_value"].get_extra_info("server_addr")))
        elif name == "connection.start_tls.complete":
            tls = info["return_value"].get_extra_info("ssl_object")
            self._report("tls", describe_tls(tls) if tls is not None else "established")


def describe_tls(tls: ssl.SSLObject) -> str:
    """`TLSv1.3, peer NAME, certificate valid until DATE` of an established connection."""
    found = tls.getpeercert() or {}
    subject = dict(pair[0] for pair in found.get("subject", ()))
    names = [value for _, value in found.get("subjectAltName", ())]
    peer = subject.get("commonName") or ", ".join(map(str, names[:3])) or "not verified"
    until = f", certificate valid until {found['notAfter']}" if "notAfter" in found else ""
    return f"{tls.version()}, peer {peer}{until}"


async def _read(answer: httpx2.Response) -> str:
    body = b""
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > _ANSWER_BYTES:
            break
    return " ".join(body.decode("utf-8", "replace").split())[:_WORDS_CHARACTERS]


def _fault(error: Exception) -> SinkWaits | SinkHolds:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SinkHolds(
                f"the peer's certificate is not accepted: {cause.verify_message}",
                advice="set `tls: {ca: FILE}` to the authority that signed it, or mend the "
                "certificate; `url` must have the name that is in it",
            )
        if isinstance(cause, ssl.SSLError):
            return SinkHolds(
                f"TLS failed: {cause.reason or cause}",
                advice="does the receiver speak TLS on this port (https:// or http://), and does "
                "it want a client certificate?",
            )
        cause = cause.__cause__ or cause.__context__
    said = str(error).rstrip(".") or type(error).__name__
    if "disconnected without" in said or "illegal" in said:
        # What a server that expects TLS does on plain HTTP, and one that speaks no HTTP at all.
        return SinkWaits(f"{said}; does it speak HTTP on this port, or is it TLS (https://)?")
    return SinkWaits(f"{said}; is the receiver running and the address right?")


def verdict(status: int, headers: Mapping[str, str], words: str, *, now_s: float) -> None:
    """Return if the answer confirms the run; else raise what the caller does next."""
    said = f"HTTP {status} {words}".strip()
    if 200 <= status < 300:
        return
    if status in _REFUSED:
        raise RunRefused(code=str(status), reason=words or "no reason given")
    if status in _WAITING or (status >= 500 and status != 501):
        raise SinkWaits(said, after_s=retry_after_s(headers.get("Retry-After"), now_s=now_s))
    if 300 <= status < 400:
        where = headers.get("Location", "elsewhere")
        raise SinkHolds(said, advice=f"the receiver points to {where}: set `url` to the final address")
    raise SinkHolds(said, advice=_ADVICE.get(status, "check `url` and `authorization`"))


def retry_after_s(value: str | None, *, now_s: float) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, 10.2.3), None if it asks nothing."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(moment.timestamp() - now_s, 0.0)
