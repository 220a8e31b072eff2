"""TLS as a server: shows a certificate, and may demand one of each client.

Certificate files are read again at a new connection when they have changed (`tls_files`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import trio
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.options import Options
from siemrelay.net.pem import AuthorityFile, CertificateFile, KeyFile
from siemrelay.net.tls_files import CurrentContext, loading, no_password

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")

# One read of the socket takes at most this: a few of TLS' largest records (16 KiB and a little).
_READ_BYTES: Final = 64 * 1024

_T = TypeVar("_T")


def _fingerprint(value: str) -> str:
    kind, _, digits = value.strip().lower().partition(":")
    digits = digits.replace(":", "")
    if kind != "sha256" or not _FINGERPRINT.fullmatch(digits):
        raise ValueError(
            "write sha256:HEX of the certificate in DER, as `openssl x509 -fingerprint -sha256` "
            "shows it"
        )
    return f"sha256:{digits}"


def _text(value: object) -> object:
    return str(value) if isinstance(value, float) else value  # YAML reads 1.3 as a number


Fingerprint = Annotated[str, AfterValidator(_fingerprint)]


class ServerTlsOptions(Options):
    """The certificate that a listener shows, and the ones it asks clients for."""

    certificate: CertificateFile = Field(
        description="the listener's certificate and its chain (PEM)"
    )
    key: KeyFile | None = Field(None, description="its private key (PEM), if not in `certificate`")
    client_ca: AuthorityFile | None = Field(
        None,
        description="authorities (PEM) one of which must have signed each client's certificate; "
        "or the clients' certificates themselves, self-signed or not",
    )
    client_fingerprints: list[Fingerprint] = Field(
        default=[],
        description="the only client certificates let in (`sha256:HEX`), of those that "
        "`client_ca` vouches for",
    )
    min_version: Annotated[
        Literal["1.2", "1.3"],
        BeforeValidator(_text, json_schema_input_type=Literal["1.2", "1.3"] | float),
    ] = Field("1.2", description="the oldest TLS version that is spoken")

    @model_validator(mode="after")
    def _fingerprints_need_an_authority(self) -> ServerTlsOptions:
        if self.client_fingerprints and self.client_ca is None:
            raise ValueError("`client_fingerprints` needs `client_ca` beside it")
        return self


_NO_TLS: Final = "the client does not speak TLS: let it use TLS, or listen without"
_NOT_TRUSTED: Final = (
    "the client does not accept this listener's certificate: give the client the authority that "
    "signed it, and call the listener by a name in it"
)
_REASONS: Final = {
    # librelp asks for an anonymous server unless it has a certificate of its own.
    "NO_SHARED_CIPHER": "no cipher in common; the client may want a server without a certificate, "
    "as rsyslog's omrelp does: give it `tls.myCert` and `tls.myPrivKey`",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client shows no certificate, which `client_ca` asks "
    "for",
    "UNKNOWN_CA": _NOT_TRUSTED, "BAD_CERTIFICATE": _NOT_TRUSTED,
    "CERTIFICATE_UNKNOWN": _NOT_TRUSTED,
    "CERTIFICATE_EXPIRED": "this listener's certificate has expired: renew `certificate`",
    "UNSUPPORTED_PROTOCOL": "the client's TLS is too old: it has to speak `min_version` or later",
    "WRONG_VERSION_NUMBER": _NO_TLS, "HTTP_REQUEST": _NO_TLS,
}  # fmt: skip
"""The end of OpenSSL's reason → the fault, and what to do."""


def _described(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"the client's certificate is not accepted: {why}; `client_ca` needs its authority"
    reason = getattr(error, "reason", None) or ""
    known = next((text for ending, text in _REASONS.items() if reason.endswith(ending)), None)
    return f"{known} ({reason})" if known else str(error)


class HandshakeFailed(SiemrelayError):
    """A client is not served: close its connection. The text says why."""


_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(options: ServerTlsOptions) -> ssl.SSLContext:
    """A context for accepting. Raises TlsFilesUnusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[options.min_version]
    # A client of TLS 1.2 could have this side negotiate again and again; OpenSSL 1.1 lets it.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # No tickets after the handshake. A syslog client that never reads would close its socket with
    # them unread; its kernel then sends RST, and this one drops what it has received and not read.
    # Checked by test_a_client_that_never_reads_loses_nothing_by_closing.
    context.num_tickets = 0
    with loading(options):
        context.load_cert_chain(options.certificate, options.key, password=no_password)
        if options.client_ca is not None:
            context.load_verify_locations(options.client_ca)
            # A client's own certificate in the file is trusted as it is, without its authority.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.verify_mode = ssl.CERT_REQUIRED
    return context


def _files(options: ServerTlsOptions) -> list[Path]:
    return [file for file in (options.certificate, options.key, options.client_ca) if file]


class TlsServer:
    """Makes TLS streams of accepted connections, with the certificate that is current at each."""

    def __init__(self, options: ServerTlsOptions) -> None:
        self._options, self._reading = options, trio.Lock()
        self._context = CurrentContext(lambda: server_context(options), lambda: _files(options))

    async def prepare(self) -> ssl.SSLContext:
        """The context for the next connection. See `CurrentContext.get`."""
        async with self._reading:
            return await trio.to_thread.run_sync(self._context.get)

    async def secure(self, stream: trio.SocketStream, within_s: float) -> TlsStream:
        """The stream after its handshake, which may take `within_s` seconds.

        Raises HandshakeFailed, after the client was sent the alert. If cancelled, the stream is of
        no more use.
        """
        secured = TlsStream(stream, await self.prepare())
        try:
            with trio.fail_after(within_s):
                await secured.do_handshake()
        except trio.TooSlowError as error:
            raise HandshakeFailed(f"no TLS: no handshake within {within_s:g} s") from error
        except (OSError, trio.BrokenResourceError) as error:
            raise HandshakeFailed(f"no TLS: {_described(error.__cause__ or error)}") from error
        if not self._admits(secured.certificate):
            raise HandshakeFailed("its certificate is not one of `client_fingerprints`")
        return secured

    def _admits(self, certificate: bytes | None) -> bool:
        wanted = self._options.client_fingerprints
        if not wanted:
            return True
        if certificate is None:
            return False
        shown = f"sha256:{hashlib.sha256(certificate).hexdigest()}"
        return any(hmac.compare_digest(shown, each) for each in wanted)


class TlsStream:
    """TLS over one client's connection; a read returns all that has arrived. Does not close it.

    `trio.SSLStream` gives one TLS record a call, and many senders put each message into a record of
    its own: at one turn of the loop and one hand-over each, that is a hundred times slower than
    plain TCP. One task at a time may use it. A cancelled `receive_some` has taken nothing; after a
    cancelled `send_all` or handshake the connection is of no more use.
    """

    def __init__(self, plain: trio.SocketStream, context: ssl.SSLContext) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def do_handshake(self) -> None:
        """Negotiate with the client; if that fails, it is sent an alert with the reason.

        Raises BrokenResourceError: its cause is an SSLError if it was not the connection.
        """
        try:
            await self._completed(self._tls.do_handshake)
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                with suppress(trio.BrokenResourceError):
                    await self._flush()
            raise

    @property
    def certificate(self) -> bytes | None:
        """The client's certificate in DER; None if it showed none."""
        return self._tls.getpeercert(binary_form=True)

    async def wait_readable(self) -> None:
        """Wait until something has come; it may be less than `receive_some` needs."""
        if self._incoming.pending or self._tls.pending():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._plain.socket)

    async def receive_some(self, max_bytes: int) -> bytes:
        """Received bytes, at least one; none at the end, with or without a close_notify.

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
                break  # OpenSSL raises it again at the next call
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
