"""The real daemon as a child process, and its metrics."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from siemrelay.core.errors import SiemrelayError
from siemrelay.demo.receivers import HOST
from siemrelay.demo.setup import DemoFiles

# A start takes half a second; a machine that needs longer than this has other problems.
_START_S: Final = 20.0
_ASK_AGAIN_S: Final = 0.02

# Its `shutdown_timeout` is 3 s; a longer stop is a fault.
_STOP_S: Final = 8.0

# An answer of the endpoint takes milliseconds; a daemon busy catching up takes a little longer.
_ANSWER_S: Final = 5.0

# The time for the same after a second Ctrl-C.
_HURRY_S: Final = 4.0

# Between the closing of its sockets and the notice of its exit.
_EXIT_NOTICE_S: Final = 1.0

_READ_BYTES: Final = 64 * 1024
_ANSWER_BYTES: Final = 4 << 20

_LOG_LINES_SHOWN: Final = 12


class DaemonFailed(SiemrelayError):
    """The daemon ended or hangs: show `log_tail`, the end of its log, and exit with 1."""

    def __init__(self, reason: str, log_tail: list[str]) -> None:
        super().__init__(reason)
        self.reason, self.log_tail = reason, log_tail


@dataclass(frozen=True, slots=True)
class SinkFigures:
    """One sink in the daemon's own metrics."""

    state: str = "waiting"
    delivered: int = 0
    filtered: int = 0
    backlog: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """The daemon's own metrics that the demo shows."""

    stored: int = 0
    sinks: Mapping[str, SinkFigures] = field(default_factory=dict)


class Daemon:
    """`siemrelay run` as a child in a session of its own, so that Ctrl-C is the demo's alone."""

    def __init__(self, files: DemoFiles) -> None:
        self.files = files
        self._process: trio.Process
        self._stopping = False
        self._ended = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start it and wait for its end. Raises DaemonFailed if it ends by itself.

        If cancelled, it gets SIGTERM and after four seconds SIGKILL.
        """
        with self.files.log.open("wb") as log:
            command = [sys.executable, "-m", "siemrelay", "run", "-c", str(self.files.file)]
            async with trio.open_nursery() as nursery:
                self._process = await nursery.start(
                    partial(
                        trio.run_process, command, check=False, stdin=subprocess.DEVNULL,
                        stdout=log, stderr=log, start_new_session=True, deliver_cancel=_terminate,
                    )
                )  # fmt: skip
                task_status.started()
        self._ended.set()
        if not self._stopping:
            raise self._failed(f"the daemon ended with exit code {self._process.returncode}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def until_ready(self) -> None:
        """Wait until it takes records. Raises DaemonFailed if that takes too long."""
        with trio.move_on_after(_START_S):
            while True:
                try:
                    status, _ = await self._get("/readyz")
                except OSError:
                    status = 0  # it does not listen yet
                if status == 200:
                    return
                await trio.sleep(_ASK_AGAIN_S)
        raise self._failed(f"the daemon is not ready after {_START_S:.0f} s")

    async def figures(self) -> Figures:
        """Its metrics now. Raises DaemonFailed when it does not answer."""
        try:
            _, body = await self._get("/metrics")
        except OSError as error:
            # It has probably just ended: then `run` raises and cancels this.
            await trio.sleep(_EXIT_NOTICE_S)
            raise self._failed(f"the daemon's endpoint does not answer: {error}") from error
        return read_metrics(body.decode())

    async def stop(self) -> None:
        """Send SIGTERM and wait; raises DaemonFailed if it does not end."""
        self._stopping = True
        self._process.send_signal(signal.SIGTERM)
        with trio.move_on_after(_STOP_S):
            await self._ended.wait()
            if self._process.returncode:
                raise self._failed(f"the daemon ended with exit code {self._process.returncode}")
            return
        raise self._failed(f"the daemon did not end within {_STOP_S:.0f} s")

    def _failed(self, reason: str) -> DaemonFailed:
        return DaemonFailed(reason, self.log_tail())

    def log_tail(self) -> list[str]:
        """The end of its log."""
        try:
            lines = self.files.log.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return lines[-_LOG_LINES_SHOWN:]

    async def _get(self, path: str) -> tuple[int, bytes]:
        import h11  # only the demo's own requests need it

        http, body, status = h11.Connection(h11.CLIENT), b"", 0
        headers = [("Host", HOST), ("Connection", "close")]
        request = http.send(h11.Request(method="GET", target=path, headers=headers)) or b""
        request += http.send(h11.EndOfMessage()) or b""
        try:
            with trio.fail_after(_ANSWER_S):
                async with await trio.open_tcp_stream(HOST, self.files.endpoint_port) as stream:
                    await stream.send_all(request)
                    while not isinstance(event := http.next_event(), h11.EndOfMessage):
                        if event is h11.NEED_DATA:
                            http.receive_data(await stream.receive_some(_READ_BYTES))
                        elif isinstance(event, h11.Response):
                            status = event.status_code
                        elif isinstance(event, h11.Data):
                            body += event.data
                            if len(body) > _ANSWER_BYTES:
                                raise OSError("the endpoint's answer has no end")
        except (trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError) as error:
            raise OSError(f"the endpoint did not answer: {error}") from error
        return status, body


async def _terminate(process: trio.Process) -> None:
    process.terminate()
    with trio.move_on_after(_HURRY_S):
        await process.wait()
        return
    process.kill()


def read_metrics(text: str) -> Figures:
    """Parse the demo's figures from Prometheus' text format."""
    from prometheus_client.parser import text_string_to_metric_families

    stored = 0
    sinks: dict[str, dict[str, int]] = {}
    states: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sink = sample.labels.get("sink", "")
            if sample.name == "siemrelay_source_records_total":
                stored += int(sample.value)
            elif sample.name == "siemrelay_sink_state" and sample.value:
                states[sink] = sample.labels["state"]
            elif sample.name in _SINK_SAMPLES:
                sinks.setdefault(sink, {})[_SINK_SAMPLES[sample.name]] = int(sample.value)
    return Figures(
        stored,
        {name: SinkFigures(states.get(name, "waiting"), **found) for name, found in sinks.items()},
    )  # fmt: skip


_SINK_SAMPLES: Final = {
    "siemrelay_sink_delivered_total": "delivered",
    "siemrelay_sink_filtered_total": "filtered",
    "siemrelay_sink_backlog_records": "backlog",
}
