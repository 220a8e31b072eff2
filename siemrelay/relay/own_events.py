"""Events of the relay itself, stored and delivered like any other."""

from __future__ import annotations

import secrets
import socket
import time
import uuid
from typing import Any

import msgspec

from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.core.event_types import OWN_SOURCE
from siemrelay.core.times import rfc3339
from siemrelay.pipeline.intake.intake import Committer
from siemrelay.sources.contract import Records
from siemrelay.telemetry.stats import SourceCounts, SourceStats, Stats


def host_target() -> tuple[str, str]:
    """The relay itself as the target of an event: type and name."""
    return "relay", socket.gethostname()


def own_event(
    event_type: str, person: str, target: tuple[str, str], message: str, *,
    outcome: str = "success", **attributes: Any,
) -> tuple[str, bytes]:  # fmt: skip
    """An event's id, and the event as a record that the `generic` product reads."""
    event_id = str(uuid.uuid4())
    event = {
        "id": event_id, "time": rfc3339(time.time()), "type": event_type, "outcome": outcome,
        "actor": {"name": person}, "target": {"type": target[0], "name": target[1]},
        "message": message, "host": socket.gethostname(),
        **{name: value for name, value in attributes.items() if value is not None},
    }  # fmt: skip
    return event_id, msgspec.json.encode(event)


def new_test_mark() -> str:
    """A word for the message of a test event, which a search at the receiver finds alone.

    Letters and digits only: every receiver's index keeps it as one term.
    """
    return f"siemrelaytest{secrets.token_hex(6)}"


class OwnEvents:
    """The source of the relay's own events. It is listed as a source from its first event on."""

    def __init__(self, committer: Committer, buffer: DiskBuffer, stats: Stats) -> None:
        self._committer, self._buffer, self._stats = committer, buffer, stats

    async def store(self, record: bytes) -> None:
        """Store one event; on disk when it returns. Waits while the buffer is full."""
        if OWN_SOURCE not in self._stats.sources:
            before = self._buffer.source_counts.get(OWN_SOURCE, SourceCounts())
            self._stats.sources[OWN_SOURCE] = SourceStats(
                OWN_SOURCE, before.records, before.bytes, has_task=False
            )
        await self._committer.intake(OWN_SOURCE).store(Records(record + b"\n", 1))
