"""What SIEMs wrap around messages in JSON: pages of hits, results, documents with a whole message.

Which part of a document is the message decides what is proven of it: see `_message_in`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from siemrelay.proof.leaf import NUMBERED, WHOLE_MESSAGE, any_value_of, leaf_of, number_in
from siemrelay.proof.shown_fields import SPLUNK_RAW

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


def pages_alike(values: Sequence[Any], lines: Sequence[int]) -> tuple[list[Any], list[int]] | None:
    """What lists in these answers have, each with its line; None if not all are such answers."""
    if not values or _page_in(values[0]) is None:
        return None
    pages = list(map(_page_in, values))
    if any(page is None for page in pages):
        return None
    numbers = [line for page, line in zip(pages, lines, strict=True) for _ in page or ()]
    return [each for page in pages for each in page or ()], numbers


def texts_in_otlp(values: Sequence[Any]) -> list[list[bytes]] | None:
    """The texts that are the bodies of all log records in these requests: what `unwrapped` finds,
    faster. None if something else is in one."""
    try:
        if {tuple(value) for value in values} != {("resourceLogs",)}:
            return None
        requests = list[list[bytes]]()
        for value in values:
            resources = value["resourceLogs"]
            scopes = [scope for each in resources for scope in each["scopeLogs"]]
            records = [record for scope in scopes for record in scope["logRecords"]]
            if not all(_RESOURCE.issuperset(each) for each in resources):
                return None
            if not records or not all(_SCOPE.issuperset(scope) for scope in scopes):
                return None
            bodies = [record["body"] for record in records]
            if set(map(len, bodies)) != {1}:
                return None
            requests.append([body["stringValue"].encode() for body in bodies])
    except (LookupError, TypeError, AttributeError):
        return None
    return requests


def _page_in(value: Any) -> list[Any] | None:
    """The list that an answer wraps, as `unwrapped` finds it; of a line with a number, none."""
    if not isinstance(value, dict) or not NUMBERED.isdisjoint(value):
        return None
    inner = next(_wrapped(value), None)
    if isinstance(inner, list) and (inner or _is_mute(value)):
        return inner
    return None


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


def documents_alike(values: Sequence[Any], *, in_page: bool) -> list[dict[str, Any]] | None:
    """What each of these wraps, if all are hits or all are results: what `unwrapped` finds, faster.

    Values in the list of an answer (`in_page`) may wrap nothing. None for what is to be looked at
    one by one.
    """
    if set(map(type, values)) != {dict}:
        return None
    kinds = {tuple(value) for value in values}
    name = next((n for n in _ONE_DOCUMENT if isinstance(values[0].get(n), dict)), "")
    if not name:
        are_alone = (in_page or SPLUNK_RAW in values[0]) and not any(map(_wraps, kinds))
        return list(values) if are_alone else None
    beside = _BESIDE[name]
    for keys in kinds:
        if name not in keys or not NUMBERED.isdisjoint(keys):
            return None
        if not all(key in beside or key[:1] == "_" for key in keys):
            return None
    documents = [value[name] for value in values]
    return documents if set(map(type, documents)) == {dict} else None


_ONE_DOCUMENT: Final = ("_source", "result", "message")


def _wraps(keys: Collection[str]) -> bool:
    """Whether a value with these members may be an answer, or something else with messages."""
    return "resourceLogs" in keys or any(
        name in keys and all(key in beside or key[:1] == "_" for key in keys)
        for name, beside in _BESIDE.items()
    )


def raw_texts(documents: Sequence[dict[str, Any]]) -> list[bytes] | None:
    """The `_raw` of each document if it is the message, see `_message_in`; None if not of all."""
    try:
        texts = [document[SPLUNK_RAW].encode() for document in documents]
    except (KeyError, AttributeError):
        return None
    may_be_numbered = any(
        not NUMBERED.isdisjoint(keys) for keys in {tuple(document) for document in documents}
    )
    return texts if not may_be_numbered or all(map(_are_texts, documents)) else None


def _wrapped(value: dict[str, Any]) -> Iterator[Any]:
    """What stands around messages: a page of hits, a list of results, one hit, one result."""
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
    if isinstance(raw, str) and (not is_numbered or _are_texts(document)):
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


def _are_texts(document: dict[str, Any]) -> bool:
    return all(
        value is None
        or isinstance(value, str)
        or (isinstance(value, list) and all(isinstance(each, str) for each in value))
        for value in document.values()
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


_RESOURCE: Final = frozenset(("scopeLogs", "resource", "schemaUrl"))
_SCOPE: Final = frozenset(("logRecords", "scope", "schemaUrl"))


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
