"""Files of TLS contexts that cannot be used: the message names the file and its fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from siemrelay.net.tls_client import ClientTlsOptions, client_context
from siemrelay.net.tls_files import TlsFilesUnusable
from siemrelay.net.tls_server import ServerTlsOptions, server_context

CONTEXTS: dict[str, Callable[[Path, Path], object]] = {
    "server": lambda cert, key: server_context(ServerTlsOptions(certificate=cert, key=key)),
    "client": lambda cert, key: client_context(ClientTlsOptions(certificate=cert, key=key)),
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [("half a k", "`key`: {key} holds no `-----BEGIN PRIVATE KEY-----`"),
     (None, "`key`: there is no file {key}"),
     ("another", "`key`: the key in {key} does not belong to {certificate}")],
)  # fmt: skip
@pytest.mark.parametrize("side", CONTEXTS)
def test_the_file_that_is_no_good_is_named_with_its_fault(
    tmp_path: Path, content: str | None, reason: str, side: str
) -> None:
    authority = trustme.CA()
    issued, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    if content == "another":
        other.private_key_pem.write_to_path(str(key))
    elif content is not None:
        key.write_text(content)
    with pytest.raises(TlsFilesUnusable) as refused:
        CONTEXTS[side](certificate, key)
    assert refused.value.reason.startswith(reason.format(key=key, certificate=certificate))
    assert refused.value.advice == "a corrected file is taken by itself"
