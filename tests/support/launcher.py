"""Starts `python -m siemrelay` from a process that has its modules loaded already.

A start takes 0.4 s of CPU, nearly all of it for imports, and the suite makes hundreds. So one
process for each worker of pytest imports what most relays use, and forks at every request. What it
forks is a process as any other: arguments, environment, working directory and standard streams are
its own, no other descriptor is open, and it ends as Python programs do. The tests of standard
input, the demo and the shell commands of the documents start the interpreter itself.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

_REQUEST_BYTES: Final = 1 << 20

# With these the interpreter itself begins otherwise, or the dynamic linker does.
_OF_THE_START: Final = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "TZ")

_LOADED: Final = (
    "cli.run", "cli.check", "cli.test", "cli.preview", "cli.live.status", "cli.buffer.buffer",
    "relay.relay", "relay.reload", "telemetry.endpoint", "telemetry.log",
    "sources.file.source", "sources.syslog.source", "sources.http.webhook",
    "decoders.json.decoder", "decoders.syslog.decoder", "formats.json", "formats.raw",
    "sinks.stream.tcp", "sinks.file.sink", "sinks.http.sink",
)  # fmt: skip
"""Modules of siemrelay; the rest is imported by what needs it, as ever."""


class Process:
    """One process that was forked; the part of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, pidfd: int, ended: IO[bytes], command: Sequence[str]) -> None:
        """`pidfd` becomes readable when it ends, then `ended` has its exit code."""
        self.pid, self.args = pid, command
        self.returncode: int | None = None
        self._pidfd, self._ended = pidfd, ended

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code, negative after a signal. Raises TimeoutExpired."""
        if self.returncode is None:
            ready, _, _ = select.select([self._ended], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._ended.read())
            self._ended.close()
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: signal.Signals | int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends right now
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str], *, stdin: int, stdout: int, stderr: int,
    environment: Mapping[str, str] | None = None,
) -> Process | subprocess.Popen[bytes]:  # fmt: skip
    """Start `siemrelay` with these arguments; the descriptors are its standard streams."""
    wanted = dict(os.environ if environment is None else environment)
    if _begins(wanted) != _begins(os.environ):
        command = [sys.executable, "-m", "siemrelay", *arguments]
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=wanted)
    return _launcher().start(arguments, (stdin, stdout, stderr), wanted)


def run(
    *arguments: str, input: str = "", environment: Mapping[str, str] | None = None,
    timeout_s: float = 60,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run `siemrelay` with these arguments to its end, as `subprocess.run` does."""
    with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        stdin.write(input.encode())
        stdin.seek(0)
        process = start(
            arguments, stdin=stdin.fileno(), stdout=stdout.fileno(), stderr=stderr.fileno(),
            environment=environment,
        )  # fmt: skip
        try:
            code = process.wait(timeout_s)
        finally:
            process.kill()
            process.wait()
        for file in (stdout, stderr):
            file.seek(0)
        return subprocess.CompletedProcess(
            ["siemrelay", *arguments], code, stdout.read().decode(), stderr.read().decode()
        )


def _begins(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in environment.items() if name.startswith(_OF_THE_START)
    }  # fmt: skip


class _Launcher:
    """The other side of `_serve`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket, self._lock = ours, threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        atexit.register(self.close)

    def start(
        self, arguments: Sequence[str], streams: Sequence[int], environment: Mapping[str, str]
    ) -> Process:
        request = json.dumps({
            "arguments": arguments, "environment": dict(environment), "directory": str(Path.cwd()),
        })  # fmt: skip
        ended, tells = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._socket, [request.encode()], [*streams, tells])
                pid, (pidfd,), _, _ = socket.recv_fds(self._socket, 99, 1)
        finally:
            os.close(tells)
        return Process(int(pid), pidfd, os.fdopen(ended, "rb", 0), ["siemrelay", *arguments])

    def close(self) -> None:
        """End it, and whatever it has started."""
        self._socket.close()
        self._process.wait(20)


_launcher = cache(_Launcher)


def _serve(server: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork at every request; returns in each child, with its request and its streams."""
    children: dict[int, tuple[int, int]] = {}
    waiting = select.poll()
    waiting.register(server, select.POLLIN)
    while True:
        for descriptor, _ in waiting.poll():
            if descriptor != server.fileno():
                pid, tells = children.pop(descriptor)
                waiting.unregister(descriptor)
                _, status = os.waitpid(pid, 0)
                with suppress(BrokenPipeError):
                    os.write(tells, b"%d" % os.waitstatus_to_exitcode(status))
                os.close(tells)
                os.close(descriptor)
                continue
            data, descriptors, _, _ = socket.recv_fds(server, _REQUEST_BYTES, 4)
            if not data:
                for pid, _ in children.values():
                    os.kill(pid, signal.SIGKILL)
                raise SystemExit
            *streams, tells = descriptors
            if not (pid := os.fork()):
                return json.loads(data), streams
            for each in streams:
                os.close(each)
            pidfd = os.pidfd_open(pid)
            children[pidfd] = pid, tells
            waiting.register(pidfd, select.POLLIN)
            socket.send_fds(server, [b"%d" % pid], [pidfd])


def _main() -> None:
    import_module("siemrelay.__main__")
    del sys.modules["siemrelay.__main__"]  # each child runs it
    for name in _LOADED:
        import_module(f"siemrelay.{name}")
    gc.freeze()  # a child that ends would copy every page that its collector looks at
    with socket.socket(fileno=int(sys.argv[1])) as server:
        request, streams = _serve(server)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = ["siemrelay", *request["arguments"]]
    runpy.run_module("siemrelay", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
