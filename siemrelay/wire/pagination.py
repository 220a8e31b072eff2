"""Pages of a JSON HTTP API: the items of an answer, and the address of the next page. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import msgspec

from siemrelay.core.errors import SiemrelayError

# Names under which APIs put the items of a page. The first one present counts.
_ITEM_NAMES: Final = (
    "items",
    "events",
    "records",
    "data",
    "results",
    "content",
    "entries",
    "value",
)

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_value: Final = msgspec.json.Decoder().decode


class NotAPage(SiemrelayError):
    """The answer has no items where the options look for them: the text states what it has."""


def page_items(body: bytes, path: str | None, *, may_lack: bool = False) -> list[bytes]:
    """The items of an answer, each as compact JSON on one line.

    They are the array at the dotted `path`; without a path the answer itself, if it is an array, or
    the first array under a usual name. `may_lack`: an object without any is an empty page. Raises
    NotAPage.
    """
    try:
        found = msgspec.Raw(body.strip())
        if path is not None:
            inner = raw_at(body, path)
            if inner is None and may_lack and _is_object(body):
                return []
            if inner is None:
                raise NotAPage(f"the answer has nothing at `items: {path}`; {_members_of(body)}")
            found = inner
        elif not bytes(found).startswith(b"["):
            members = _members(body)
            arrays = [
                n for n in _ITEM_NAMES if bytes(members.get(n, b"")).lstrip().startswith(b"[")
            ]
            if not arrays and may_lack:
                return []
            if not arrays:
                raise NotAPage(f"no array of items found; set `items:`; {_members_of(body)}")
            found = members[arrays[0]]
        return [msgspec.json.format(bytes(item), indent=-1) for item in _elements(found)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        where = "" if path is None else f" at `items: {path}`"
        raise NotAPage(f"the answer has no JSON array{where}: {error}") from error


def _is_object(body: bytes) -> bool:
    try:
        _members(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _members_of(body: bytes) -> str:
    try:
        names = list(_members(body))[:10]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "the answer is not a JSON object"
    return f"it has {', '.join(names) or 'no members'}"


def raw_at(body: bytes | msgspec.Raw, path: str) -> msgspec.Raw | None:
    """The JSON text at a dotted path of object members; None if it is absent or null.

    A member may have dots in its name (`@odata.nextLink`).
    """
    found = msgspec.Raw(bytes(body))
    while path:
        try:
            members = _members(found)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        name, _, path = (path, "", "") if path in members else path.partition(".")
        if name not in members:
            return None
        found = members[name]
    return None if bytes(found).strip() == b"null" else found


def value_at(body: bytes | msgspec.Raw, path: str) -> Any:
    """The decoded value at a dotted path; None if it is absent or null."""
    found = raw_at(body, path)
    return None if found is None else _value(found)


def next_page(url: str, link: str | None) -> str | None:
    """The address of the page behind `url`, from a link in its answer; None without a link.

    Raises NotAPage if it has another scheme, host or port: the credentials are not meant for that.
    """
    if not link:
        return None
    address = urljoin(url, link)
    if not same_origin(url, address):
        raise NotAPage(f"the next page is at another origin, {'://'.join(urlsplit(address)[:2])}")
    return address


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def same_origin(url: str, other: str) -> bool:
    """Whether both have the same scheme, host and port (RFC 6454, 5), and none has a user."""
    try:
        parts = [urlsplit(each) for each in (url, other)]
        ends = {
            (each.scheme, each.hostname, each.port or _DEFAULT_PORTS.get(each.scheme))
            for each in parts
        }
    except ValueError:  # no port
        return False
    return len(ends) == 1 and not any(each.username or each.password for each in parts)


def item_mark(item: bytes, path: str | None) -> str:
    """A hash that identifies an item: of the value at the dotted `path`, else of all of it.

    64 bits: a position holds thousands of them.
    """
    named = None if path is None else raw_at(item, path)
    text = item if named is None else bytes(named)
    return hashlib.blake2b(text, digest_size=8).hexdigest()
