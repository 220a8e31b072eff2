"""How one sink's messages are made: which events it takes, redacted, formatted and truncated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from siemrelay.core.event import Batch, DecodedBatch, Selection
from siemrelay.core.filters import EventFilter
from siemrelay.formats.contract import Format, Forwarding
from siemrelay.formats.writing.text import cut_utf8
from siemrelay.pipeline.formatting.messages import InternalError, internal_error
from siemrelay.pipeline.formatting.truncate import truncated
from siemrelay.transforms.transform import EventTransform


class SinkFormat(msgspec.Struct, frozen=True):
    """How one sink's messages are made.

    `made_of` and `filtered_by` are compared: equal ones make equal messages, and select the same
    events; what `transform` does counts among them. `sources` are those whose records the sink
    takes; None for all of them. `number` stands in the messages for their numbers in a
    sealed stream.
    """

    events: EventFilter
    format: Format
    max_message_bytes: int | None = None
    sources: frozenset[str] | None = None
    made_of: Any = None
    filtered_by: Any = None
    transform: EventTransform | None = None
    number: str | None = None

    @property
    def fields(self) -> frozenset[str]:
        """The event fields that the decoder has to fill."""
        fields = self.events.fields | self.format.fields
        return fields if self.transform is None else fields | self.transform.fields

    def select(self, decoded: DecodedBatch) -> tuple[list[bool] | None, dict[str, list[int]]]:
        """Whether the sink takes each event (None: all), and what its sample leaves out."""
        same = self.events.same_for_all
        if same is None:
            keep = self.events.select(decoded.events)
        else:  # no event is looked at
            keep = None if same else [False] * decoded.batch.count
        return (keep, {}) if self.transform is None else self.transform.select(decoded, keep)

    def made(
        self, selection: Selection, errors: list[InternalError]
    ) -> tuple[Sequence[bytes], list[int], list[int]]:
        """A message for each event; the records that were redacted, and those truncated."""
        redacted: list[int] = []
        if self.transform is not None:
            selection, redacted = self.transform.apply(selection)
        messages = self.format.encode(selection)
        # Invariant: one message per event, or refusals would name the wrong records.
        assert len(messages) == len(selection), (len(messages), len(selection))
        limit = self.max_message_bytes
        if limit is None or not messages or max(map(len, messages)) <= limit:
            return messages, redacted, []
        messages, cut = _truncated(self.format, messages, selection, limit, errors)
        return messages, redacted, cut

    @property
    def forwarding(self) -> Forwarding | None:
        """The format, if no event has to be looked at and records may leave as they came."""
        looks = self.events.same_for_all is None or self.transform is not None
        form = self.format
        return form if isinstance(form, Forwarding) and not looks and self.number is None else None

    def takes(self, batch: Batch) -> bool:
        """Whether the sink takes records of that batch's source."""
        return self.sources is None or batch.source in self.sources


def _truncated(
    form: Format, messages: Sequence[bytes], selection: Selection, limit: int,
    errors: list[InternalError],
) -> tuple[Sequence[bytes], list[int]]:  # fmt: skip
    """The messages, truncated to the limit, and the records whose message was over it."""
    over = [at for at, message in enumerate(messages) if len(message) > limit]
    messages = list(messages)  # `raw` returns the records themselves, which all sinks share
    for at in over:
        try:
            messages[at] = truncated(form, selection, at, messages[at], limit)
        except Exception as error:  # noqa: BLE001  (a bug must not stop the sink for ever)
            errors.append(internal_error(
                "internal error: message truncated as bytes", selection.decoded.batch,
                [selection.sequences[at]], error,
            ))  # fmt: skip
            messages[at] = cut_utf8(messages[at], limit)
    return messages, [selection.sequences[at] for at in over]
