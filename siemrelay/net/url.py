"""URLs of receivers and APIs, as options and as parts of requests."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode, urlsplit, urlunsplit

from pydantic import AfterValidator

from siemrelay.core.options import with_good_port


def _absolute_url(value: str) -> str:
    parts = with_good_port(urlsplit(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in parts.netloc:
        raise ValueError("write a whole address, like https://siem.example.com:8443/events")
    if parts.username or parts.password:
        raise ValueError(
            "no user:password@ in the address; credentials have options of their own, like "
            "`authorization`"
        )
    # An address that no request can be made to is a fault of the configuration.
    if not value.isprintable():
        raise ValueError("contains a line break or an invisible character")
    try:
        parts.hostname.encode("idna")
    except UnicodeError as error:
        raise ValueError("the host in it cannot be a host name") from error
    return value


Url = Annotated[str, AfterValidator(_absolute_url)]
"""An absolute http:// or https:// address to which a request can be made, without credentials."""


def url_below(url: str, path: str, **query: str) -> str:
    """The URL of a path below `url`. A query in `url` is kept, in front of this one."""
    parts = urlsplit(url)
    queries = "&".join(filter(None, (parts.query, urlencode(query, safe=",*"))))
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, queries, ""))
