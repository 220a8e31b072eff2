"""Sinks that connect, take a little and reset: what each failure leaves in memory."""

from __future__ import annotations

import gc
import random
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from siemrelay import registry
from siemrelay.buffer.buffer import DiskBuffer
from siemrelay.buffer.cursors import SinkPolicy
from siemrelay.formats.raw import Raw, RawOptions
from siemrelay.pipeline.batching import DeliveryBatch
from siemrelay.pipeline.delivery import Delivery
from siemrelay.telemetry.stats import BufferStats
from tests.support.receivers import LINGER_RESET, Receiver
from tests.unit.pipeline.test_delivery import QUICK, Rig

FLAPS = 60

# Batches of the connection under way, at the most: sent, being sent, made.
IN_FLIGHT = 8

# Far more than the peer takes, so that every connection breaks with messages on their way.
RECORDS = [random.Random(n).randbytes(150).hex() for n in range(1000)]

WEB = {"url": "http://127.0.0.1:{port}/"}
SINKS: dict[str, dict[str, Any]] = {
    "tcp": {"server": "127.0.0.1"},
    "tls": {"server": "127.0.0.1"},
    "relp": {"server": "127.0.0.1"},
    "http": WEB,
    "otlp": WEB,
    "splunk-hec": WEB,
    "elasticsearch": WEB,
}


class Flapping(Receiver):
    """Accepts, takes so many bytes, and resets; `flapped` is set after so many times."""

    def __init__(self, takes_bytes: int, flaps: int) -> None:
        super().__init__()
        self.flapped = threading.Event()
        self._takes_bytes, self._flaps = takes_bytes, flaps
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port = self._listener.getsockname()[1]
        self._spawn(self._flap)

    def _flap(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    taken = 0
                    with suppress(ConnectionError):
                        while taken < self._takes_bytes:
                            data = connection.recv(self._takes_bytes)
                            if not data:
                                break
                            taken += len(data)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
                self._flaps -= 1
                if not self._flaps:
                    self.flapped.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._join()
        self._listener.close()


@pytest.mark.parametrize(
    ("protocol", "takes_bytes"),
    # A handshake is less than the larger number, and the peer would wait for the rest.
    [
        (name, takes_bytes)
        for name in SINKS
        for takes_bytes in (1, 5_000)
        if takes_bytes == 1 or name not in ("tls", "relp")
    ],
)
async def test_a_sink_that_fails_again_and_again_leaves_nothing_to_the_collector(
    protocol: str, takes_bytes: int, tmp_path: Path
) -> None:
    kind = registry.PROTOCOLS[protocol]
    with ExitStack() as stack:
        peer = stack.enter_context(Flapping(takes_bytes, FLAPS))
        settings = {
            key: value.format(port=peer.port) if isinstance(value, str) else value
            for key, value in SINKS[protocol].items()
        }
        if "port" in kind.options.model_fields:
            settings["port"] = peer.port
        options = kind.options.model_validate(settings)
        buffer = stack.enter_context(
            DiskBuffer(tmp_path / "state", max_size_bytes=1 << 30, keep_s=1e9, stats=BufferStats())
        )
        buffer.set_sinks({"s": SinkPolicy()})
        rig, limits = Rig(buffer), kind.limits(options)
        maker = rig.maker(limits, kind.wrap(Raw(RawOptions()), options))
        await rig.add(*RECORDS)
        delivery = Delivery("s", kind.build(options), maker, limits, buffer, rig.stats, QUICK)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delivery.run)
            stack.callback(gc.enable)
            gc.collect()
            gc.disable()
            assert await trio.to_thread.run_sync(peer.flapped.wait, 60)
            runs = sum(type(each) is DeliveryBatch for each in gc.get_objects())
            nursery.cancel_scope.cancel()
            assert runs <= IN_FLIGHT
            assert gc.collect() < FLAPS, "less than one object a failure"
