"""The fields that a SIEM shows beside a message: whether the message says the same.

A SIEM may keep the message as it came (Splunk's `_raw`) and show fields that it made of it. The
message is under seal and the fields are not; but people read the fields. So each field that the
message has, too, must have its value, and of every other one it is said that nothing is proven.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from siemrelay.core.canonical_json import decoded
from siemrelay.core.json_schema import Objects, plain
from siemrelay.proof.envelopes import WHOLE_MESSAGE
from siemrelay.proof.leaf import hash_of, leaf_of
from siemrelay.proof.report import counted

SPLUNK_RAW: Final = "_raw"

# Splunk's own fields of an event: a message may have such names, too, and means something else.
_SPLUNK_OWN: Final = frozenset((
    "host", "source", "sourcetype", "index", "linecount", "punct", "splunk_server",
    "splunk_server_group", "timestamp", "timestartpos", "timeendpos", "eventtype", "tag",
    "date_hour", "date_mday", "date_minute", "date_month", "date_second", "date_wday", "date_year",
    "date_zone",
))  # fmt: skip

# Characters of a name or value that a finding shows.
_MOST_SHOWN: Final = 60
_MOST_DEPTH: Final = 32
_MOST_NAMES: Final = 1_000
_MOST_LISTED: Final = 30

# Names that are remembered with what is to be done about them.
_MOST_PLANNED: Final = 500

_CEF_PAIRS: Final = re.compile(r"(?:^| )([\w.\[\]-]+)=((?:[^=\\]|\\.)*?)(?= [\w.\[\]-]+=|$)")
_LEEF_HEAD: Final = re.compile(r"^[^=]*\|")
_QUOTED_PAIRS: Final = re.compile(r'([\w.@-]+)="((?:[^"\\\]]|\\.)*)"')
_ESCAPE: Final = re.compile(r"\\(.)")


class ShownFields(NamedTuple):
    """A wrong field beside a message, and the fields that the message lacks."""

    conflict: str
    unproven: tuple[str, ...]


class UnprovenFields:
    """Counts rows with fields beside the message of which nothing is proven, and their names."""

    def __init__(self) -> None:
        self.rows = 0
        self._names = set[str]()
        self._last: ShownFields | None = None

    def add(self, shown: ShownFields, rows: int = 1) -> None:
        """Those of so many more rows."""
        self.rows += rows * bool(shown.unproven)
        if shown is not self._last and len(self._names) < _MOST_NAMES:
            self._last = shown  # mostly one for all rows, as `compared` remembers it
            self._names.update(name[:_MOST_SHOWN] for name in shown.unproven[:_MOST_NAMES])

    @property
    def said(self) -> str:
        """The note about them, for a person."""
        listed = ", ".join(sorted(self._names)[:_MOST_LISTED])
        more = " and more" * (len(self._names) > _MOST_LISTED)
        return (f"of {counted(self.rows, 'row')} the message itself is proven, and not the fields "
                f"beside it that it does not have: {listed}{more}")  # fmt: skip


def compared(shown: Mapping[str, Any], place: str, message: bytes) -> ShownFields | None:
    """Compare fields with the message that stands in the member `place`; None if there are none."""
    plan = _plan_of(tuple(shown), place)
    if not plan.compared:
        return plan.nothing
    sent, unproven, conflict = _fields_of(message), list(plan.unproven), ""
    for name, value in _flat({name: shown[name] for name, _ in plan.compared}):
        if name == place or _is_empty(value):  # `place` may be in an object of other fields
            continue
        values = sent.get(name) or sent.get(name.removesuffix("{}"))
        if values is not None and _agree(value, values):
            continue
        alike = _is_alike(value, message) if name in WHOLE_MESSAGE else None
        if values is None and alike is None:
            unproven.append(name)
        elif not conflict and not alike:
            conflict = (f"the export shows {_cut(name)} as {_cut(_text(value))}, and the message "
                        f"beside it ({place}) as it was sent has {_cut(_text(values or ''))}; name "
                        f"the field with --added if the SIEM made another of it")  # fmt: skip
    return ShownFields(conflict, tuple(unproven)) if unproven or conflict else None


TEXTS: Final = frozenset((str, type(None), UnsetType))
"""The types of cells that show texts or nothing."""


def compared_columns(
    columns: Mapping[str, list[Any]], kinds: Collection[type], place: str,
    messages: Sequence[bytes], objects: Objects | None,
) -> dict[int, ShownFields]:  # fmt: skip
    """What `compared` finds in rows, given by the columns of their fields, by their places.

    `UNSET` is the value of a field that a row lacks. `kinds` are the types of all cells, `objects`
    the messages that are JSON.
    """
    has_gaps = UnsetType in kinds
    if has_gaps:
        columns = {name: each for name, each in columns.items() if _kinds(each) != {UnsetType}}
    plan = _plan_of(tuple(columns), place)
    if has_gaps and any(UnsetType in _kinds(columns[name]) for name in plan.unproven):
        pass  # rows differ in what is not proven of them
    elif not plan.compared or (
        objects is not None
        and _agree_in_columns(columns, plan.compared, objects, are_texts=TEXTS.issuperset(kinds))
    ):
        nothing = plan.nothing
        return {} if nothing is None else dict.fromkeys(range(len(messages)), nothing)
    found = dict[int, ShownFields]()
    for i, message in enumerate(messages):
        row = {name: plain(cells[i]) for name, cells in columns.items() if cells[i] is not UNSET}
        if (shown := compared(row, place, message)) is not None:
            found[i] = shown
    return found


def _kinds(values: Iterable[Any]) -> set[type]:
    return set(map(type, values))


def _is_alike(shown: Any, message: bytes) -> bool | None:
    """Whether a field holds the same message; None if it holds none with a number."""
    leaf = leaf_of(shown.encode()) if isinstance(shown, str) else None
    return None if leaf is None or leaf.number is None else leaf.hash == hash_of(message)


class _Plan(NamedTuple):
    """The fields to compare: each with its path in a JSON message."""

    compared: tuple[tuple[str, tuple[str, ...]], ...]
    unproven: tuple[str, ...]
    nothing: ShownFields | None

    @classmethod
    def of(cls, names: tuple[str, ...], place: str) -> _Plan:
        own = _SPLUNK_OWN if place == SPLUNK_RAW else frozenset[str]()
        unproven = tuple(
            name for name in names
            if name != place and (name in own or name.startswith("_") or name == "@timestamp")
        )  # fmt: skip
        compared = tuple(
            (name, tuple(name.split(".")))
            for name in names
            if name != place and name not in unproven
        )
        return cls(compared, unproven, ShownFields("", unproven) if unproven else None)


_planned: Final = lru_cache(1_000)(_Plan.of)


def _plan_of(names: tuple[str, ...], place: str) -> _Plan:
    return _planned(names, place) if len(names) <= _MOST_PLANNED else _Plan.of(names, place)


def _agree_in_columns(
    columns: Mapping[str, list[Any]], compared: Sequence[tuple[str, tuple[str, ...]]],
    objects: Objects, *, are_texts: bool,
) -> bool:  # fmt: skip
    """Whether all are plainly there with the same value; False if one takes a closer look.

    `are_texts`: nothing is shown but texts, which are equal to nothing but the same text.
    """
    # Mostly all of the message's texts are shown as they are: then one comparison is enough.
    is_plain = are_texts and len(compared) > 1
    if is_plain and (first := objects[:1].rows([path for _, path in compared])):
        pairs = list(zip(compared, first[0], strict=True))
        texts = [each for each, sent in pairs if isinstance(sent, str)]
        if len(texts) > 1 and objects.rows([path for _, path in texts]) == list(
            zip(*[columns[name] for name, _ in texts], strict=True)
        ):
            compared = [each for each, sent in pairs if not isinstance(sent, str)]
    for name, path in compared:
        shown, sent = columns[name], objects.column(*path)
        if (are_texts and shown == sent) or _are_same_texts(shown, sent):
            continue
        full = [i for i, value in enumerate(shown) if not _is_empty(value)]
        if not _are_same_texts([shown[i] for i in full], [sent[i] for i in full]):
            return False
    return True


def _are_same_texts(shown: list[Any], sent: list[Any]) -> bool:
    kinds = _kinds(sent)
    if kinds == {int}:
        return shown == list(map(str, sent))
    return not kinds - {str} and shown == sent


def _fields_of(message: bytes) -> dict[str, list[Any]]:
    """The fields of a message by their names: of JSON with dots, of the others their pairs."""
    fields = dict[str, list[Any]]()
    if message.startswith(b"{"):
        try:
            for name, value in _flat(decoded(message)):
                fields.setdefault(name, []).extend(value if isinstance(value, list) else [value])
        except ValueError:
            return {}
        return fields
    text = message.decode("utf-8", "replace")
    for name, value in _pairs(text):
        fields.setdefault(name, []).append(_ESCAPE.sub(_unescaped, value))
    return fields


def _unescaped(found: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r"}.get(found[1], found[1])


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    _, found, extension = text.partition("CEF:")
    if found:
        return _CEF_PAIRS.findall(re.split(r"(?<!\\)\|", extension, maxsplit=7)[-1])
    _, found, attributes = text.partition("LEEF:")
    if found and "\t" in attributes:
        pairs = _LEEF_HEAD.sub("", attributes).split("\t")
        return [(name, value) for name, _, value in (pair.partition("=") for pair in pairs)]
    return _QUOTED_PAIRS.findall(text)


def _flat(value: Mapping[str, Any], before: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Members by their names with dots; of objects in lists as Splunk writes them: `name{}.x`."""
    for name, inner in value.items():
        path = before + name
        if isinstance(inner, dict) and inner and depth < _MOST_DEPTH:
            yield from _flat(inner, f"{path}.", depth + 1)
        elif isinstance(inner, list) and any(isinstance(each, dict) for each in inner):
            for each in inner:
                if isinstance(each, dict) and depth < _MOST_DEPTH:
                    yield from _flat(each, f"{path}{{}}.", depth + 1)
        else:
            yield path, inner


def _is_empty(shown: Any) -> bool:
    """Whether a cell shows nothing."""
    return shown is UNSET or shown in ("", None, [], [""], [None])


def _agree(shown: Any, sent: Iterable[Any]) -> bool:
    """Whether a shown value, or each of several, is one that was sent, and none is left out."""
    each = shown if isinstance(shown, list) else [shown]
    values = list(sent)
    return all(any(_same(one, value) for value in values) for one in each) and all(
        any(_same(one, value) for one in each) for value in values
    )


def _same(shown: Any, sent: Any) -> bool:
    """Whether they are one value: SIEMs make texts of numbers and cut pairs at a space."""
    one, other = _text(shown), _text(sent)
    if one == other or (isinstance(sent, str) and one and sent.startswith(f"{one} ")):
        return True
    if isinstance(sent, (int, msgspec.Raw)) and not isinstance(sent, bool):
        try:
            return int(one) == int(other)
        except ValueError:
            pass
        try:
            return float(one) == float(other)
        except ValueError:
            return False
    return False


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 1:
        return _text(value[0])
    return msgspec.json.encode(value).decode()


def _cut(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")
