"""Servers in TLS whose certificates the tests' own authority has issued."""

from __future__ import annotations

import ssl

import trustme


def server_context(
    certificate: trustme.LeafCert, *, clients_of: trustme.CA | None = None
) -> ssl.SSLContext:
    """A server with that certificate; `clients_of`: it takes only that authority's clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if clients_of is not None:
        clients_of.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
