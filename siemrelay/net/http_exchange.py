"""What a source and its HTTP server say to each other: requests, answers, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

RETRY_AFTER_S: Final = 5
"""What a sender is told to wait when there is no room."""

STORE_S: Final = 5.0
"""A sender waits for its answer: after so long it is told to come again, which it may understand
better than silence. A commit takes milliseconds; only a full or failing disk takes longer."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body. Field names are in lower case; repeated ones are joined."""

    method: str
    path: str
    query: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a request. `refused` is the word it is counted under."""

    status: int
    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()
    refused: str = ""


class Application(Protocol):
    """Answers requests. Several connections call it at once."""

    def admit(self, head: Head) -> Answer | None:
        """The refusal of a request whose body is not worth reading; else None."""

    async def answer(self, head: Head, body: bytes) -> Answer:
        """The answer to a whole request."""

    def fault(self, status: int, reason: str) -> Answer:
        """How this application words a refusal that the server decides upon."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may take."""

    body_bytes: int
    idle_s: float
    request_s: float
