"""The JSON that SIEMs wrap around messages: pages of hits, results, documents with a whole message.

Which part of a document is the message decides what is proven of it: see `_message_in`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from siemrelay.core.json_schema import Objects
from siemrelay.proof.envelopes import WHOLE_MESSAGE, any_value_of
from siemrelay.proof.exports.shown_fields import SPLUNK_RAW, TEXTS
from siemrelay.proof.leaf import NUMBERED, leaf_of, number_in

# What stands beside the messages in a SIEM's answer. An object with another member is a message, so
# that no event hides as an answer without messages.
_BESIDE: Final[dict[str, frozenset[str]]] = {
    "hits": frozenset((
        "hits", "took", "timed_out", "total", "max_score", "aggregations", "suggest", "profile",
        "pit_id", "point_in_time_id", "num_reduce_phases", "terminated_early",
    )),
    "results": frozenset((
        "results", "preview", "init_offset", "post_process_count", "messages", "fields",
        "highlighted",
    )),
    "messages": frozenset((
        "messages", "query", "built_query", "used_indices", "fields", "time", "total_results",
        "from", "to", "decoration_stats", "is_decorated",
    )),
    "events": frozenset(("events",)),
    "value": frozenset(("value", "@odata.context", "@odata.nextLink", "@odata.count", "nextLink")),
    "_source": frozenset((
        "sort", "fields", "highlight", "ignored_field_values", "matched_queries", "inner_hits",
    )),
    "result": frozenset(("result", "preview", "offset", "lastrow")),
    "message": frozenset(("message", "index", "highlight_ranges", "decoration_stats")),
}  # fmt: skip

# The members of an answer without messages, the last page of many; of these, texts that are ids.
_ANSWER: Final = frozenset((
    "took", "timed_out", "_shards", "total", "successful", "skipped", "failed", "hits", "value",
    "relation", "max_score", "_scroll_id", "pit_id", "point_in_time_id", "num_reduce_phases",
    "terminated_early", "results", "preview", "init_offset", "post_process_count", "messages",
    "fields", "highlighted", "total_results", "resourceLogs", "scopeLogs", "logRecords",
    "@odata.count", "events",
))  # fmt: skip
_IDS: Final = frozenset(("_scroll_id", "pit_id", "point_in_time_id", "relation"))
_ID: Final = re.compile(r"eq|gte|[A-Za-z0-9+/=_-]{16,}")

# Lists in lists, deeper than in any answer, are messages and wrap none.
_MOST_DEPTH: Final = 16

Paths = Sequence[Sequence[str]]


class Wrapped(NamedTuple):
    """A message: a text, or an object; and the object in whose member `place` it stands, if any."""

    content: bytes | dict[str, Any]
    shown: Mapping[str, Any] | None = None
    place: str = ""


def unwrapped(value: Any, added: Paths, depth: int = 0) -> Iterator[Wrapped]:
    """The messages in a JSON value: itself, or those that an answer of a SIEM wraps.

    Raises ValueError, with a sentence for a person, for damaged OTLP.
    """
    if isinstance(value, list) and depth < _MOST_DEPTH:
        for each in value:
            yield from unwrapped(each, added, depth + 1)
    elif not isinstance(value, dict):
        yield Wrapped(value.encode() if isinstance(value, str) else msgspec.json.encode(value))
    elif isinstance(inner := next(_wrapped(value), None), list) and (inner or _is_mute(value)):
        yield from unwrapped(inner, added, depth + 1)
    elif isinstance(inner, dict):
        yield _message_in(inner, added)
    elif isinstance(records := value.get("resourceLogs"), list) and len(value) == 1:
        found = [*_otlp_records(records)]
        yield from found if found or _is_mute(value) else (_message_in(value, added),)
    else:
        yield _message_in(value, added)


def _is_mute(value: Any, name: str = "") -> bool:
    """Whether an answer without messages has nothing that somebody could read as an event."""
    if isinstance(value, dict):
        return all(key in _ANSWER and _is_mute(inner, key) for key, inner in value.items())
    if isinstance(value, list):
        return all(_is_mute(each, name) for each in value)
    return not isinstance(value, str) or bool(name in _IDS and _ID.fullmatch(value))


def pages_alike(values: Objects, lines: Sequence[int]) -> tuple[Objects, list[int]] | None:
    """What lists in these answers have, each with its line: what `unwrapped` finds, faster. None if
    not all are such answers, or one has no message."""
    name = next((name for name in _BESIDE if name in values.names), "")
    if name in _ONE_DOCUMENT or not name or not _has_only(values, _BESIDE[name], "_"):
        return None
    within = values.within(name) if name == "hits" else None
    return (within or values).elements(name, lines)


def texts_in_otlp(
    requests: Objects, lines: Sequence[int]
) -> tuple[list[bytes], Sequence[int]] | None:
    """The texts that are the bodies of all log records in these requests, each with its line: what
    `unwrapped` finds, faster. None if something else is in one."""
    found = requests
    for name, beside in _OTLP.items():
        inner = (
            found.elements(name, lines)
            if name in found.names and _has_only(found, beside, "")
            else None
        )
        if inner is None:
            return None
        found, lines = inner
    bodies = found.within("body")
    if bodies is None or not _has_only(bodies, _TEXT, ""):
        return None
    texts = bodies.column("stringValue")
    return ([t.encode() for t in texts], lines) if set(map(type, texts)) == {str} else None


_OTLP: Final = {
    "resourceLogs": frozenset(("resourceLogs",)),
    "scopeLogs": frozenset(("scopeLogs", "resource", "schemaUrl")),
    "logRecords": frozenset(("logRecords", "scope", "schemaUrl")),
}
_TEXT: Final = frozenset(("stringValue",))


def _has_only(objects: Objects, names: frozenset[str], more: str) -> bool:
    """Whether none has members but these and those that begin with `more`, if that is given."""
    return not any(
        objects.has(name) for name in objects.names
        if name not in names and not (more and name.startswith(more) and name not in NUMBERED)
    )  # fmt: skip


def may_wrap(line: bytes) -> bool:
    """Whether it is worth a look what a line of JSON wraps; a long one mostly is an answer."""
    if len(line) > _LONG_MESSAGE_BYTES:
        return True
    try:
        members = _members(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return SPLUNK_RAW in members or _wraps(members)


_LONG_MESSAGE_BYTES: Final = 64 << 10
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def documents_alike(values: Objects, *, in_page: bool) -> Objects | None:
    """What each of these wraps, if all are hits or all are results: what `unwrapped` finds, faster.

    Values in the list of an answer (`in_page`) may wrap nothing. None for what is to be looked at
    one by one.
    """
    for name in _ONE_DOCUMENT:
        if (documents := values.within(name)) is not None:
            return documents if _has_only(values, _BESIDE[name], "_") else None
    are_alone = (in_page or values.all_have(SPLUNK_RAW)) and not _may_wrap(values)
    return values if are_alone else None


def _may_wrap(values: Objects) -> bool:
    """Whether one of these may be an answer, or something else with messages."""
    names = values.names
    return "resourceLogs" in names or any(
        name in names and not any(
            key not in beside and key[:1] != "_" and values.all_have(key) for key in names
        )
        for name, beside in _BESIDE.items()
    )  # fmt: skip


_ONE_DOCUMENT: Final = ("_source", "result", "message")


def _wraps(keys: Collection[str]) -> bool:
    """Whether a value with these members may be an answer, or something else with messages."""
    return "resourceLogs" in keys or any(
        name in keys and all(key in beside or key[:1] == "_" for key in keys)
        for name, beside in _BESIDE.items()
    )


def raw_texts(columns: Mapping[str, list[Any]], kinds: Collection[type]) -> list[bytes] | None:
    """The `_raw` of documents, given by their columns, if it is the message of each, see
    `_message_in`; else None. `kinds` are the types of all cells."""
    raw = columns.get(SPLUNK_RAW, ())
    if set(map(type, raw)) != {str}:
        return None
    are_texts = TEXTS.issuperset(kinds) or all(map(_are_texts, columns.values()))
    return [t.encode() for t in raw] if are_texts or NUMBERED.isdisjoint(columns) else None


def _wrapped(value: dict[str, Any]) -> Iterator[Any]:
    """The kind of wrapping: a page of hits, a list of results, one hit, one result."""
    for name, beside in _BESIDE.items():
        inner = value.get(name)
        if inner is None or not all(key in beside or key[:1] == "_" for key in value):
            continue
        if name == "hits" and isinstance(inner, dict):
            inner = inner.get("hits")
        if isinstance(inner, dict if name in ("_source", "result", "message") else list):
            yield inner


def _message_in(document: dict[str, Any], added: Paths) -> Wrapped:
    """The message of a document: the document itself, or the text in one of its members.

    A document that carries a number itself is the message, whatever stands in it: a whole message
    that somebody adds to it vouches for nothing. Only Splunk's rows repeat the number of their
    `_raw`, in the fields that it finds there; all of these are texts.
    """
    for path in added:
        document = _without(document, path)
    is_numbered, raw = number_in(document) is not None, document.get(SPLUNK_RAW)
    if isinstance(raw, str) and (not is_numbered or _are_texts(document.values())):
        return Wrapped(raw.encode(), document, SPLUNK_RAW)
    for name in () if is_numbered else WHOLE_MESSAGE:
        text = _member(document, name)
        if isinstance(text, str) and leaf_of(text.encode()).number is not None:
            return Wrapped(text.encode(), document, name)
    return Wrapped(document)


def _member(document: dict[str, Any], name: str) -> Any:
    """A member by its name; with dots in it also as Elastic's agents write it, in an object."""
    outer, _, inner = name.partition(".")
    found = document.get(name)
    if found is None and inner and isinstance(beneath := document.get(outer), dict):
        return beneath.get(inner)
    return found


def _are_texts(values: Collection[Any]) -> bool:
    lists = [value for value in values if isinstance(value, list)]
    return TEXTS.issuperset({*map(type, values)} - {list}) and all(
        isinstance(each, str) for value in lists for each in value
    )


def _without(value: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The object without a member; an object that has no other member goes, too."""
    name, *rest = path
    found = dict(value)
    if rest:
        found.pop(".".join(path), None)
    inner = found.pop(name, None)
    if rest and isinstance(inner, dict) and (left := _without(inner, rest)):
        found[name] = left
    elif rest and inner is not None and not isinstance(inner, dict):
        found[name] = inner
    return {key: found[key] for key in value if key in found}


def _otlp_records(resources: list[Any]) -> Iterator[Wrapped]:
    try:
        requests = msgspec.convert(resources, list[_Resource])
        for record in (
            r for each in requests for scope in each.scopeLogs for r in scope.logRecords
        ):
            body = any_value_of(record.body)
            text = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
            yield Wrapped(text)
    except (msgspec.ValidationError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged OTLP: {error}") from error


class _Record(msgspec.Struct):
    body: dict[str, Any] = {}


class _Scope(msgspec.Struct, forbid_unknown_fields=True):
    logRecords: list[_Record] = []
    scope: Any = None
    schemaUrl: Any = None


class _Resource(msgspec.Struct, forbid_unknown_fields=True):
    scopeLogs: list[_Scope] = []
    resource: Any = None
    schemaUrl: Any = None
