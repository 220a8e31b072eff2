"""`limit:` of a source: of events that come too fast, the first of each period are stored.

A rate depends on what came before, so that it can be decided once only: in order, in the relay's
own process, before the records are stored. Repeats, replays, sinks and workers see what was stored.
Nothing is left out in silence: what was is counted by type.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from siemrelay.core.event import AuditEvent, field_getter
from siemrelay.core.event_types import Catalogue
from siemrelay.core.options import seconds
from siemrelay.core.times import epoch_ms
from siemrelay.transforms.event_paths import EventPath, as_text, decoded_field
from siemrelay.transforms.event_rules import EventRule, RuleEvents, listed_rules

# Periods of which the count is remembered, by rule and value of `per`: some 5 MiB. If there are
# more, the first begun is forgotten: then more is stored than `rate` says, never less.
_MOST_PERIODS: Final = 20_000

# Values of `per` are compared by so many characters.
_VALUE_CHARACTERS: Final = 256

_RATE: Final = re.compile(r"\s*(\d{1,12})\s*(?:/|per\b)\s*(?:(\d+(?:\.\d+)?)\s*)?([A-Za-z]+)\s*")
_EXAMPLE: Final = "100/s, 6000/m or 500/10s"


def events_and_period(rate: str) -> tuple[int, float]:
    """How many events in how many seconds: `100/s`, `500/10s`. Raises ValueError."""
    match = _RATE.fullmatch(rate)
    if match is None:
        raise ValueError(f"write how many events in what time, like {_EXAMPLE}")
    count, number, unit = match.groups()
    try:
        period_s = seconds(f"{number or 1}{unit}")
    except ValueError as error:
        raise ValueError(f"{error}, in a rate like {_EXAMPLE}") from None
    if int(count) == 0 or period_s == 0:
        raise ValueError("a limit of nothing: `events: {exclude: …}` leaves events out")
    return int(count), period_s


def _refuse_bare_number(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f"a rate needs a time: write {value}/s or {value}/m")
    return value


def _refuse_malformed(rate: str) -> str:
    events_and_period(rate)
    return rate


Rate = Annotated[
    str,
    BeforeValidator(_refuse_bare_number),
    AfterValidator(_refuse_malformed),
    WithJsonSchema({"type": "string", "format": "rate"}),
]
"""So many events in a period, written `100/s`, `6000/m`, `500/10s`."""


class LimitRule(EventRule):
    """Events that are limited together. The first rule that fits an event decides."""

    rate: Rate = Field(
        description="how many of them are stored in what time, at once or spread: `100/s`, "
        "`6000/m`, `500/10s`; the others are counted and left out"
    )
    per: EventPath | None = Field(
        None,
        description="counts apart for each value of that field (`actor.address`, `type`); by "
        "default all events of the rule are counted together",
    )
    clock: Literal["event", "arrival"] = Field(
        "event",
        description="the time by which events are counted: `event`, their own, so that of a "
        "backlog no more is left out than if it had come at once; `arrival`, for senders that may "
        "write false times",
    )


Limit = Annotated[
    list[LimitRule],
    BeforeValidator(
        partial(listed_rules, measure="rate"),
        json_schema_input_type=Rate
        | list[LimitRule]
        | LimitRule
        | dict[str, Rate | dict[str, Any]],
    ),
]
"""`limit:`: a list of rules, in short one rate for all, or rates by entries of `events`."""


class LimitPeriod(NamedTuple):
    """A period in which events of one rule with one value of `per` are counted."""

    rule: int
    value: str
    number: int


class Admission(NamedTuple):
    """Which events are stored, and those that are not, by type; `counted` is for `give_back`."""

    kept: list[bool]
    left_out: Counter[str]
    counted: Counter[LimitPeriod]


class Limiter:
    """The compiled rules of one source, and what has been counted. For one thread.

    What was counted is forgotten when the relay stops: a period may then be begun anew.
    """

    def __init__(self, rules: Sequence[LimitRule], catalogue: Catalogue) -> None:
        self._rules = [_Rule(rule, catalogue) for rule in rules]
        self.fields = frozenset(field for rule in self._rules for field in rule.fields)
        """The fields that the decoder has to fill."""
        self._counts: dict[LimitPeriod, int] = {}

    def admit(
        self, events: Sequence[AuditEvent], keep: Sequence[bool] | None, now_s: float
    ) -> Admission:
        """Decide which events are stored, of those that `keep` names; None stands for all of them.

        `now_s`: the time of their arrival, in seconds since the epoch.
        """
        undecided = [True] * len(events) if keep is None else list(keep)
        kept, left_out, counted = list(undecided), Counter[str](), Counter[LimitPeriod]()
        for number, rule in enumerate(self._rules):
            fits = rule.select(events)
            for index, event in enumerate(events):
                if not (undecided[index] and fits[index]):
                    continue
                undecided[index] = False
                period = LimitPeriod(number, rule.value(event), rule.period(event, now_s))
                if self._count(period, rule.most):
                    counted[period] += 1
                else:
                    kept[index] = False
                    left_out[event.type] += 1
        return Admission(kept, left_out, counted)

    def give_back(self, counted: Mapping[LimitPeriod, int]) -> None:
        """Events that were admitted are not stored after all, and may come again."""
        for period, count in counted.items():
            if period in self._counts:
                self._counts[period] -= count

    def explain(self, event: AuditEvent) -> str | None:
        """The limit of events like this one, as a clause; None if there is none."""
        return next((rule.text for rule in self._rules if rule.select([event])[0]), None)

    def _count(self, period: LimitPeriod, most: int) -> bool:
        count = self._counts.get(period, 0)
        if count >= most:
            return False
        if count == 0 and len(self._counts) >= _MOST_PERIODS:
            del self._counts[next(iter(self._counts))]
        self._counts[period] = count + 1
        return True


class _Rule(RuleEvents):
    """One compiled rule."""

    def __init__(self, options: LimitRule, catalogue: Catalogue) -> None:
        super().__init__(options, catalogue)
        self.most, self._period_s = events_and_period(options.rate)
        self._by_event = options.clock == "event"
        self._get = None if options.per is None else field_getter(options.per)
        self.fields |= {"type", "time"}
        if options.per is not None:
            self.fields |= {decoded_field(options.per)}
        per = f" for each {options.per}" if options.per else ""
        self.text = f"at most {options.rate} of these are stored{per}, by `limit`"

    def value(self, event: AuditEvent) -> str:
        """The value of `per`, by which events are counted apart; empty for none."""
        value = None if self._get is None else self._get(event)
        if value is None:
            return ""
        return as_text(value)[:_VALUE_CHARACTERS]

    def period(self, event: AuditEvent, now_s: float) -> int:
        """The number of the period to which an event belongs; none lies in the future."""
        moment_s = now_s
        if self._by_event and event.time is not None:
            moment_s = min(epoch_ms(event.time) / 1000, now_s)
        return int(moment_s // self._period_s)
