"""Serves the control socket: who sends a command, and what becomes of a client that goes away."""

from __future__ import annotations

import socket
import struct
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from siemrelay.relay.control import (
    SOCKET_NAME,
    Caller,
    ControlAnswer,
    ControlLine,
    ControlRequest,
    Handle,
    own_directory,
    real_path,
    short_path,
)

_log = structlog.get_logger()

# A request is a few names; a client that sends nothing is dropped.
_MAX_REQUEST_BYTES: Final = 64 * 1024
_REQUEST_TIMEOUT_S: Final = 5.0

# Commands at the same time; those above wait.
_CONNECTIONS: Final = 16


async def serve_control(state_dir: Path, handle: Handle, listening: trio.Event) -> None:
    """Obey commands, one for each connection, until cancelled. Sets `listening` when it does.

    A client that goes away cancels its command; `handle` shields what must not stop half-way.
    """
    directory = own_directory(state_dir)
    if directory != state_dir and _answers(directory):
        _log.warning("another relay has its control socket there; this one's is in state_dir",
                     directory=str(directory), state_dir=str(state_dir))  # fmt: skip
        directory = state_dir
    sock = _bound(directory)
    listening.set()
    connections = trio.Semaphore(_CONNECTIONS)

    async def serve_one(stream: trio.SocketStream) -> None:
        async with stream, connections:
            with suppress(trio.BrokenResourceError):  # the client is gone
                await _serve(stream, state_dir, handle)

    try:
        await trio.serve_listeners(
            serve_one, [trio.SocketListener(trio.socket.from_stdlib_socket(sock))]
        )
    finally:
        with suppress(OSError):
            (directory / SOCKET_NAME).unlink()


def _bound(directory: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(FileNotFoundError):  # of a relay that was killed
        (directory / SOCKET_NAME).unlink()
    with short_path(directory) as path:
        sock.bind(path)
        Path(path).chmod(0o660)
    sock.listen(_CONNECTIONS)
    sock.setblocking(False)
    return sock


def _answers(directory: Path) -> bool:
    with suppress(OSError), short_path(directory) as path:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
            sock.settimeout(_REQUEST_TIMEOUT_S)
            sock.connect(path)
            return True
    return False


async def _serve(stream: trio.SocketStream, state_dir: Path, handle: Handle) -> None:
    sending = trio.Lock()

    async def emit(line: ControlLine) -> None:
        async with sending:
            await stream.send_all(msgspec.json.encode(line) + b"\n")

    async def cancel_when_gone(scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some(4096):
                pass
        scope.cancel()

    if (request := await _request(stream)) is None:
        return
    if request.state_dir != (here := real_path(state_dir)):
        await emit(ControlAnswer(False, [f"this relay's state_dir is {here}"], elsewhere=True))
        return
    caller = await _caller(stream, request.person)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_when_gone, nursery.cancel_scope)
        await emit(await handle(request.command, caller, emit))
        nursery.cancel_scope.cancel()


async def _request(stream: trio.SocketStream) -> ControlRequest | None:
    data = b""
    with trio.move_on_after(_REQUEST_TIMEOUT_S):
        while b"\n" not in data and len(data) <= _MAX_REQUEST_BYTES:
            some = await stream.receive_some(4096)
            if not some:
                break
            data += some
    try:
        return msgspec.json.decode(data.partition(b"\n")[0], type=ControlRequest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # not a client of ours


async def _caller(stream: trio.SocketStream, person: str) -> Caller:
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", credentials)
    # Only root may speak for somebody else. A name service may ask the network: not on the loop.
    name = person if uid == 0 and person else await user_name(uid)
    return Caller(uid, pid, name)


async def user_name(uid: int) -> str:
    """The name of a user of this machine, or `uid N`."""
    return await trio.to_thread.run_sync(_user_name, uid)


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return f"uid {uid}"
