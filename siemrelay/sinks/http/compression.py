"""Gzip for the bodies of requests."""

from __future__ import annotations

import zlib
from typing import Final

# Audit events become a fifth; higher levels save a tenth of that for two to ten times the time.
_LEVEL: Final = 1

# A gzip header and trailer around the largest window.
_GZIP: Final = zlib.MAX_WBITS | 16


def gzipped(body: bytes) -> bytes:
    """The body in gzip (RFC 1952); the same bytes each time. Releases the interpreter's lock.

    With ISA-L, which there is for x86-64 and ARM64 only, four times as fast as with zlib: measured
    on 700 kB of events 0.66 and 2.87 µs an event.
    """
    try:
        from isal.isal_zlib import compress  # only a sink that compresses needs it
    except ImportError:
        return zlib.compress(body, _LEVEL, _GZIP)
    return compress(body, _LEVEL, _GZIP)
