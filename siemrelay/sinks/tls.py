"""TLS towards a peer: verified by default, against the system's authorities or one's own."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from siemrelay.errors import SinkHolds
from siemrelay.options import Options


class TlsOptions(Options):
    """How the peer is verified, and what this side shows of itself."""

    ca: Path | None = Field(None, description="authorities to trust (PEM), instead of the system's")
    certificate: Path | None = Field(None, description="this side's certificate (PEM)")
    key: Path | None = Field(None, description="its private key (PEM), if not in `certificate`")
    server_name: str | None = Field(None, description="the name to verify, if not the address's")
    verify: bool = Field(True, description="`no` accepts any certificate: for trials only")

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> TlsOptions:
        if self.key is not None and self.certificate is None:
            raise ValueError("`key` needs `certificate` beside it")
        return self


def client_context(options: TlsOptions) -> ssl.SSLContext:
    """A context for connecting, TLS 1.2 or newer. Raises SinkHolds when a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=options.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(f) for f in (options.ca, options.certificate, options.key) if f)
        raise SinkHolds(
            f"cannot use the TLS files {files}: {error}",
            advice="check that they exist, are PEM, belong together and are readable",
        ) from error
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def describe_tls(tls: ssl.SSLObject) -> str:
    """`TLSv1.3, peer NAME, certificate valid until DATE` of an established connection."""
    found: dict[str, Any] = tls.getpeercert() or {}
    subject = {name: value for pairs in found.get("subject", ()) for name, value in pairs}
    names = [value for _, value in found.get("subjectAltName", ())]
    peer = subject.get("commonName") or ", ".join(map(str, names[:3])) or "not verified"
    until = f", certificate valid until {found['notAfter']}" if "notAfter" in found else ""
    return f"{tls.version()}, peer {peer}{until}"
