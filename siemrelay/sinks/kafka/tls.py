"""Why a broker's certificate is not accepted, which librdkafka does not say: asked for once more.

It tells expired, foreign and differently named certificates by the same words, and each is mended
elsewhere.
"""

from __future__ import annotations

import re
from typing import Final

from siemrelay.core.errors import DeliveryError, SinkHolds, SinkWaits
from siemrelay.net.tls_client import TlsContexts
from siemrelay.sinks.contract import no_report
from siemrelay.sinks.kafka.options import KafkaOptions
from siemrelay.sinks.stream.connection import connect
from siemrelay.sinks.stream.failover import Address

# `ssl://HOST:PORT/bootstrap: SSL handshake failed: …`, `sasl_ssl://[::1]:9093/3: …`
_BROKER: Final = re.compile(r"(?:sasl_)?ssl://\[?([^/\]]+)\]?:(\d+)/.*verif", re.IGNORECASE)


async def explained(held: SinkHolds, options: KafkaOptions) -> DeliveryError:
    """The same with the reason that Python's TLS gives at that broker, if it is about that."""
    found = _BROKER.match(held.reason)
    if found is None:
        return held
    broker = Address(found[1], int(found[2]))
    try:
        opened = await connect(broker, options.timeout, no_report, TlsContexts(options.tls))
    except SinkHolds as again:
        return SinkHolds(f"broker {broker}: {again.reason}", advice=again.advice)
    except SinkWaits:
        return held  # it was there a moment ago, and said this
    await opened.aclose()
    return held
