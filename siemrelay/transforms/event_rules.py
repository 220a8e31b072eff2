"""The rules of `limit:` and `sample:`: which events one is for, and the short ways to write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field

from siemrelay.core.event import AuditEvent
from siemrelay.core.event_types import Catalogue
from siemrelay.core.filters import EventFilter, EventsChoice, EventsOptions
from siemrelay.core.options import Options
from siemrelay.transforms.conditions import Conditions, Where

_KEYS: Final = frozenset({"events", "where", "rate", "per", "clock", "one_in"})


class EventRule(Options):
    """Events to which a rule applies. The first rule that fits an event decides."""

    events: EventsChoice = Field(
        default_factory=EventsOptions, description="which events, written as a sink's `events`"
    )
    where: Where = Field(default={}, description="further conditions on them")


class RuleEvents:
    """The compiled choice of one rule. Pure; several threads may use it."""

    def __init__(self, rule: EventRule, catalogue: Catalogue) -> None:
        self._events, self._where = EventFilter(rule.events, catalogue), Conditions(rule.where)
        self.fields = self._events.fields | self._where.fields
        """The fields that the decoder has to fill."""

    def select(self, events: Sequence[AuditEvent]) -> Sequence[bool]:
        """Whether the rule is for them, for each event, in order."""
        fits = self._events.select(events)
        if not self._where:
            return [True] * len(events) if fits is None else fits
        holds = self._where.select(events)
        return holds if fits is None else [a and b for a, b in zip(fits, holds, strict=True)]


def is_rule(written: Mapping[str, Any]) -> bool:
    """Whether a mapping is one rule; else it is `{User Logged In: 100/s}`, by event."""
    return bool(written.keys() & _KEYS)


def listed_rules(value: Any, measure: str) -> Any:
    """A list of rules as it is; for anything else the list that it stands for.

    `measure` is the key of a rule that a lone value means: `rate` or `one_in`.
    """
    if isinstance(value, dict):
        if is_rule(value):
            return [value]
        return [
            {"events": entry, **(rest if isinstance(rest, dict) else {measure: rest})}
            for entry, rest in value.items()
        ]
    return value if isinstance(value, list) else [{measure: value}]
