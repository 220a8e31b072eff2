"""TLS as a server over a trio stream, read by all that has come instead of record by record.

`trio.SSLStream` gives one TLS record a call, and many senders put each message into a record of its
own: at one turn of the loop and one hand-over for each, that is slower than plain TCP by a hundred.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import trio

# What one look at the socket takes: a few of TLS' largest records (16 KiB and a little).
_READ_BYTES: Final = 64 * 1024

_T = TypeVar("_T")


class TlsStream:
    """One client's connection. One task at a time may use it.

    It does not close what it stands on. A cancelled `receive_some` has taken nothing; after a
    cancelled `send_all` or handshake the connection is of no more use.
    """

    def __init__(self, plain: trio.SocketStream, context: ssl.SSLContext) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def do_handshake(self) -> None:
        """Agree with the client, who is told why if that fails.

        Raises BrokenResourceError: its cause is an SSLError if it was not the connection.
        """
        try:
            await self._completed(self._tls.do_handshake)
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                with suppress(trio.BrokenResourceError):
                    await self._flush()
            raise

    def certificate(self) -> bytes | None:
        """What the client showed, in DER."""
        return self._tls.getpeercert(binary_form=True)

    async def receive_some(self, max_bytes: int) -> bytes:
        """What has come, at least a byte; nothing at the end, with or without a farewell.

        Raises BrokenResourceError as `do_handshake` does.
        """
        return await self._completed(lambda: self._decrypted(max_bytes))

    async def send_all(self, data: bytes) -> None:
        """Send, waiting until the kernel has taken everything."""
        await self._completed(lambda: self._tls.write(data))

    def _decrypted(self, max_bytes: int) -> bytes:
        found, size = list[bytes](), 0
        while size < max_bytes:
            try:
                piece = self._tls.read(max_bytes - size)
            except ssl.SSLWantReadError:
                if not found:
                    raise
                break
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                break
            except ssl.SSLError:
                if not found:
                    raise
                break  # OpenSSL says it again at the next call
            if not piece:
                break
            found.append(piece)
            size += len(piece)
        return b"".join(found)

    async def _completed(self, step: Callable[[], _T]) -> _T:
        """The result of `step`, called again whenever more has come in."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._plain.receive_some(_READ_BYTES)
                self._incoming.write(data) if data else self._incoming.write_eof()
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._plain.send_all(self._outgoing.read())
