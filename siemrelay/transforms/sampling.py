"""`sample:` of a sink: of events that are many and alike, a part is sent.

Which part is decided by the record's sequence number: the same at every attempt and restart, and
for every sink with the same share. Nothing is left out in silence: what was is counted by type.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from siemrelay.core.event import AuditEvent, DecodedBatch
from siemrelay.core.event_types import OWN_SOURCE, Catalogue
from siemrelay.transforms.event_rules import EventRule, RuleEvents, listed_rules

_MOST: Final = 1_000_000

# Fibonacci hashing: neighbours go far apart, so that no rhythm of a source decides what is sent.
_MULTIPLIER: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1
_SHIFT: Final = 32


_Share = Annotated[int, Field(ge=2, le=_MOST)]


class SampleRule(EventRule):
    """Events of which one in so many is sent. The first rule that fits an event decides."""

    one_in: _Share = Field(
        description="one in so many is sent; the others are counted and left out"
    )


Sample = Annotated[
    list[SampleRule],
    BeforeValidator(
        partial(listed_rules, measure="one_in"),
        json_schema_input_type=_Share
        | list[SampleRule]
        | SampleRule
        | dict[str, _Share | dict[str, Any]],
    ),
]
"""`sample:`: a list of rules, in short one share for all, or shares by entries of `events`."""


class Sampler:
    """The compiled rules of one sink. Pure; several threads may use it."""

    def __init__(self, rules: Sequence[SampleRule], catalogue: Catalogue) -> None:
        self._rules = [(RuleEvents(rule, catalogue), rule.one_in) for rule in rules]
        self.fields = frozenset({"type"}).union(*(chosen.fields for chosen, _ in self._rules))
        """The fields that the decoder has to fill."""

    def select(
        self, decoded: DecodedBatch, keep: Sequence[bool] | None
    ) -> tuple[list[bool] | None, dict[str, list[int]]]:
        """`keep` without what is left out of the sample, and that: sequences by event type."""
        if decoded.batch.source == OWN_SOURCE:  # such an event says what was left out
            return None if keep is None else list(keep), {}
        events, first = decoded.events, decoded.batch.first_sequence
        open_ = [True] * len(events) if keep is None else list(keep)
        kept, left_out = list(open_), dict[str, list[int]]()
        for chosen, one_in in self._rules:
            fits = chosen.select(events)
            for index in range(len(events)):
                if open_[index] and fits[index]:
                    open_[index] = False  # decided
                    if not is_sampled(first + index, one_in):
                        kept[index] = False
                        left_out.setdefault(events[index].type, []).append(first + index)
        for sequences in left_out.values():
            sequences.sort()  # each rule went through all of them
        return kept, left_out

    def share(self, event: AuditEvent) -> int:
        """One in how many events like this one is sent."""
        return next((one_in for chosen, one_in in self._rules if chosen.select([event])[0]), 1)


def is_sampled(sequence: int, one_in: int) -> bool:
    """Whether the record is one of the sample."""
    return (((sequence * _MULTIPLIER) & _MASK) >> _SHIFT) % one_in == 0
