"""The sender's address for messages that name no host, as a relay puts it in (RFC 3164, 4.3).

Pure: bytes in, bytes out. What `syslog_header` reads back is the same message with a host.
"""

from __future__ import annotations

from datetime import UTC, datetime

from siemrelay.core.lines import records_of, separated
from siemrelay.decoders.syslog.header import hostless

_BOM = "\ufeff".encode()

# RFC 3164, 4.3.3: what comes without a PRI is of the user, a notice.
_PRI = "<13>"


def with_host(message: bytes, host: str, received: datetime) -> bytes:
    """The message as it is if it names a host; else with `host` where that belongs.

    In RFC 5424 in place of the `-`, behind the time of RFC 3164, and where there is no such time
    either, behind a header of this relay's own with the time `received`.
    """
    # Latin-1 keeps every byte; what is looked for is ASCII.
    text = message.removeprefix(_BOM).decode("latin-1")
    place = hostless(text, received)
    if place is None:
        return message
    before, after = text[: place.start], text[place.end :]
    if place.kind == "nil":
        changed = f"{before}{host}{after}"
    elif place.kind == "time":
        # ASA's own form with a host: `TIME HOST : %ASA-...`.
        colon = " :" if before.endswith(": ") else ""
        changed = f"{before.rstrip(': ')} {host}{colon} {after}"
    else:
        now = received.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        changed = f"{before or _PRI}{now} {host} {after}"
    return changed.encode("latin-1")


def payload_with_host(payload: bytes, count: int, host: str, received: datetime) -> bytes:
    """`with_host` for each of `count` records as `Records` hold them."""
    records = records_of(payload, count)
    return separated([with_host(record, host, received) for record in records])
