"""What a JSON HTTP API answered to a poll: its items as records, and the next page. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import msgspec

from siemrelay.core.errors import SiemrelayError

# Under these names APIs put the page's items, in the order of how telling they are.
_USUAL: Final = ("items", "events", "records", "data", "results", "content", "entries", "value")

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_value: Final = msgspec.json.Decoder().decode


class NotAPage(SiemrelayError):
    """The answer has no items where they were looked for."""


def items_of(body: bytes, path: str | None) -> list[bytes]:
    """The items of an answer, each compact JSON on one line.

    At the dotted `path`; without one the answer itself, or the first array under a usual name.
    Raises NotAPage, with what is there instead.
    """
    try:
        found = msgspec.Raw(body.strip())
        if path is not None:
            inner = raw_at(body, path)
            if inner is None:
                raise NotAPage(f"the answer has nothing at `items: {path}`; {_there(body)}")
            found = inner
        elif not bytes(found).startswith(b"["):
            members = _members(body)
            arrays = [n for n in _USUAL if bytes(members.get(n, b"")).lstrip().startswith(b"[")]
            if not arrays:
                raise NotAPage(f"no array of items found; set `items:`; {_there(body)}")
            found = members[arrays[0]]
        return [msgspec.json.format(bytes(item), indent=-1) for item in _elements(found)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        where = "" if path is None else f" at `items: {path}`"
        raise NotAPage(f"the answer has no JSON array{where}: {error}") from error


def _there(body: bytes) -> str:
    try:
        names = list(_members(body))[:10]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "the answer is no JSON object"
    return f"it has {', '.join(names) or 'no members'}"


def raw_at(body: bytes | msgspec.Raw, path: str) -> msgspec.Raw | None:
    """The JSON text at a dotted path; None if it is not there or null."""
    found = msgspec.Raw(bytes(body))
    for name in path.split("."):
        try:
            members = _members(found)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if name not in members:
            return None
        found = members[name]
    return None if bytes(found).strip() == b"null" else found


def value_at(body: bytes | msgspec.Raw, path: str) -> Any:
    """The value at a dotted path; None if it is not there."""
    found = raw_at(body, path)
    return None if found is None else _value(found)


def with_parameter(url: str, name: str, value: str) -> str:
    """The address with this query parameter, instead of one of that name."""
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != name]
    return urlunsplit(parts._replace(query=urlencode([*query, (name, value)])))


def next_page(url: str, answered: str | None) -> str | None:
    """The next page's address, from an answer to `url`; None if there is none.

    Raises NotAPage for an address of another origin: the credentials are not for it.
    """
    if not answered:
        return None
    address = urljoin(url, answered)
    if urlsplit(address)[:2] != urlsplit(url)[:2]:
        raise NotAPage(f"the next page is at another origin, {'://'.join(urlsplit(address)[:2])}")
    return address


def fingerprint(item: bytes) -> str:
    """What an item is known again by: 64 bits, so that a page of thousands fits a position."""
    return hashlib.blake2b(item, digest_size=8).hexdigest()
