"""Applies the operator's options to events between decoding and formatting.

One order for all: conditions, redaction, fields that are added. Pure and made of plain options, so
that it can run in any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import and_
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from siemrelay.core.event import FIELDS, AuditEvent, DecodedBatch, Selection
from siemrelay.core.event_types import Catalogue
from siemrelay.core.options import Options
from siemrelay.transforms.additions import Add, Additions
from siemrelay.transforms.conditions import Conditions, Where
from siemrelay.transforms.event_paths import ATTRIBUTES
from siemrelay.transforms.limiting import Limit
from siemrelay.transforms.redaction.options import Redact, RedactOptions
from siemrelay.transforms.sampling import Sample, Sampler

if TYPE_CHECKING:
    from siemrelay.transforms.redaction.events import EventRedactor
    from siemrelay.transforms.redaction.records import RecordRedactor


class TransformOptions(Options):
    """Options that shape the events of a source or sink."""

    where: Where = Field(
        default={},
        description="conditions on fields, all of which must hold (`actor.address: 10.0.0.0/8`, "
        "`attributes.env: [prod, dr]`): a value or pattern, a list of which one must fit, or a "
        "block of `any`, `not`, `min`, `max`, `present`",
    )
    add: Add = Field(
        default={},
        description="fields to set on every event (`attributes.env: prod`), in every format",
    )
    redact: Redact = Field(
        default_factory=RedactOptions,
        description="rules for what must not be seen: on a source before it is stored, on a sink "
        "before it is sent",
    )


class SourceTransformOptions(TransformOptions):
    """Options that shape the events of a source alone: what they leave out is not stored."""

    limit: Limit = Field(
        default=[],
        description="the most events to store in a period: `1000/s` for all together, `{User "
        'Logged In: 100/s, "*": 6000/m}`, or a list of rules. The others are counted by type, '
        "and an event *Events Limited* reports them every minute; the relay's own events are "
        "never limited",
    )


class SinkTransformOptions(TransformOptions):
    """Options that shape the events of a sink alone: nothing is lost by them."""

    sample: Sample = Field(
        default=[],
        description="events of which only a part is sent: `10` for one in ten of all, `{User "
        "Logged In: 100}`, or a list of rules; the others are counted by type, and an event "
        "*Events Sampled* reports them every 5 minutes",
    )

    def alone(self) -> SinkTransformOptions:
        """These options without all others that a sink has."""
        own = SinkTransformOptions.model_fields
        return SinkTransformOptions.model_construct(**{name: getattr(self, name) for name in own})

    @property
    def choosing(self) -> tuple[Any, ...]:
        """The values of the options that decide which events are sent, and change none."""
        return tuple(getattr(self, name) for name in _CHOOSING)

    @property
    def changing(self) -> tuple[Any, ...]:
        """The values of all others: sinks whose messages are equal have equal ones."""
        own = SinkTransformOptions.model_fields
        return tuple(getattr(self, name) for name in own if name not in _CHOOSING)


_CHOOSING: Final = ("where", "sample")


EVERYTHING: Final = frozenset((*FIELDS, ATTRIBUTES))
"""All that a decoder can fill."""


class EventTransform:
    """The transforms of one sink, for events that its `events` takes. Thread-safe."""

    def __init__(self, options: TransformOptions, sampler: Sampler | None = None) -> None:
        self._sampler = sampler
        self._conditions = Conditions(options.where)
        self._additions = Additions(options.add) if options.add else None
        self._redactor: EventRedactor | None = None
        self._records: RecordRedactor | None = None
        if options.redact.rules:
            self._redactor, self._records = _redactors(options.redact)
        self.fields = self._conditions.fields
        """The fields that the decoder has to fill."""
        if self._additions is not None:
            self.fields |= self._additions.fields
        if sampler is not None:
            self.fields |= sampler.fields
        if self._redactor is not None:
            self.fields = EVERYTHING  # what a record holds is known by its whole event

    def select(
        self, decoded: DecodedBatch, keep: list[bool] | None
    ) -> tuple[list[bool] | None, dict[str, list[int]]]:
        """`keep` without what conditions and sample leave out; None stands for all of them.

        And what the sample leaves out: the records' sequences by the type of their event.
        """
        if self._conditions:
            some = self._conditions.select(decoded.events)
            keep = some if keep is None else list(map(and_, keep, some))
        return (keep, {}) if self._sampler is None else self._sampler.select(decoded, keep)

    def explain(self, event: AuditEvent) -> tuple[bool, str] | None:
        """Whether the conditions hold, and which one decided; None if there are none.

        Which events are in a sample is not known before they are stored: its share is named.
        """
        found = self._conditions.explain(event) if self._conditions else None
        share = 1 if self._sampler is None else self._sampler.share(event)
        if share == 1 or (found is not None and not found[0]):
            return found
        return True, f"one in {share:,} of these is sent, by `sample`"

    @property
    def redacts(self) -> bool:
        """Whether something is redacted."""
        return self._redactor is not None

    def apply(self, selection: Selection) -> tuple[Selection, list[int]]:
        """The selected events as they are to be formatted, and which records were redacted.

        These are the sequences of those in whose event something was.
        """
        redacted: list[int] = []
        if self._redactor is not None:
            events, indexes = self._redactor.apply(selection.events)
            sequences = selection.sequences
            redacted = [sequences[index] for index in indexes]
            selection = selection.changed(events, self._rewritten)
        if self._additions is not None:
            selection = selection.changed(self._additions.apply(selection.events))
        return selection, redacted

    def redacted_type(self, name: str) -> str:
        """An event's type without what is redacted in it."""
        if self._redactor is None:
            return name
        (event,), _ = self._redactor.apply([AuditEvent(type=name)])
        return event.type

    def _rewritten(self, selection: Selection) -> list[bytes]:
        return self.redacted(selection.received, selection.decoded_events)[0]

    def redacted(
        self, records: Sequence[bytes], events: Sequence[AuditEvent]
    ) -> tuple[list[bytes], frozenset[int]]:
        """Records without their secrets, and the indexes of those that are withheld.

        `events`: what they were decoded to. For those that are withheld it is `instead`.
        """
        if self._records is None:
            return list(records), frozenset()
        return self._records.apply(records, events)

    def instead(self, event: AuditEvent) -> bytes:
        """The redacted event as the record of a batch whose `part` is `REDACTED_PART`."""
        assert self._records is not None
        return self._records.instead(event)


def _redactors(options: RedactOptions) -> tuple[EventRedactor, RecordRedactor]:
    # Their patterns take milliseconds to compile, at the start of every command: only if needed.
    from siemrelay.transforms.redaction.events import EventRedactor
    from siemrelay.transforms.redaction.records import RecordRedactor
    from siemrelay.transforms.redaction.rules import Rules

    rules = Rules(options)
    return EventRedactor(rules), RecordRedactor(rules)


def transform_of(
    options: TransformOptions, catalogue: Catalogue | None = None
) -> EventTransform | None:
    """The transforms of these options; None if there are none, which costs nothing."""
    rules = options.sample if isinstance(options, SinkTransformOptions) else []
    sampler = Sampler(rules, catalogue or Catalogue()) if rules else None
    asked = options.where or options.add or options.redact.rules or sampler
    return EventTransform(options, sampler) if asked else None
