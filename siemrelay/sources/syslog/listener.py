"""The base of the syslog listeners: an address, limits per peer, and the source's activity."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from typing import Any, Final

import trio

from siemrelay.net.body_memory import BodyMemory
from siemrelay.net.peers import plain_address
from siemrelay.net.rejection_log import RejectionLog
from siemrelay.net.tasks import Activity
from siemrelay.sources.contract import Intake
from siemrelay.sources.syslog.address import SyslogAddress
from siemrelay.sources.syslog.options import SyslogOptions
from siemrelay.sources.syslog.rate_limit import PeerRateLimiter
from siemrelay.wire.framing.contract import MAX_WHOLE_BYTES

# Incomplete messages of all connections together are whole up to here; beyond, long ones come in
# parts of CROWDED_BYTES, so that thousands of peers cannot fill the memory.
_HELD_BYTES: Final = 64 << 20
# The same for the connections of all sources.
_PROCESS_BYTES: Final = 128 << 20
CROWDED_BYTES: Final = 64 * 1024
"""The limit of one connection while all of them together hold too much."""

_process_bytes: Final = trio.lowlevel.RunVar[int]("bytes of incomplete messages", 0)


class SourceActivity(Activity):
    """State shared by all connections of a source, over all its listeners.

    `held_bytes` are in memory as incomplete messages.
    """

    def __init__(self, *, authenticates: bool = False) -> None:
        """`authenticates`: over TLS, clients are let in with a certificate only."""
        super().__init__()
        self.held_bytes = 0
        self.relp_memory = BodyMemory(MAX_WHOLE_BYTES, authenticates=authenticates)
        self._large_reads = trio.Lock()

    async def yield_after_large_read(self) -> None:
        """Let every other task run before the next large read of this source is looked at.

        In the order of arrival, so a flood on one connection takes no more than its share.
        """
        async with self._large_reads:
            await trio.lowlevel.checkpoint()

    def hold(self, more_bytes: int) -> None:
        """Count bytes of incomplete messages, for this source and for all; below 0 fewer."""
        self.held_bytes += more_bytes
        _process_bytes.set(_process_bytes.get() + more_bytes)

    @property
    def crowded(self) -> bool:
        """Whether all connections together hold as much in memory as they may."""
        return self.held_bytes > _HELD_BYTES or _process_bytes.get() > _PROCESS_BYTES


class SyslogListener(ABC):
    """Receives messages at the sockets of one address and hands them over to the intake."""

    def __init__(
        self, address: SyslogAddress, options: SyslogOptions, intake: Intake, log: Any,
        activity: SourceActivity,
    ) -> None:  # fmt: skip
        self._options, self._intake, self._activity = options, intake, activity
        self._is_local = bool(address.path)
        self._rejections = RejectionLog(log, str(address), intake.refused)
        self._rate = PeerRateLimiter(options.rate) if options.rate is not None else None

    @abstractmethod
    async def prepare(self) -> None:
        """Read the files that it needs, before its sockets are opened. Raises TlsFilesUnusable."""

    @abstractmethod
    async def run(
        self, sockets: list[trio.socket.SocketType],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        """Serve until cancelled, then close the sockets.

        What the kernel has received by then is still handed over, within a second.
        """

    def _host_of(self, peer: str) -> str:
        """The host of messages from a peer that name none."""
        return socket.gethostname() if self._is_local else plain_address(peer)
