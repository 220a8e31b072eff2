"""The contract between the HTTP server and the application behind it.

head ─▶ admit ─▶ body, within limits of memory, time and chunks ─▶ answer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from siemrelay.net.body_memory import HeldBody


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body. Field names are in lower case; repeated fields are joined.

    `peer` is the sender's address, `certificate` its client certificate (DER), if it showed one.
    """

    method: str
    path: str
    query: str
    fields: Mapping[str, str]
    peer: str = ""
    certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to a request. A refusal is counted under `refused`, the metric's label."""

    status: int
    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()
    refused: str = ""
    content_type: str = "application/json"


class Application(Protocol):
    """The code behind a server. Several connections call it at the same time."""

    def admit(self, head: Head) -> HttpAnswer | bool:
        """An answer, if the request is answered without its body: a refusal, for example.

        Otherwise the body is read; True if the head authenticates the sender.
        """

    async def answer(self, head: Head, body: HeldBody) -> HttpAnswer:
        """The answer to a whole request that was admitted. May raise OutOfMemory."""

    def fault(self, status: int, reason: str) -> HttpAnswer:
        """A refusal that the server decides upon, in the application's own form."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of one connection: bytes of a body, and seconds.

    `first_s` is from the connection to the first byte of a request, `idle_s` the silence before
    each further one, `request_s` for a request to arrive and for its answer to be read.
    `authenticates`: a request that is admitted as proven has shown a credential.
    """

    body_bytes: int
    first_s: float
    idle_s: float
    request_s: float
    authenticates: bool = False
