"""`map:` on a sink: output keys by the event field they take, checked when the file is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from siemrelay.core.event import FIELDS, SYSLOG_SEVERITY
from siemrelay.formats.syslog_header import HeaderOptions

_KEY: Final = re.compile(r"[A-Za-z0-9_]+")


def fields_of_events(chosen: dict[str, str | None]) -> dict[str, str | None]:
    """`chosen` itself; raises ValueError if a value is neither an event's field nor None."""
    for key, field in chosen.items():
        if field is None or field in FIELDS or field == SYSLOG_SEVERITY:
            continue
        if not field.startswith("attributes.") or field[-1] == ".":
            raise ValueError(
                f"{key}: {field!r} is not an event field; the fields are "
                f"{', '.join((*FIELDS, SYSLOG_SEVERITY))} and attributes.NAME"
            )
    return chosen


def _plain_keys(chosen: dict[str, str | None]) -> dict[str, str | None]:
    for key in chosen:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of this format: letters, digits and _ only")
    return fields_of_events(chosen)


def fields_read(fields: Iterable[str]) -> frozenset[str]:
    """A format's `fields`: the given ones, each as the field of the event that it is read from."""
    return frozenset(
        "severity" if f == SYSLOG_SEVERITY else "attributes" if f.startswith("attributes.") else f
        for f in fields
    )


def mapped_keys(
    default: Mapping[str, str], chosen: Mapping[str, str | None], last: str
) -> dict[str, str]:
    """Keys with the event field of each: the default ones, changed as `map:` says.

    The key `last`, if it is there, comes last: a receiver that truncates loses that first.
    """
    keys = {key: field for key, field in default.items() if key not in chosen}
    keys |= {key: field for key, field in chosen.items() if field is not None}
    if last in keys:
        keys[last] = keys.pop(last)
    return keys


PlainKeys = Annotated[dict[str, str | None], AfterValidator(_plain_keys)]
"""Keys of CEF and LEEF: letters, digits and `_`; None leaves a key out."""


class DeviceOptions(HeaderOptions):
    """Options of formats whose messages name the device that they come from."""

    vendor: str = Field("siemrelay", min_length=1, description="the header's device vendor")
    product: str = Field("audit", min_length=1, description="the header's device product")
    version: str = Field("1.0", min_length=1, description="the header's device version")
    map: PlainKeys = Field(
        default={},
        description="keys to add or replace, each with the event field it takes "
        "(`suser: actor.name`; `syslog_severity` is the severity as syslog's 0 to 7); null "
        "leaves a key out",
    )
