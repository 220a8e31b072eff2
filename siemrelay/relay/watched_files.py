"""Looks at the files behind secrets and TLS: a change is taken without a reload.

A part that reads its TLS files for each connection uses new ones by itself; one that reads them
when it starts is restarted. A changed secret restarts the parts that use it. While new files cannot
be used, the parts go on with what they have; that is logged once, and shown until it is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
import trio

from siemrelay.config.models import RelayConfig, SinkConfig, SourceConfig
from siemrelay.config.requirements import pem_fault, pem_files
from siemrelay.net.pem import FileState, file_state
from siemrelay.net.tasks import next_second
from siemrelay.relay.reload import Reloader
from siemrelay.telemetry.stats import Stats

_log = structlog.get_logger()

# A renewed certificate or token waits at most twice this long: a change counts once two looks have
# found the same, so that no half-written file does.
_LOOK_EVERY_S: Final = 2

_KEPT: Final = "changed files cannot be used, the last good ones are"

States = dict[Path, FileState | None]


class _Watched:
    """The TLS files of one part: as they were when they were used or judged last."""

    def __init__(
        self, config: SinkConfig | SourceConfig, known: Mapping[Path, FileState | None]
    ) -> None:
        self.config, self.files = config, pem_files(config)
        self.known = {file: known.get(file) for file in self.files}
        self.seen = self.known

    def changed(self) -> bool:
        """Whether there is a change that two looks have found. Blocks on the disk."""
        before, self.seen = self.seen, _states(self.files)
        return self.seen == before and self.seen != self.known


class WatchedFiles:
    """The files of the running parts. `run` it once."""

    def __init__(self, reloader: Reloader, stats: Stats) -> None:
        self._reloader, self._stats = reloader, stats
        self._config: RelayConfig | None = None
        self._having_files: dict[tuple[str, str], SinkConfig | SourceConfig] = {}
        self._parts: dict[tuple[str, str], _Watched] = {}
        self._faults: dict[tuple[str, str], dict[str, str]] = {}
        self._secrets_seen: Mapping[Path, FileState | None] = {}
        self._secrets_tried: Mapping[Path, FileState | None] = {}

    async def run(self) -> None:
        """Look at the files again and again until cancelled."""
        while True:
            await self._look()
            await next_second(_LOOK_EVERY_S)

    async def _look(self) -> None:
        if self._config is not self._reloader.config:
            # To find them takes half a millisecond a part; checked by
            # test_the_parts_that_name_files_are_looked_for_once_in_a_configuration.
            self._config = self._reloader.config
            self._having_files = _with_parts(self._config)
        parts, known = self._having_files, self._reloader.tls_files
        used = self._reloader.secret_files

        def look() -> tuple[dict[tuple[str, str], str | None], States]:
            return self._changed(parts, known), _states([*used])

        if parts or self._parts or used:
            changed, secrets = await trio.to_thread.run_sync(look)
            for key, fault in changed.items():
                await self._note_tls(key, fault)
            await self._take_secrets(used, secrets)

    def _changed(
        self,
        parts: Mapping[tuple[str, str], SinkConfig | SourceConfig],
        known: Mapping[Path, FileState | None],
    ) -> dict[tuple[str, str], str | None]:
        """The parts of which files have changed, each with the fault of the new ones."""
        for key in self._parts.keys() - parts.keys():
            del self._parts[key]
        changed = {}
        for key, config in parts.items():
            watched = self._parts.get(key)
            if watched is None or watched.config != config:
                watched = self._parts[key] = _Watched(config, known)
            if watched.changed():
                watched.known = watched.seen
                changed[key] = pem_fault(config)
        return changed

    async def _note_tls(self, key: tuple[str, str], fault: str | None) -> None:
        section, name = key
        self._note(section, name, "TLS", fault or "")
        if fault is None:
            restarted = await self._reloader.take_tls_files(section, name)
            _log.info("changed TLS files are used for new connections", restarted=restarted,
                      **{section: name})  # fmt: skip

    async def _take_secrets(self, used: Mapping[Path, FileState | None], now: States) -> None:
        """Take the secrets anew if two looks at their files have found the same change."""
        before, self._secrets_seen = self._secrets_seen, now
        if now != before or now in (used, self._secrets_tried):
            return
        self._secrets_tried = now
        faults = await self._reloader.take_secrets()
        others = [f for f in faults if not f.key.startswith(("sources.", "sinks."))]
        for section, name in _with_parts(self._reloader.config, all_parts=True):
            at = f"{section}s.{name}."
            mine = [fault.message for fault in faults if fault.key.startswith(at)]
            if mine or not others:
                self._note(section, name, "secrets", "; ".join(mine))
        if others:
            _log.error(_KEPT, faults=[f"{fault.key}: {fault.message}" for fault in others])

    def _note(self, section: str, name: str, of: str, fault: str) -> None:
        stats = (self._stats.sinks if section == "sink" else self._stats.sources).get(name)
        faults = self._faults.setdefault((section, name), {})
        if stats is None or faults.get(of, "") == fault:
            return
        faults[of] = fault
        stats.credentials_fault = "; ".join(filter(None, faults.values()))
        if fault:
            _log.error(_KEPT, **{section: name}, reason=fault)
        else:
            _log.info("changed files can be used again", **{section: name})


def _with_parts(
    config: RelayConfig, *, all_parts: bool = False
) -> dict[tuple[str, str], SinkConfig | SourceConfig]:
    """The sources and enabled sinks that name PEM files, by section and name; or all parts."""
    parts: dict[tuple[str, str], SinkConfig | SourceConfig] = {
        ("sink", name): sink for name, sink in config.sinks.items() if sink.enabled
    }
    parts |= {("source", name): source for name, source in config.sources.items()}
    return parts if all_parts else {key: part for key, part in parts.items() if pem_files(part)}


def _states(files: list[Path]) -> States:
    return {file: file_state(file) for file in files}
