"""`where:` of a source or sink: conditions on the fields of an event, all of which must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import and_, not_
from typing import Annotated, Any, Final

import msgspec
from pydantic import BeforeValidator, Field, model_validator

from siemrelay.core.event import AuditEvent, field_getter
from siemrelay.core.filters import quoted
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.options import Options
from siemrelay.transforms.event_paths import ATTRIBUTES, EventPath, Scalar, as_text, decoded_field
from siemrelay.transforms.matcher import NETWORK, WILDCARD, Matcher, network_of


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _long_form(value: Any) -> Any:
    return value if isinstance(value, (dict, ConditionOptions)) else {"any": value}


def _entry(value: Scalar) -> Scalar:
    if isinstance(value, str):
        if value == "":
            raise ValueError("an empty value matches nothing; write {present: no}")
        meant = NETWORK.fullmatch(value) and ("/" in value or "." in value)
        if meant and network_of(value) is None:
            raise ValueError(
                f"{value} is not a network; write one like 10.0.0.0/8 or 2001:db8::/32"
            )
    return value


Entry = Annotated[Scalar, BeforeValidator(_entry, json_schema_input_type=Scalar)]
Entries = Annotated[
    list[Entry], BeforeValidator(_listed, json_schema_input_type=Scalar | list[Scalar])
]


class ConditionOptions(Options):
    """The condition on one field. In short, one value or a list of them stands for `any`."""

    any: Entries = Field(
        default=[],
        description="values, patterns with `* ? [ ]` or networks (`10.0.0.0/8`), one of which it "
        "must be; upper and lower case count",
    )
    unless: Entries = Field(
        default=[], alias="not", description="the same, none of which it may be"
    )
    min: float | None = Field(None, description="the least number that it may be")
    max: float | None = Field(None, description="the greatest number that it may be")
    present: bool | None = Field(
        None, description="whether the event has the field; `not` alone takes events without it too"
    )

    @model_validator(mode="after")
    def _says_something(self) -> ConditionOptions:
        if not self.model_fields_set:
            raise ValueError("write a value, a list of them, or one of any, not, min, max, present")
        return self


Where = dict[
    EventPath,
    Annotated[
        ConditionOptions,
        BeforeValidator(
            _long_form, json_schema_input_type=Scalar | list[Scalar] | ConditionOptions
        ),
    ],
]
"""`where:`, by field."""


_NUMBERS: Final = {"severity": (0, 10)}
_CHOICES: Final = {"outcome": ("success", "failure", "unknown")}
_TEXTS: Final = ("time", "type", "category", "outcome")


def impossible(where: Mapping[str, ConditionOptions]) -> Iterator[tuple[str, str]]:
    """Every field whose condition no event can fulfil or fail, and a message for a person.

    Such a condition lets nothing pass, or everything, and the relay would count that as wanted.
    """
    for path, options in where.items():
        plain = [
            entry for entry in (*options.any, *options.unless)
            if not (isinstance(entry, str) and WILDCARD.search(entry))
        ]  # fmt: skip
        if path in _NUMBERS:
            low, high = _NUMBERS[path]
            form = f"`{path}` is a whole number from {low} to {high}: write 7, or {{min: 7}}"
            numbers = {str(number) for number in range(low, high + 1)}
            if not numbers.issuperset(map(as_text, plain)):
                wrong = next(entry for entry in plain if as_text(entry) not in numbers)
                yield path, f"no event has the {path} {quoted(as_text(wrong))}; {form}"
            elif (options.min is not None and options.min > high) or (
                options.max is not None and options.max < low
            ):
                yield path, f"no event has such a {path}; `{path}` is from {low} to {high}"
        elif path in _CHOICES and not set(_CHOICES[path]).issuperset(map(as_text, plain)):
            wrong = next(entry for entry in plain if as_text(entry) not in _CHOICES[path])
            yield (
                path,
                (
                    f"no event has the {path} {quoted(as_text(wrong))}; it is one of "
                    f"{', '.join(_CHOICES[path])}"
                ),
            )
        if path in _TEXTS and (options.min is not None or options.max is not None):
            yield path, f"`{path}` is not a number: `min` and `max` do not fit it"
        elif options.min is not None and options.max is not None and options.min > options.max:
            yield path, "`min` is above `max`: no event fits"


class Conditions:
    """Compiled conditions. Pure; several threads may use them."""

    def __init__(self, where: Mapping[str, ConditionOptions]) -> None:
        self._tests = [_Test(path, options) for path, options in where.items()]
        self.fields = frozenset(map(decoded_field, where))
        """The fields that the decoder has to fill."""

    def __bool__(self) -> bool:
        return bool(self._tests)

    def select(self, events: Sequence[AuditEvent]) -> list[bool]:
        """Whether all conditions hold, for each event, in order."""
        keep: list[bool] | None = None
        for test in self._tests:
            some = test.select(events)
            keep = list(some) if keep is None else list(map(and_, keep, some))
        return [True] * len(events) if keep is None else keep

    def explain(self, event: AuditEvent) -> tuple[bool, str]:
        """Whether all hold, and which one decided, in a few words; `select` decides the same."""
        for test in self._tests:
            if not test.select([event])[0]:
                return False, f"where: {test.failure(event)}"
        return True, "every condition in where holds"


class _Test:
    """The condition on one field."""

    def __init__(self, path: str, options: ConditionOptions) -> None:
        self._path, self._options, self._get = path, options, field_getter(path)
        self._any = Matcher(options.any) if options.any else None
        self._not = Matcher(options.unless) if options.unless else None
        self._attribute = _attribute_column(path) if path.startswith(ATTRIBUTES) else None
        # Attributes are compared as JSON: 1, true and "1" stay apart. A hit runs in C alone.
        self._decision = BoundedMemo(self._holds if self._attribute is None else self._holds_json)
        self._is_bounded = options.min is not None or options.max is not None
        self._texts = self._attribute is None and path != "severity" and not self._is_bounded

    def select(self, events: Sequence[AuditEvent]) -> Sequence[bool]:
        """Whether it holds, for each event, in order."""
        if self._attribute is not None:
            return list(map(self._decision.__getitem__, self._attribute(events)))
        values = list(map(self._get, events))
        if not self._texts:
            return list(map(self._decision.__getitem__, values))
        # Names, addresses and messages may be new in every event: no cache would hold them.
        texts = [value or "" for value in values]
        keep: Sequence[bool] | None = None if self._any is None else self._any.column(texts)
        if self._not is not None:
            some = list(map(not_, self._not.column(texts)))
            keep = some if keep is None else list(map(and_, keep, some))
        if self._options.present is not None:
            some = [bool(text) is self._options.present for text in texts]
            keep = some if keep is None else list(map(and_, keep, some))
        assert keep is not None
        return keep

    def _holds_json(self, value: bytes) -> bool:
        return self._holds(msgspec.json.decode(value) if value else None)

    def _holds(self, value: Any) -> bool:
        options = self._options
        if value is None or value == "":
            return options.present is not True and not (
                self._any or options.min is not None or options.max is not None
            )
        if options.present is False:
            return False
        values = value if isinstance(value, list) else [value]
        if self._is_bounded and not any(map(self._within, values)):
            return False
        texts = list(map(as_text, values))
        if self._any is not None and not any(map(self._any.matches, texts)):
            return False
        return self._not is None or not any(map(self._not.matches, texts))

    def _within(self, value: Any) -> bool:
        least, most = self._options.min, self._options.max
        number = _number(value)
        return number is not None and (
            (least is None or least <= number) and (most is None or number <= most)
        )

    def failure(self, event: AuditEvent) -> str:
        """Why it does not hold for an event."""
        value, options = self._get(event), self._options
        if value is None or value == "":
            return f"there is no {self._path}"
        shown = f"{self._path} {quoted(as_text(value))}"
        if options.present is False:
            return f"there is a {self._path}"
        values = value if isinstance(value, list) else [value]
        if self._is_bounded and not any(map(self._within, values)):
            numbers = [number for each in values if (number := _number(each)) is not None]
            if not numbers:
                return f"{shown} is not a number"
            if options.min is not None and max(numbers) < options.min:
                return f"{shown} is below {options.min:g}"
            return f"{shown} is above {options.max:g}"
        texts = list(map(as_text, values))
        if self._any is not None and not any(map(self._any.matches, texts)):
            return f"{shown} is not {self._any}"
        return f"{shown} is {self._not}, which `not` excludes"


def _attribute_column(path: str) -> Callable[[Sequence[AuditEvent]], list[bytes]]:
    """Reads an attribute of many events, each as JSON; nothing for one without it, and for null."""
    kind: Any = msgspec.Raw
    for name in reversed(path.split(".")[1:]):
        member = (name, kind, msgspec.Raw(b"") if kind is msgspec.Raw else None)
        kind = msgspec.defstruct(
            "Inside", [("inside", *member[1:])], rename={"inside": member[0]}, gc=False
        )  # fmt: skip
        kind = kind | None if path.count(".") > 1 else kind
    decode_lines = msgspec.json.Decoder(kind).decode_lines
    depth, get = path.count("."), field_getter(path)
    # A name that has the dots itself, perhaps in escapes.
    dotted = [b"\\u", *(b"." + name.encode() for name in path.split(".")[2:])]

    def one(value: Any) -> bytes:
        for _ in range(depth):
            if value is None:
                return b""
            value = value.inside
        found = bytes(value)
        return b"" if found == b"null" else found

    def slow(event: AuditEvent) -> bytes:
        value = get(event)
        return b"" if value is None else msgspec.json.encode(value)

    def column(events: Sequence[AuditEvent]) -> list[bytes]:
        raws: list[Any] = [event.attributes for event in events]
        try:
            # Raw attributes have no line feed: one a line.
            found = decode_lines(b"\n".join(raws))
        except (TypeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return list(map(slow, events))
        values = list(map(one, found))
        if depth > 1 and b"" in values:
            for index, (value, raw) in enumerate(zip(values, raws, strict=True)):
                if not value and any(map(bytes(raw).__contains__, dotted)):
                    values[index] = slow(events[index])
        return values

    return column


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
