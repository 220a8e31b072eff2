"""Obeys the commands from the control socket."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final

import structlog
import trio

from siemrelay import registry
from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.core.event_types import (
    ANY,
    OWN_SOURCE,
    RELOAD_REFUSED,
    RELOADED,
    SINK_PAUSED,
    SINK_RESUMED,
    TAP_OPENED,
    TEST,
)
from siemrelay.core.filters import EventFilter, EventsOptions, entry_fault
from siemrelay.formats.json import JsonOptions
from siemrelay.pipeline.observer import Observers
from siemrelay.relay.assembly import FullDecoders
from siemrelay.relay.commands.tap import Tap
from siemrelay.relay.commands.through import Followed, follow
from siemrelay.relay.control import (
    Caller,
    Command,
    ControlAnswer,
    Emit,
    PauseRequest,
    ReloadRequest,
    ResumeRequest,
    TapRequest,
    TestRequest,
)
from siemrelay.relay.own_events import new_test_mark, own_event
from siemrelay.relay.pauses import Pauses
from siemrelay.relay.reload import Reloader
from siemrelay.relay.self_audit import SelfAudit
from siemrelay.relay.sink_group import SinkGroup
from siemrelay.relay.source_group import SourceGroup
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.stats import Stats

_log = structlog.get_logger()

# Each costs some hundredths of a processor while events come in quickly.
_MOST_TAPS: Final = 4


class Commands:
    """The commands that a running relay obeys. Changes of parts happen one at a time."""

    def __init__(
        self, reloader: Reloader, sinks: SinkGroup, sources: SourceGroup, pauses: Pauses,
        buffer: DiskBuffer, stats: Stats, observers: Observers, redactor: Redactor,
        decoders: FullDecoders, audit: SelfAudit,
    ) -> None:  # fmt: skip
        self._reloader, self._sinks, self._sources = reloader, sinks, sources
        self._pauses, self._buffer, self._stats = pauses, buffer, stats
        self._observers, self._redactor = observers, redactor
        self._decoders, self._audit, self._taps = decoders, audit, 0

    async def obey(self, command: Command, caller: Caller, emit: Emit) -> ControlAnswer:
        """Carry a command out; see `control.Handle`."""
        match command:
            case ReloadRequest():
                # The reload that switches the audit off is the last that it has.
                audited = self._audit.enabled
                answer = await self._reloader.reload(
                    discard_backlog=command.discard_backlog,
                    dry_run=command.dry_run,
                    environment=command.environment,
                )
                if not command.dry_run:
                    audit_reload(self._audit, answer, caller.person, uid=caller.uid, always=audited,
                                 discard_backlog=command.discard_backlog or None)  # fmt: skip
                return answer
            case PauseRequest():
                return await self._pause(command.sink, caller)
            case ResumeRequest():
                return await self._resume(command.sink, caller)
            case TapRequest():
                return await self._tap(command, caller, emit)
            case TestRequest():
                return await self._test(command, caller, emit)

    async def _pause(self, sink: str, caller: Caller) -> ControlAnswer:
        async with self._reloader.changing():
            if (fault := self._unfit(sink)) is not None:
                return ControlAnswer(False, [fault])
            if sink in self._pauses:
                return ControlAnswer(
                    True, [f"{sink} is paused already: {self._pauses.reason(sink)}"]
                )
            with trio.CancelScope(shield=True):
                unstored = await self._pauses.add(sink, str(caller))
                await self._sinks.pause(sink)
            _log.warning("sink paused", sink=sink, by=str(caller),
                         undelivered=self._sinks.places.backlog(sink))  # fmt: skip
            self._audit.note(SINK_PAUSED, f"{caller} paused the delivery to sink {sink}",
                             person=caller.person, sink=sink, uid=caller.uid)  # fmt: skip
            until = f"{sink} is paused until `siemrelay resume {sink}`"
            over = ", also across restarts" if unstored is None else ""
            lines = [f"{until}{over}; its records wait in the buffer until it needs the room"]
            if unstored is not None:
                lines.append(_unstored(unstored, "resumes the sink"))
            return ControlAnswer(True, lines)

    async def _resume(self, sink: str, caller: Caller) -> ControlAnswer:
        async with self._reloader.changing():
            if (fault := self._unfit(sink)) is not None:
                return ControlAnswer(False, [fault])
            if sink not in self._pauses:
                return ControlAnswer(True, [f"{sink} is not paused"])
            with trio.CancelScope(shield=True):
                unstored = await self._pauses.remove(sink)
                self._sinks.resume(sink)
            waiting = self._sinks.places.backlog(sink)
            _log.info("sink resumed", sink=sink, by=str(caller), undelivered=waiting)
            self._audit.note(SINK_RESUMED, f"{caller} resumed the delivery to sink {sink}",
                             person=caller.person, sink=sink, uid=caller.uid)  # fmt: skip
            lines = [f"{sink} is resumed; waiting records: {waiting:,}"]
            if unstored is not None:
                lines.append(_unstored(unstored, "pauses the sink again"))
            return ControlAnswer(True, lines)

    def _unfit(self, sink: str) -> str | None:
        if (enabled := self._sinks.enabled(sink)) is None:
            return f"unknown sink `{sink}`; the sinks are {', '.join(self._sinks.names)}"
        return None if enabled else f"sink {sink} is disabled: the configuration has `enabled: no`"

    async def _tap(self, command: TapRequest, caller: Caller, emit: Emit) -> ControlAnswer:
        await self._reloader.started.wait()
        config = self._reloader.config
        catalogue = config.catalogue()
        faults = [
            *self._unknown("sink", command.sinks, self._sinks.names),
            *self._unknown("source", command.sources, [*config.sources, OWN_SOURCE]),
            *filter(None, (entry_fault(entry, catalogue) for entry in command.types)),
        ]
        if self._taps >= _MOST_TAPS:
            faults.append(f"{_MOST_TAPS} taps are open already; close one")
        if faults:
            return ControlAnswer(False, faults)
        events = EventFilter(EventsOptions(include=command.types or [ANY]), catalogue)
        form = registry.build_format("json", "none", JsonOptions(), "")
        tap = Tap(
            frozenset(command.sinks), frozenset(command.sources), events,
            self._decoders, form, self._redactor, self._buffer.records,
        )  # fmt: skip
        self._taps += 1
        self._observers.add(tap)
        _log.info("tap opened", by=str(caller), pid=caller.pid)
        self._audit.note(TAP_OPENED, f"{caller} watches events", person=caller.person,
                         uid=caller.uid, sinks=command.sinks or None,
                         sources=command.sources or None)  # fmt: skip
        try:
            await tap.run(emit)
        finally:
            self._observers.remove(tap)
            self._taps -= 1
        raise AssertionError("a tap ends by cancellation only")

    async def _test(self, command: TestRequest, caller: Caller, emit: Emit) -> ControlAnswer:
        await self._reloader.started.wait()
        if self._stats.stopping:
            return ControlAnswer(False, ["the relay is stopping"])
        names = self._sinks.names
        if faults := self._unknown("sink", command.sinks, names):
            return ControlAnswer(False, faults)
        mark = new_test_mark()
        event_id, record = own_event(
            TEST, caller.person, ("relay", socket.gethostname()),
            f"{mark}: siemrelay test event through the running relay, sent by {caller.person}",
            test=True,
        )  # fmt: skip
        followed = Followed(event_id)
        sinks = [self._stats.sinks[name] for name in command.sinks or names]
        self._observers.add(followed)
        try:
            taken = await follow(record, sinks, self._sources.own_events, self._buffer,
                                 followed, emit, command.timeout_s)  # fmt: skip
        finally:
            self._observers.remove(followed)
        return ControlAnswer(taken, [f"test event {event_id}", mark])

    def _unknown(self, what: str, names: Iterable[str], known: Sequence[str]) -> list[str]:
        return [f"unknown {what} `{name}`; the {what}s are {', '.join(known)}"
                for name in names if name not in known]  # fmt: skip


def _unstored(reason: str, effect: str) -> str:
    return (
        f"this cannot be stored in `state_dir` yet ({reason}): a restart before then {effect}; it "
        "is stored as soon as that is possible"
    )


def audit_reload(audit: SelfAudit, answer: ControlAnswer, person: str, **attributes: Any) -> None:
    """Note a reload, by the person or (empty) by a signal, with its changes or its faults."""
    by = person or "a signal"
    if answer.done:
        audit.note(RELOADED, f"{by} reloaded the configuration", person=person,
                   changes=answer.lines, **attributes)  # fmt: skip
    else:
        audit.note(RELOAD_REFUSED, f"A reload by {by} was refused: {answer.lines[0]}",
                   person=person, outcome="failure", faults=answer.lines, **attributes)  # fmt: skip
