"""The syslog source: UDP, TCP, TLS, RELP and Unix sockets, at one address or several."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from siemrelay.net.tasks import report_alive
from siemrelay.sources.contract import Intake, SourceKind
from siemrelay.sources.syslog.datagram import DatagramListener
from siemrelay.sources.syslog.listener import SourceActivity, SyslogListener
from siemrelay.sources.syslog.options import SyslogOptions
from siemrelay.sources.syslog.relp import RelpListener
from siemrelay.sources.syslog.stream import StreamListener

_LISTENERS: Final[dict[str, type[SyslogListener]]] = {
    "udp": DatagramListener, "unixgram": DatagramListener,
    "relp": RelpListener, "relp+tls": RelpListener,
}  # fmt: skip
"""By scheme; all others are plain streams."""


class SyslogSource:
    """Receives what is sent to its addresses; one that cannot be opened stops them all."""

    def __init__(self, name: str, options: SyslogOptions) -> None:
        self.name, self._options = name, options

    async def run(self, intake: Intake, *, drain: bool) -> None:
        """Serve for ever; with `drain`, return when nothing came for a second and all have left.

        If cancelled, what the kernel has confirmed to senders is still read and handed over, if
        that takes no more than a second; then connections are closed. Raises TlsFilesUnusable
        before it listens where there can be no TLS, ListenRefused when an address cannot be taken.
        """
        options = self._options
        certified = options.tls is not None and options.tls.client_ca is not None
        activity = SourceActivity(authenticates=certified)
        log = structlog.get_logger().bind(source=self.name)
        async with trio.open_nursery() as nursery:
            for address, bind in zip(options.addresses, options.binds, strict=True):
                kind = _LISTENERS.get(address.scheme, StreamListener)
                listener = kind(address, options, intake, log, activity)
                await listener.prepare()
                sockets = await intake.sockets.take(self.name, bind, mode=options.mode)
                port = None if address.path else sockets[0].getsockname()[1]
                await nursery.start(listener.run, sockets)
                log.info("listening", listen=str(address), port=port)
            nursery.start_soon(report_alive, intake.progress)
            if drain:
                await activity.until_quiet()
                nursery.cancel_scope.cancel()


SYSLOG: Final = SourceKind(
    SyslogOptions, SyslogSource, "syslog", "syslog from the network and from Unix sockets"
)
