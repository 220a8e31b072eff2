"""RFC 5424 in over TCP, RFC 5424 out over TCP: events/s and CPU per event, beside rsyslog."""

from __future__ import annotations

import contextlib
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

from tests.bench import corpus
from tests.bench.daemon import Counter, connected, rsyslog, rsyslogd, run_settings, usage
from tests.support.servers import free_port

_PATIENCE_S: Final = 300
_ROUNDS: Final = 3
_DISTINCT: Final = 20_000
_HEADER: Final = b'<110>1 2026-01-01T00:00:00.000Z host app 7 ID1 [audit@32473 outcome="success"] '

_RSYSLOG: Final = """
global(workDirectory="{folder}" maxMessageSize="64k")
main_queue(queue.type="Direct")
module(load="imptcp")
template(name="out" type="string" string="<%PRI%>1 %TIMESTAMP:::date-rfc3339% %HOSTNAME% %APP-NAME%\
 %PROCID% %MSGID% %STRUCTURED-DATA% %msg%\\n")
input(type="imptcp" address="127.0.0.1" port="{listen}" ruleset="r")
ruleset(name="r" queue.size="50000" queue.dequeueBatchSize="1024" queue.timeoutEnqueue="600000"
        {queue}) {{
  action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" template="out"
         TCP_Framing="traditional" action.resumeRetryCount="-1" queue.type="Direct")
}}
"""
_DISK: Final = 'queue.type="Disk" queue.filename="q" queue.checkpointInterval="1000"'
_MEMORY: Final = 'queue.type="LinkedList"'

Start = Callable[[Path, int, int], contextlib.AbstractContextManager[Popen[bytes]]]
"""Starts a relay in a folder that listens on the first port and sends to the second."""


@contextlib.contextmanager
def _siemrelay(folder: Path, listen: int, port: int, **options: Any) -> Iterator[Popen[bytes]]:
    source = {"type": "syslog", "listen": f"tcp://127.0.0.1:{listen}"}
    sink = {"protocol": "tcp", "server": "127.0.0.1", "port": port, **options}
    with run_settings(folder, source, {"siem": sink}) as process:
        yield process


@contextlib.contextmanager
def _rsyslog(folder: Path, listen: int, port: int, queue: str) -> Iterator[Popen[bytes]]:
    settings = _RSYSLOG.format(folder=folder, listen=listen, port=port, queue=queue)
    with rsyslog(folder, settings) as process:
        yield process


_RELAYS: Final[dict[str, Start]] = {
    "siemrelay, format syslog": _siemrelay,
    "siemrelay, format raw": partial(_siemrelay, format="raw"),
    "siemrelay, rewrite: yes": partial(_siemrelay, rewrite=True),
}
_OTHERS: Final[dict[str, Start]] = {
    "rsyslog, disk queue (no fsync)": partial(_rsyslog, queue=_DISK),
    "rsyslog, memory queue": partial(_rsyslog, queue=_MEMORY),
}


def run(events: int) -> None:
    """Print the medians of runs that take turns; the start of the relay is not counted."""
    relays = {**_RELAYS, **(_OTHERS if rsyslogd() else {})}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "events.ndjson"
        corpus.write(path, _DISTINCT)
        lines = [_HEADER + line for line in path.read_bytes().splitlines(keepends=True)]
    data, turns = b"".join(lines), max(events // len(lines), 1)
    rounds = [{name: _round(start, data, turns) for name, start in relays.items()}
              for _ in range(_ROUNDS)]  # fmt: skip
    print(
        f"{turns * _DISTINCT} RFC 5424 messages in over TCP and out over TCP; medians of {_ROUNDS}"
    )
    for name in relays:
        per_s, cpu_us = (statistics.median(each[name][at] for each in rounds) for at in range(2))
        print(f"  {name:32} {per_s:9,.0f} events/s {cpu_us:6.2f} µs of CPU per event")
    if not rsyslogd():
        print("no rsyslogd here to compare with")


def _round(start: Start, data: bytes, turns: int) -> tuple[float, float]:
    """Events/s from the first byte that is sent to the last that arrives, CPU µs per event."""
    receiver, listen = Counter(_DISTINCT * turns), free_port()
    with tempfile.TemporaryDirectory() as name, start(Path(name), listen, receiver.port) as process:
        with connected(listen) as sender:
            before, _ = usage(process.pid)
            started = time.monotonic()
            sending = threading.Thread(target=_send, args=(sender, data, turns))
            sending.start()
            if not receiver.done.wait(_PATIENCE_S):
                raise SystemExit(f"only {receiver.count} of {receiver.wanted} events arrived")
            took_s = receiver.arrivals[-1] - started
            after, _ = usage(process.pid)
            sending.join()
    return receiver.wanted / took_s, (after - before) / receiver.wanted * 1e6


def _send(sender: socket.socket, data: bytes, turns: int) -> None:
    for _ in range(turns):
        sender.sendall(data)
