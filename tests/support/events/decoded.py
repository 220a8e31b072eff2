"""What every decoder promises of every event, whatever its record was."""

from __future__ import annotations

import json

from siemrelay.core.event import FIELDS, AuditEvent, attributes_of, field_getter
from siemrelay.decoders.times import time_of


def assert_promises(event: AuditEvent) -> None:
    """Fails unless the event has what sinks and formats rely on."""
    assert event.id
    assert event.type
    assert event.category
    assert event.time is not None
    assert time_of(event.time) == event.time
    assert type(event.severity) is int
    assert 0 <= event.severity <= 10
    assert event.outcome in ("success", "failure", "unknown")
    attributes = attributes_of(event)
    assert isinstance(attributes, dict)
    json.dumps(attributes, ensure_ascii=False).encode()  # no half surrogate pair
    for field in FIELDS:
        value = field_getter(field)(event)
        assert value is None or isinstance(value, int | str)
        assert not isinstance(value, str) or value.encode() is not None
