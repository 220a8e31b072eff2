"""Obeys the commands from the control socket."""

from __future__ import annotations

import structlog
import trio

from siemrelay.relay.control import (
    Caller,
    Command,
    ControlAnswer,
    Emit,
    PauseRequest,
    ReloadRequest,
    ResumeRequest,
)
from siemrelay.relay.pauses import Pauses
from siemrelay.relay.reload import Reloader
from siemrelay.relay.sink_group import SinkGroup

_log = structlog.get_logger()


class Commands:
    """What a running relay does when it is told to. Changes of parts happen one at a time."""

    def __init__(self, reloader: Reloader, sinks: SinkGroup, pauses: Pauses) -> None:
        self._reloader, self._sinks, self._pauses = reloader, sinks, pauses

    async def obey(self, command: Command, caller: Caller, emit: Emit) -> ControlAnswer:
        """Carry a command out; see `control.Handle`."""
        match command:
            case ReloadRequest():
                return await self._reloader.reload(
                    discard_backlog=command.discard_backlog, dry_run=command.dry_run
                )
            case PauseRequest():
                return await self._pause(command.sink, caller)
            case ResumeRequest():
                return await self._resume(command.sink)

    async def _pause(self, sink: str, caller: Caller) -> ControlAnswer:
        async with self._reloader.changing():
            if (fault := self._unfit(sink)) is not None:
                return ControlAnswer(False, [fault])
            if sink in self._pauses:
                return ControlAnswer(
                    True, [f"{sink} is paused already: {self._pauses.reason(sink)}"]
                )
            with trio.CancelScope(shield=True):
                try:
                    await self._pauses.add(sink, str(caller))
                except OSError as error:
                    return ControlAnswer(False, [f"the pause cannot be stored: {error}"])
                await self._sinks.pause(sink)
            _log.warning("sink paused", sink=sink, by=str(caller),
                         undelivered=self._sinks.backlog(sink))  # fmt: skip
            return ControlAnswer(True, [
                f"{sink} is paused until `siemrelay resume {sink}`, also over restarts; its "
                "records wait in the buffer until it needs the room"
            ])  # fmt: skip

    async def _resume(self, sink: str) -> ControlAnswer:
        async with self._reloader.changing():
            if (fault := self._unfit(sink)) is not None:
                return ControlAnswer(False, [fault])
            if sink not in self._pauses:
                return ControlAnswer(True, [f"{sink} is not paused"])
            with trio.CancelScope(shield=True):
                try:
                    await self._pauses.remove(sink)
                except OSError as error:
                    return ControlAnswer(False, [f"the end of the pause cannot be stored: {error}"])
                self._sinks.resume(sink)
            waiting = self._sinks.backlog(sink)
            _log.info("sink resumed", sink=sink, undelivered=waiting)
            return ControlAnswer(True, [f"{sink} is resumed; {waiting:,} records wait for it"])

    def _unfit(self, sink: str) -> str | None:
        if (enabled := self._sinks.enabled(sink)) is None:
            return f"unknown sink `{sink}`; the sinks are {', '.join(self._sinks.names)}"
        return None if enabled else f"sink {sink} is disabled: the configuration has `enabled: no`"
