"""TLS towards a queue: verified by default, with files for the queue's own client to read."""

from __future__ import annotations

from pydantic import Field, model_validator

from siemrelay.core.options import Options
from siemrelay.net.pem import AuthorityFile, CertificateFile, KeyFile


class BrokerTlsOptions(Options):
    """How the queue's server is verified, and what this side shows of itself."""

    ca: AuthorityFile | None = Field(
        None, description="authorities to trust (PEM), instead of the system's"
    )
    certificate: CertificateFile | None = Field(None, description="this side's certificate (PEM)")
    key: KeyFile | None = Field(None, description="its private key (PEM), if not in `certificate`")
    verify: bool = Field(True, description="`no` accepts any certificate: for trials only")

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> BrokerTlsOptions:
        if self.key is not None and self.certificate is None:
            raise ValueError("`key` needs `certificate` beside it")
        return self
