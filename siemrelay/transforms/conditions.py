"""`where:` of a source or sink: conditions on the fields of an event, all of which must hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import translate
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from operator import and_, not_, or_
from typing import Annotated, Any, Final

import msgspec
from pydantic import BeforeValidator, Field, model_validator

from siemrelay.core.event import AuditEvent, field_getter
from siemrelay.core.filters import quoted
from siemrelay.core.memo import BoundedMemo
from siemrelay.core.options import Options
from siemrelay.transforms.event_paths import ATTRIBUTES, EventPath, Scalar, as_text, decoded_field

_WILDCARD: Final = re.compile(r"[*?\[]")
_NETWORK: Final = re.compile(r"(?:\d+\.\d+\.\d+\.\d+|[\da-fA-F]*:[\da-fA-F:.]*)(?:/\d+)?")
_WITH_PORT: Final = re.compile(r"\[(?P<v6>[\da-fA-F:.]+)\](?::\d+)?|(?P<v4>[\d.]+):\d+")


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _long_form(value: Any) -> Any:
    return value if isinstance(value, (dict, ConditionOptions)) else {"any": value}


def _entry(value: Scalar) -> Scalar:
    if isinstance(value, str):
        if value == "":
            raise ValueError("an empty value matches nothing; write {present: no}")
        meant = _NETWORK.fullmatch(value) and ("/" in value or "." in value)
        if meant and _network(value) is None:
            raise ValueError(f"{value} is no network; write one like 10.0.0.0/8 or 2001:db8::/32")
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
            if not (isinstance(entry, str) and _WILDCARD.search(entry))
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
            yield path, f"`{path}` is no number: `min` and `max` do not fit it"
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
        self._any = _Matcher(options.any) if options.any else None
        self._not = _Matcher(options.unless) if options.unless else None
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
                return f"{shown} is no number"
            if options.min is not None and max(numbers) < options.min:
                return f"{shown} is below {options.min:g}"
            return f"{shown} is above {options.max:g}"
        texts = list(map(as_text, values))
        if self._any is not None and not any(map(self._any.matches, texts)):
            return f"{shown} is not {self._any}"
        return f"{shown} is {self._not}, which `not` excludes"


class _Matcher:
    """Values, patterns and networks, compared with texts; an empty text is none of them."""

    def __init__(self, entries: Sequence[Scalar]) -> None:
        self._entries = entries
        self._exact: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        patterns: list[str] = []
        for entry in entries:
            text = as_text(entry)
            network = _network(entry) if isinstance(entry, str) else None
            if isinstance(entry, bool):  # YAML's `yes`
                self._exact |= {text, *(("yes", "on") if entry else ("no", "off"))}
            elif network is not None:
                self._exact.add(text)
                self._networks.append(network)
                if isinstance(network, IPv4Network):
                    patterns.append(_ipv4_pattern(network))
            elif isinstance(entry, str) and _WILDCARD.search(entry):
                # `fnmatch` translates `*` without backtracking.
                patterns.append(translate(entry))
            else:
                self._exact.add(text)
        self._match = re.compile(rf"(?!\Z)(?:{'|'.join(patterns)})").match if patterns else None

    def column(self, texts: Sequence[str]) -> list[bool]:
        """`matches` of each."""
        if self._match is None:
            found = [text in self._exact for text in texts]
        else:
            found = [match is not None for match in map(self._match, texts)]
            if self._exact:
                found = list(map(or_, found, [text in self._exact for text in texts]))
        if self._networks and ":" in "".join(texts):
            # IPv6, a port, an IPv4 address written as IPv6: by the slow way, and only these.
            for index, text in enumerate(texts):
                if ":" in text and not found[index]:
                    found[index] = self._in_network(text)
        return found

    def matches(self, text: str) -> bool:
        return self.column([text])[0]

    def _in_network(self, text: str) -> bool:
        found = _WITH_PORT.fullmatch(text)
        try:
            address = ip_address((found["v6"] or found["v4"]) if found else text)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any(address in net or (mapped and mapped in net) for net in self._networks)

    def __str__(self) -> str:
        return " or ".join(quoted(as_text(entry)) for entry in self._entries)


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    """The network or address that an entry names; None for any other text."""
    if not _NETWORK.fullmatch(entry):
        return None
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        return None


_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"


def _ipv4_pattern(network: IPv4Network) -> str:
    """A regular expression for the network's addresses in dotted decimal."""
    octets = []
    for low, high in zip(network.network_address.packed, network.broadcast_address.packed,
                         strict=True):  # fmt: skip
        some = map(str, range(low, high + 1))
        octets.append(_OCTET if high - low == _ANY_OCTET else f"(?:{'|'.join(some)})")
    return r"\.".join(octets) + r"\Z"


_ANY_OCTET: Final = 255


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
