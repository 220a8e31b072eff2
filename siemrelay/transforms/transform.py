"""What the operator does with events between decoding and formatting them.

One order for all: conditions first, then fields that are added. Pure and made of plain options, so
that it can run in any process.
"""

from __future__ import annotations

from operator import and_

from pydantic import Field

from siemrelay.core.event import AuditEvent, DecodedBatch, Selection
from siemrelay.core.options import Options
from siemrelay.transforms.additions import Add, Additions
from siemrelay.transforms.conditions import Conditions, Where


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


class EventTransform:
    """What one sink does with the events that its `events` takes. Several threads may use it."""

    def __init__(self, options: TransformOptions) -> None:
        self._conditions = Conditions(options.where)
        self._additions = Additions(options.add) if options.add else None
        self.fields = self._conditions.fields
        """What the decoder has to fill."""
        if self._additions is not None:
            self.fields |= self._additions.fields

    def select(self, decoded: DecodedBatch, keep: list[bool] | None) -> list[bool] | None:
        """`keep` without the events that the conditions leave out; None stands for all of them."""
        if not self._conditions:
            return keep
        some = self._conditions.select(decoded.events)
        return some if keep is None else list(map(and_, keep, some))

    def explain(self, event: AuditEvent) -> tuple[bool, str] | None:
        """Whether the conditions hold, and which one decided; None if there are none."""
        return self._conditions.explain(event) if self._conditions else None

    def apply(self, selection: Selection) -> Selection:
        """The selected events as they are to be formatted."""
        if self._additions is None:
            return selection
        return selection.changed(self._additions.apply(selection.events))


def transform_of(options: TransformOptions) -> EventTransform | None:
    """What these options ask for; None for nothing, which costs nothing."""
    return EventTransform(options) if options.where or options.add else None
