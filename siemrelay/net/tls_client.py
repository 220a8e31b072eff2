"""TLS as a client: the peer is verified by default, by the system's authorities or given ones.

Certificate files are read again for a new connection when they have changed (`tls_files`).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol, Self

from pydantic import Field, model_validator

from siemrelay.core.errors import SinkHolds, SinkWaits
from siemrelay.core.options import Options
from siemrelay.net.pem import AuthorityFile, CertificateFile, KeyFile
from siemrelay.net.tls_files import CurrentContext, TlsFilesUnusable, loading, no_password


class ClientTlsOptions(Options):
    """Options about verifying the peer, and about this side's certificate."""

    ca: AuthorityFile | None = Field(
        None, description="authorities to trust (PEM), instead of the system's"
    )
    certificate: CertificateFile | None = Field(None, description="this side's certificate (PEM)")
    key: KeyFile | None = Field(None, description="its private key (PEM), if not in `certificate`")
    verify: bool = Field(True, description="`no` accepts any certificate: for trials only")

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> Self:
        if self.key is not None and self.certificate is None:
            raise ValueError("`key` needs `certificate` beside it")
        return self


class TlsOptions(ClientTlsOptions):
    """Options for a peer whose certificate may have another name than its address."""

    server_name: str | None = Field(
        None, min_length=1, description="the name to verify, if not the address's"
    )


def client_context(options: ClientTlsOptions) -> ssl.SSLContext:
    """A context for connecting, TLS 1.2 or newer. Raises TlsFilesUnusable."""
    with loading(options):
        context = ssl.create_default_context(cafile=options.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key, password=no_password)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class TlsContexts:
    """The context for the next connection of a sink, by its files as they are then.

    `peer_expires_at` is the expiry of the peer's last certificate, in seconds since the epoch; None
    if none was verified.
    """

    def __init__(self, options: ClientTlsOptions) -> None:
        self._options = options
        self._context = CurrentContext(lambda: client_context(options), self._files)
        self.peer_expires_at: float | None = None

    def current(self) -> ssl.SSLContext:
        """See `CurrentContext.get`; raises SinkHolds where that raises TlsFilesUnusable."""
        try:
            return self._context.get()
        except TlsFilesUnusable as error:
            raise SinkHolds(error.reason, advice=error.advice) from error

    def _files(self) -> Iterator[Path]:
        options, system = self._options, ssl.get_default_verify_paths()
        authorities = (options.ca,) if options.ca else (system.cafile, system.capath)
        for file in (*authorities, options.certificate, options.key):
            if file is not None:
                yield Path(file)


class Secured(Protocol):
    """The part of an established TLS connection that is read here: `ssl.SSLObject` has it, and
    `trio.SSLStream` forwards to it."""

    def getpeercert(self) -> Any:
        """See `ssl.SSLSocket`."""

    def version(self) -> str | None:
        """See `ssl.SSLSocket`."""


def expires_at(tls: Secured) -> float | None:
    """When the peer's certificate expires, in seconds since the epoch; None if not verified."""
    until = (tls.getpeercert() or {}).get("notAfter")
    return float(ssl.cert_time_to_seconds(until)) if until else None


def describe_tls(tls: Secured) -> str:
    """`TLSv1.3, peer NAME, certificate valid until DATE` of an established connection."""
    found: dict[str, Any] = tls.getpeercert() or {}
    subject = {name: value for pairs in found.get("subject", ()) for name, value in pairs}
    names = [value for _, value in found.get("subjectAltName", ())]
    peer = subject.get("commonName") or ", ".join(map(str, names[:3])) or "not verified"
    until = f", certificate valid until {found['notAfter']}" if "notAfter" in found else ""
    return f"{tls.version()}, peer {peer}{until}"


# A connection that was cut within TLS is a passing fault of the network.
CUT_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

# OpenSSL's X509_V_ERR_…, from x509_vfy.h.
_EXPIRED: Final = frozenset({9, 10})  # not yet valid, expired
_OTHER_NAME: Final = frozenset({62, 64})  # host name mismatch, address mismatch

_NO_TLS: Final = "the peer does not speak TLS on this port"
_PLAINLY: Final = "check the port, or choose a protocol without TLS"
_SHOW_CERTIFICATE: Final = (
    "the receiver wants a client certificate: set `tls: {certificate: FILE, key: FILE}` to one of "
    "an authority that it trusts"
)
_OTHER_CERTIFICATE: Final = (
    "the receiver does not accept this side's certificate: renew `tls: {certificate, key}`, or let "
    "the receiver trust its authority"
)
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": ("the peer wants a certificate of this side", _SHOW_CERTIFICATE),
    "HANDSHAKE_FAILURE": (
        "the peer refused the TLS handshake",
        "it may want a client certificate (`tls: {certificate, key}`) or older ciphers; its log "
        "says which",
    ),
    "UNKNOWN_CA": ("the peer does not know the authority of this side's certificate",
                   _OTHER_CERTIFICATE),
    "CERTIFICATE_EXPIRED": ("this side's certificate has expired", _OTHER_CERTIFICATE),
    "CERTIFICATE_REVOKED": ("this side's certificate was revoked", _OTHER_CERTIFICATE),
    "CERTIFICATE_UNKNOWN": ("the peer refused this side's certificate", _OTHER_CERTIFICATE),
    "BAD_CERTIFICATE": ("the peer refused this side's certificate", _OTHER_CERTIFICATE),
    "UNSUPPORTED_CERTIFICATE": ("the peer refused this side's certificate", _OTHER_CERTIFICATE),
    "ACCESS_DENIED": ("the peer denied access to this side's certificate", _OTHER_CERTIFICATE),
    "UNRECOGNIZED_NAME": ("the peer does not know the name that it was called by",
                          "set `tls: {server_name: NAME}` to a name in its certificate"),
    "PROTOCOL_VERSION": ("the peer speaks no TLS version that is safe",
                         "let the receiver speak TLS 1.2 or 1.3"),
    "UNSUPPORTED_PROTOCOL": ("the peer speaks no TLS version that is safe",
                             "let the receiver speak TLS 1.2 or 1.3"),
    "WRONG_VERSION_NUMBER": (_NO_TLS, _PLAINLY),
    "HTTP_REQUEST": (_NO_TLS, _PLAINLY),
    "RECORD_LAYER_FAILURE": (_NO_TLS, _PLAINLY),
    "PACKET_LENGTH_TOO_LONG": (_NO_TLS, _PLAINLY),
}  # fmt: skip
"""The end of OpenSSL's reason → fault and advice."""


def known_alert(reason: str) -> tuple[str, str] | None:
    """Fault and advice for OpenSSL's reason (`TLSV13_ALERT_…`); None if it is unknown."""
    return next((known for ending, known in _ALERTS.items() if reason.endswith(ending)), None)


def tls_error(error: ssl.SSLError, *, plainly: str = _PLAINLY) -> SinkWaits | SinkHolds:
    """The error to raise for one of TLS; `plainly` is the advice where the peer has no TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return SinkHolds(
            f"the peer's certificate is not accepted: {error.verify_message.rstrip('.')}",
            advice=_certificate_advice(error.verify_code),
        )
    if isinstance(error, CUT_OFF):
        return SinkWaits("the peer ended the connection within TLS")
    reason = error.reason or str(error)
    known = known_alert(reason)
    if known is not None:
        advice = plainly if known[0] is _NO_TLS else known[1]
        return SinkHolds(f"{known[0]} ({reason})", advice=advice)
    return SinkHolds(
        f"TLS failed: {reason}",
        advice="does the receiver speak TLS on this port, and does it want a client certificate?",
    )


def _certificate_advice(code: int) -> str:
    if code in _EXPIRED:
        return "renew the receiver's certificate, and check the clocks of both machines"
    if code in _OTHER_NAME:
        return (
            "call the receiver by a name that is in its certificate, or set "
            "`tls: {server_name: NAME}` to one"
        )
    return "set `tls: {ca: FILE}` to the authority that signed it"
