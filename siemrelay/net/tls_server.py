"""TLS as a server: who listens shows a certificate, and may demand one of each client.

Certificates are read again at a new connection when their files have changed; while new ones
cannot be used (a half-written file, a key that does not belong), the last good ones are.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from pathlib import Path
from typing import Annotated, Final, Literal

import structlog
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.options import Options
from siemrelay.net.pem import AuthorityFile, CertificateFile, KeyFile

_log = structlog.get_logger()

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")


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
    """What a listener shows, and what it wants to see."""

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
        default_factory=list,
        description="the only client certificates let in (`sha256:HEX`), of those that "
        "`client_ca` vouches for",
    )
    min_version: Annotated[Literal["1.2", "1.3"], BeforeValidator(_text)] = Field(
        "1.2", description="the oldest TLS version that is spoken"
    )

    @model_validator(mode="after")
    def _fingerprints_need_an_authority(self) -> ServerTlsOptions:
        if self.client_fingerprints and self.client_ca is None:
            raise ValueError("`client_fingerprints` needs `client_ca` beside it")
        return self


class TlsFilesUnusable(SiemrelayError):
    """The files behind a listener's TLS cannot be used; the text says which and what to do."""


_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(options: ServerTlsOptions) -> ssl.SSLContext:
    """A context for answering. Raises TlsFilesUnusable when a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[options.min_version]
    try:
        # Without a password of our own OpenSSL would ask the terminal for one.
        context.load_cert_chain(options.certificate, options.key, password=_no_password)
        if options.client_ca is not None:
            context.load_verify_locations(options.client_ca)
            # A client's own certificate in the file is trusted as it is, without its authority.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:
        files = ", ".join(map(str, _files(options)))
        raise TlsFilesUnusable(
            f"cannot use the TLS files {files}: {error}; check that they exist, are PEM, belong "
            "together, are readable and have no password"
        ) from error
    return context


def _no_password() -> str:
    return ""


def _files(options: ServerTlsOptions) -> list[Path]:
    return [file for file in (options.certificate, options.key, options.client_ca) if file]


class ServerContexts:
    """The context for the next connection, made again when a file behind it has changed.

    `current` reads files: call it in a thread, from one task at a time.
    """

    def __init__(self, options: ServerTlsOptions) -> None:
        self._options = options
        self._seen: list[tuple[int, int, int] | None] = []
        self._good: ssl.SSLContext | None = None

    def current(self) -> ssl.SSLContext:
        """A context of the files as they are, or of how they were when they could last be used.

        Raises TlsFilesUnusable when they never could.
        """
        # Looked at before they are read: a change in between is then read the next time.
        seen = [_state(file) for file in _files(self._options)]
        if self._good is None or seen != self._seen:
            try:
                self._good = server_context(self._options)
            except TlsFilesUnusable as error:
                if self._good is None:
                    raise
                _log.warning("new TLS files cannot be used, the last good ones are kept",
                             reason=str(error))  # fmt: skip
            self._seen = seen
        return self._good

    def admits(self, certificate: bytes | None) -> bool:
        """Whether `client_fingerprints` let in who showed this certificate (DER), if any."""
        wanted = self._options.client_fingerprints
        if not wanted:
            return True
        if certificate is None:
            return False
        shown = f"sha256:{hashlib.sha256(certificate).hexdigest()}"
        return any(hmac.compare_digest(shown, each) for each in wanted)


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
