"""Which events a sink takes: the `events:` key, its entries, and the decision about each event."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from siemrelay.core.event import DEFAULT_SEVERITY, AuditEvent
from siemrelay.core.event_types import ANY, Catalogue, normal_key, separate_words
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.options import Options, listed

# A reason is a line on a terminal; a hostile name can be as long as a record.
_SHOWN_CHARACTERS: Final = 80

_WILDCARD: Final = re.compile(r"(\[!?\]?[^\]]*\]|[*?])")


class _Short:
    """Tells editors (JSON Schema) that an item may stand for its list, a list for `events:`."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        full = handler(schema)
        if "items" in full:
            return {"anyOf": [full, full["items"]]}
        text = {"type": "string"}
        return {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}, full]}


def _long_form(value: Any) -> Any:
    return {"include": value} if isinstance(value, (str, list, tuple)) else value


Entries = Annotated[list[str], BeforeValidator(listed), _Short()]
Outcomes = Annotated[
    list[Literal["success", "failure", "unknown"]], BeforeValidator(listed), _Short()
]


class EventsOptions(Options):
    """The `events:` of a sink. An entry is a type's name, a pattern with `* ? [ ]`,
    `category:NAME`, or `Any Audit Record`; case and spacing are forgiven.
    """

    include: Entries = Field(
        default=[ANY], min_length=1, description="the events to take; one entry or a list"
    )
    exclude: Entries = Field(default=[], description="the events to leave out of those")
    min_severity: int = Field(
        default=0, ge=0, le=10, description="leave out events below this severity (0 to 10)"
    )
    outcome: Outcomes = Field(default=[], description="take only these outcomes; all if empty")


EventsChoice = Annotated[EventsOptions, BeforeValidator(_long_form), _Short()]
"""`EventsOptions`, or in short just its `include`: one entry or a list of them."""


_ALL_ELSEWHERE: Final = ("all", "any", "every", "everything")
"""Names of all events in other programs."""


def entry_fault(entry: str, catalogue: Catalogue) -> str | None:
    """The fault of an entry of `include` or `exclude`, in a sentence; None if it has none.

    Patterns have none: they may be meant for types that nobody has declared.
    """
    if not entry.strip():
        return f"an empty entry takes nothing; write a type's name or {ANY}"
    category = _category_of(entry)
    if category is None and (_is_pattern(entry, catalogue) or catalogue.find(entry)):
        return None
    if category is not None:
        known = {normal_key(name) for name in catalogue.categories}
        if _WILDCARD.search(category) or normal_key(category) in known:
            return None
    kind = "event type" if category is None else "category"
    nearest = catalogue.nearest(entry)
    meant = f"the nearest known name is {nearest!r}" if nearest else "no known name resembles it"
    if category is None and entry.casefold() in _ALL_ELSEWHERE:
        return f"unknown event type {entry!r}; write `{ANY}` for all events"
    return (
        f"unknown {kind} {quoted(category or entry)}; {meant}; "
        "types and categories of your own are declared under `event_types:`"
    )


class EventFilter:
    """The compiled `events:` of one sink. Safe to share between threads."""

    def __init__(self, options: EventsOptions, catalogue: Catalogue) -> None:
        self._include = _Choice(options.include, catalogue)
        self._exclude = _Choice(options.exclude, catalogue)
        self._min_severity = options.min_severity
        self._outcomes = tuple(options.outcome)
        fields = sorted(self._include.fields | self._exclude.fields)
        fields += ["severity"] if self._min_severity > 0 else []
        fields += ["outcome"] if self._outcomes else []
        self.fields = frozenset(fields)  # of an event: all that `select` reads
        self.same_for_all = None if fields else self.explain(AuditEvent())[0]
        """The decision, if it is the same for all events; None if it depends on the event."""
        if fields:
            # The whole of `select` runs in C on these two; Python is entered once per new key.
            self._key_of = attrgetter(*fields)
            self._decision = BoundedMemo(partial(self._kept, tuple(fields))).__getitem__

    def select(self, events: Sequence[AuditEvent]) -> list[bool] | None:
        """Whether to keep each event, in order; None to keep all, without looking at them."""
        if self.same_for_all is None:
            return list(map(self._decision, map(self._key_of, events)))
        return None if self.same_for_all else [False] * len(events)

    def _kept(self, fields: tuple[str, ...], key: Any) -> bool:
        """The decision about every event with these values in just the fields that matter to it.

        Invariant: an event made of these fields alone is judged as the whole event would be;
        checked by test_select_agrees_with_explain_for_every_event.
        """
        values = (key,) if len(fields) == 1 else key
        return self.explain(AuditEvent(**dict(zip(fields, values, strict=True))))[0]

    def explain(self, event: AuditEvent) -> tuple[bool, str]:
        """Whether to keep the event, and why, in one sentence; `select` decides the same."""
        included = self._include.entry_for(event)
        if included is None:
            return False, f"{quoted(event.type)} is not in include"
        excluded = self._exclude.entry_for(event)
        if excluded is not None:
            return False, f"excluded by {quoted(excluded)}"
        severity = DEFAULT_SEVERITY if event.severity is None else event.severity
        if severity < self._min_severity:
            return False, f"severity {severity} is below min_severity {self._min_severity}"
        outcome = event.outcome or "unknown"
        if self._outcomes and outcome not in self._outcomes:
            return False, f"outcome {quoted(outcome)} is not {' or '.join(self._outcomes)}"
        if included == ANY:
            return True, "every event is selected"
        return True, f"{quoted(included)} is in include"


class _Choice:
    """The compiled entries of one list."""

    def __init__(self, entries: Sequence[str], catalogue: Catalogue) -> None:
        self._everything: str | None = None
        self._types, self._categories = _Names(), _Names()
        for entry in entries:
            category = _category_of(entry)
            if normal_key(entry) == normal_key(ANY) or entry.strip() == "*":
                self._everything = entry
            elif category is not None:
                self._categories.add(category, entry, pattern=bool(_WILDCARD.search(category)))
            else:
                self._types.add(entry, entry, pattern=_is_pattern(entry, catalogue))

    @property
    def fields(self) -> frozenset[str]:
        """The fields of an event that this list asks for."""
        asked = {"type": self._types, "category": self._categories}
        return frozenset(field for field in asked if asked[field] and self._everything is None)

    def entry_for(self, event: AuditEvent) -> str | None:
        """The entry, as written, that takes this event; None where none does."""
        if self._everything is not None:
            return self._everything
        return self._types.entry_for(event.type) or self._categories.entry_for(event.category or "")


class _Names:
    """Names and patterns that one field is compared with; each remembers its entry."""

    def __init__(self) -> None:
        self._exact: dict[str, str] = {}
        self._patterns: list[tuple[Callable[[str], bool], str]] = []

    def __bool__(self) -> bool:
        return bool(self._exact or self._patterns)

    def add(self, text: str, entry: str, *, pattern: bool) -> None:
        if pattern:
            self._patterns.append((_matcher(text), entry))
        else:
            self._exact.setdefault(normal_key(text), entry)

    def entry_for(self, name: str) -> str | None:
        found = self._exact.get(normal_key(name)) if self._exact else None
        if found is None:
            found = next((entry for matches, entry in self._patterns if matches(name)), None)
        return found


def _category_of(entry: str) -> str | None:
    """NAME of `category:NAME`; None for every other entry."""
    prefix, colon, name = entry.partition(":")
    return name.strip() if colon and prefix.strip().casefold() == "category" else None


def _is_pattern(entry: str, catalogue: Catalogue) -> bool:
    # A key has no wildcards left, so `User *` would find a type declared as `User`: only the
    # very spelling makes a name of what looks like a pattern.
    if not _WILDCARD.search(entry):
        return False
    known = catalogue.find(entry)
    return known is None or known.name.casefold() != entry.strip().casefold()


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Compile a pattern to be matched as words, and, where it asks for no boundary, as a key.

    `User *` wants a word to end there and so leaves `Username Set` alone; `user logged*` takes
    `USERLOGGEDIN` too. `fnmatch` translates `*` without backtracking, so a hostile name costs
    no more than its length.
    """
    pieces = _WILDCARD.split(pattern.strip())
    literals = [separate_words(piece) for piece in pieces[::2]]
    wildcards = [piece.casefold() for piece in pieces[1::2]]
    as_words = _compiled(literals, wildcards)
    bounded = [*(text[-1:] for text in literals[:-1]), *(text[:1] for text in literals[1:])]
    if " " in bounded:
        return lambda name: as_words(separate_words(name.strip())) is not None
    as_key = _compiled([text.replace(" ", "") for text in literals], wildcards)
    return lambda name: bool(as_words(separate_words(name.strip())) or as_key(normal_key(name)))


def _compiled(literals: Sequence[str], wildcards: Sequence[str]) -> Callable[[str], object]:
    joined = [piece for pair in zip(literals, [*wildcards, ""], strict=True) for piece in pair]
    return re.compile(translate("".join(joined))).match


def quoted(text: str) -> str:
    """As a reason shows it: in quotes, and no longer than a line takes."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
