"""The control socket: commands to a running relay from root or the relay's own user.

A Unix socket in `state_dir`, which nobody else can enter (0700). One JSON object per line each way.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

_log = structlog.get_logger()

SOCKET_NAME: Final = "control.sock"

# A request is a few names; a client that sends nothing is dropped.
_MAX_REQUEST_BYTES: Final = 64 * 1024
_REQUEST_TIMEOUT_S: Final = 5.0


class ReloadRequest(msgspec.Struct, tag="reload", tag_field="command"):
    """Reload the configuration file; `dry_run` only answers with the plan."""

    dry_run: bool = False
    discard_backlog: list[str] = msgspec.field(default_factory=list)


class ControlAnswer(msgspec.Struct):
    """`lines` are for a person; `done` is False when the request was refused."""

    done: bool
    lines: list[str]


@contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """The socket's address, however long the directory's path is (a limit of 107 bytes)."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


async def serve_control(
    state_dir: Path, handle: Callable[[ReloadRequest], Awaitable[ControlAnswer]]
) -> None:
    """Answer requests, one at a time for each connection, until cancelled."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(FileNotFoundError):  # of a relay that was killed; the directory is locked now
        (state_dir / SOCKET_NAME).unlink()
    with short_path(state_dir) as path:
        sock.bind(path)
    sock.listen(8)
    sock.setblocking(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))

    async def serve_one(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):  # the client is gone
                if (request := await _request(stream)) is not None:
                    await stream.send_all(msgspec.json.encode(await handle(request)) + b"\n")

    try:
        await trio.serve_listeners(serve_one, [listener])
    finally:
        with suppress(OSError):
            (state_dir / SOCKET_NAME).unlink()


async def _request(stream: trio.SocketStream) -> ReloadRequest | None:
    data = b""
    with trio.move_on_after(_REQUEST_TIMEOUT_S):
        while b"\n" not in data and len(data) <= _MAX_REQUEST_BYTES:
            some = await stream.receive_some(4096)
            if not some:
                break
            data += some
    try:
        return msgspec.json.decode(data.partition(b"\n")[0], type=ReloadRequest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # not a client of ours
