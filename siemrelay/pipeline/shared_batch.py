"""A stored batch that several sinks read, and what has been made of it for them."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from siemrelay.core.event import Batch, DecodedBatch
from siemrelay.net.tasks import Broadcast
from siemrelay.pipeline.formatting.formatter import replaced_of
from siemrelay.pipeline.formatting.messages import (
    FormattedBatch,
    GroupMessages,
    InternalError,
    SinkMessages,
    log_errors,
    messages_of,
)

# A decoded batch takes about so many times the bytes of its records, with these.
_DECODED: Final = 4

Reader = TypeVar("Reader")


class SharedBatch(Generic[Reader]):
    """A batch, what has been made of it, and the readers that have yet to take it."""

    def __init__(self, batch: Batch, waiting: set[Reader]) -> None:
        self.first_sequence, self.next_sequence = batch.first_sequence, batch.next_sequence
        self.waiting = waiting
        self.groups: dict[int, GroupMessages] = {}
        self._found: dict[tuple[int, int], SinkMessages] = {}
        self.decoded: DecodedBatch | None = None
        """The events, until every group that is waited for has its messages."""
        self.fields = frozenset[str]()  # those that the events have
        self._asked_bytes, self.answered = 0, Broadcast()
        self.left_to_the_relay = False
        """No worker could format it: none is asked again."""
        self.errors: list[InternalError] = []
        """Bugs found in it that are not logged yet."""
        self._unparsed, self._replaced = 0, list[int]()

    @property
    def size_bytes(self) -> int:
        """About the memory that it takes."""
        decoded = 0 if self.decoded is None else _DECODED * len(self.decoded.batch.payload)
        return self._asked_bytes + decoded + sum(made.size_bytes for made in self.groups.values())

    @property
    def asked(self) -> bool:
        """Whether a worker formats it now."""
        return self._asked_bytes > 0

    def ask(self, batch: Batch) -> None:
        """Note that a worker was asked for what is not made yet."""
        self._asked_bytes = _DECODED * len(batch.payload)

    def answer(self, formatted: FormattedBatch | None) -> None:
        """Add what the worker has made; None if it could not."""
        self._asked_bytes, self.left_to_the_relay = 0, formatted is None
        if formatted is not None:
            self._unparsed, self._replaced = formatted.unparsed, formatted.replaced
            self.groups |= formatted.groups
            log_errors(formatted.errors)
        self.answered.wake_all()

    def add(self, group: int, made: GroupMessages) -> None:
        """Add a group's messages."""
        self.groups[group] = made
        if self.decoded is not None:
            self._unparsed, self._replaced = self.decoded.unparsed, replaced_of(self.decoded)

    def messages(self, place: tuple[int, int]) -> SinkMessages | None:
        """The messages for a sink at that place (group, filter); None if they are not made."""
        if (found := self._found.get(place)) is None:
            group, view = place
            if (made := self.groups.get(group)) is None or view not in made.views:
                return None
            found = messages_of(made, view, self._unparsed, self._replaced)
            self._found[place] = found
        return found
