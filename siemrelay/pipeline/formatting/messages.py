"""The messages of a stored batch: those of a group of sinks, and those of one sink's filter."""

from __future__ import annotations

import traceback
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, Final

import msgspec

from siemrelay.core.event import Batch


class InternalError(msgspec.Struct, array_like=True):
    """A bug that records ran into, for the log: what it is, about which records, its traceback."""

    message: str
    facts: dict[str, Any]
    trace: str


def internal_error(
    message: str, batch: Batch, failed: Sequence[int], error: Exception
) -> InternalError:
    """An `error` that these records of a batch ran into."""
    facts = {
        "source": batch.source, "first_sequence": batch.first_sequence,
        "last_sequence": batch.next_sequence - 1, "failed": list(failed[:10]),
        "records": len(failed),
    }  # fmt: skip
    return InternalError(message, facts, "".join(traceback.format_exception(error)).rstrip())


class SelectedMessages(msgspec.Struct, array_like=True):
    """The messages of a group that one filter selects.

    `keep` has a byte (0 or 1) for each message; None takes them all. `failed` has the (sequence,
    error) of selected records on which the format raised, `last_type` the last one's event type,
    empty if no event was looked at.
    `sampled` has the records that the sample leaves out, by event type.
    """

    keep: bytes | None
    last_type: str
    failed: list[tuple[int, str]]
    sampled: dict[str, list[int]] = {}


class GroupMessages(msgspec.Struct, array_like=True):
    """The messages of one batch for sinks whose messages are made alike, by their filters.

    `sequences` has the record of each message, `truncated` the records whose message was over the
    size limit, `redacted` those in which something was redacted. `views` has what each filter
    selects, by the filter's number. `size_bytes` is the size of all messages.
    """

    messages: Sequence[bytes]
    sequences: Sequence[int]
    truncated: list[int]
    redacted: list[int]
    views: dict[int, SelectedMessages]
    size_bytes: int


class FormattedBatch(msgspec.Struct, array_like=True):
    """The messages of one batch, by the number of the group.

    `replaced` are the records with bytes that are not UTF-8; `errors` the bugs that were found.
    """

    unparsed: int
    replaced: list[int]
    groups: dict[int, GroupMessages]
    errors: list[InternalError]


class SinkMessages(msgspec.Struct, frozen=True):
    """One sink's messages of a whole stored batch, and the record (sequence) of each.

    `truncated`, `redacted` and `replaced` are the records whose message was over the limit, in
    which something was redacted, or that held bytes other than UTF-8; `failed` has the (sequence,
    error) of those on which the format raised; `sampled` those that a sample leaves out, by event
    type. Sinks share it: nothing in it may be changed.
    """

    messages: Sequence[bytes] = []
    sequences: Sequence[int] = []
    truncated: Sequence[int] = ()
    redacted: Sequence[int] = ()
    replaced: Sequence[int] = ()
    failed: Sequence[tuple[int, str]] = ()
    unparsed: int = 0
    last_type: str = ""
    sampled: Mapping[str, Sequence[int]] = {}

    def since(self, position: int) -> SinkMessages:
        """The messages of the records from `position` on."""
        start = bisect_left(self.sequences, position)
        return msgspec.structs.replace(
            self, messages=self.messages[start:], sequences=self.sequences[start:],
            truncated=[sequence for sequence in self.truncated if sequence >= position],
            redacted=[sequence for sequence in self.redacted if sequence >= position],
            replaced=[sequence for sequence in self.replaced if sequence >= position],
            failed=[(sequence, error) for sequence, error in self.failed if sequence >= position],
        )  # fmt: skip

    def left_out(self, position: int, end: int) -> dict[str, int]:
        """How many records from `position` to before `end` the sample leaves out, by type."""
        counts = {
            name: bisect_left(sequences, end) - bisect_left(sequences, position)
            for name, sequences in self.sampled.items()
        }
        return {name: count for name, count in counts.items() if count > 0}

    def first_wanted(self, position: int, end: int) -> int:
        """The first record from `position` on that the sink takes; `end` if there is none."""
        found = self.sequences[bisect_left(self.sequences, position) :][:1]
        failed = [sequence for sequence, _ in self.failed if sequence >= position]
        return min((*found, *failed), default=end)


NO_MESSAGES: Final = SinkMessages()


def messages_of(made: GroupMessages, view: int, unparsed: int, replaced: list[int]) -> SinkMessages:
    """The messages that one filter selects.

    Args: unparsed: records of the whole batch that could not be parsed; replaced: those (by
    sequence) with bytes that are not UTF-8.
    """
    selected = made.views[view]
    messages, sequences = made.messages, made.sequences
    if selected.keep is not None:
        messages = list(compress(messages, selected.keep))
        sequences = list(compress(sequences, selected.keep))
    truncated, odd, redacted = made.truncated, replaced, made.redacted
    if truncated or odd or redacted:
        own = {*sequences}
        redacted = [sequence for sequence in redacted if sequence in own]
        truncated = [sequence for sequence in truncated if sequence in own]
        odd = [sequence for sequence in odd if sequence in own]
    return SinkMessages(
        messages,
        sequences,
        truncated,
        redacted,
        odd,
        selected.failed,
        unparsed,
        selected.last_type,
        selected.sampled,
    )


def log_errors(errors: list[InternalError]) -> None:
    """Log bugs that were found while records were formatted."""
    if not errors:
        return
    # A worker imports this module and logs nothing: it starts in half the time without it.
    import structlog

    log = structlog.get_logger()
    for error in errors:
        log.error(error.message, **error.facts, exception=error.trace)
