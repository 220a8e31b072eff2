"""Time stamps of seals (RFC 3161): an authority vouches that a seal existed at its time.

The stamp is of the SHA-256 of the seal's note, so of origin, size, root, tally and signature. The
package rfc3161-client (Trail of Bits; the extra `timestamps`) reads and checks it: ASN.1, the CMS
signature and the chain of certificates, as of the time of the stamp, are none of our own code.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from siemrelay.core.extras import TIMESTAMPS
from siemrelay.core.times import rfc3339
from siemrelay.proof.report import Stamped
from siemrelay.proof.seal import Seal, Timestamp

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

MOST_RESPONSE_BYTES: Final = 16 * 1024
"""Of an authority's answer: those of public ones, with three certificates, have 3 to 7 KiB."""

# DER: [0] IMPLICIT SET, and lengths that follow in so many octets.
_CERTIFICATES: Final = 0xA0
_LONG_FORM: Final = 0x80

# OpenSSL's reason, in what rfc3161-client says about it.
_WHY: Final = re.compile(r'data: "Verify error: ([^"]+)"')

_SHA256: Final = "2.16.840.1.101.3.4.2.1"

# A seal that was stamped before it says it was made: clocks differ by so much at most.
_CLOCKS_DIFFER_S: Final = 300.0


class TimestampRequest(msgspec.Struct, frozen=True):
    """A question for an authority: `body` in DER, with a nonce; the digest that it is about."""

    body: bytes
    nonce: int
    digest: bytes

    @classmethod
    def of(cls, note: bytes) -> TimestampRequest:
        """Asks about a seal's note, and for the certificates that `check` needs."""
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

        builder = TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256)
        request = builder.nonce(nonce=True).cert_request(cert_request=True).build()
        assert request.nonce is not None
        return cls(request.as_bytes(), request.nonce, sha256(note).digest())

    def accept(self, response: bytes) -> datetime:
        """The time in the answer to this question.

        Raises ValueError, with a sentence for a person, for a refusal, or an answer to anything
        else. Who signed it is for `check` to see.
        """
        read = _granted(response)
        info = read.tst_info
        if info.nonce != self.nonce:
            raise ValueError("it has another nonce: an old answer, sent again")
        if info.message_imprint.message != self.digest or _hash_of(read) != _SHA256:
            raise ValueError("it is about something else than the seal")
        if not read.signed_data.certificates:
            raise ValueError("it has no certificate, though asked for it")
        return info.gen_time


def check(response: bytes, note: bytes, authorities: Sequence[Certificate]) -> datetime:
    """The time at which a note existed, as one of the authorities, or one below them, vouches.

    Raises ValueError, with a sentence for a person, if nothing of this is proven.
    """
    from rfc3161_client import VerificationError, VerifierBuilder

    read = _granted(response)
    if read.tst_info.message_imprint.message != sha256(note).digest() or _hash_of(read) != _SHA256:
        raise ValueError("it is of something else than this seal")
    try:
        verifier = VerifierBuilder(roots=list(authorities)).build()
        # A damaged certificate makes cryptography warn before the signature is found to be false.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verifier.verify(read, sha256(note).digest())
    except (VerificationError, ValueError) as error:
        why = _WHY.search(str(error))
        raise ValueError(
            f"none of the given authorities vouches for it: {why[1] if why else error}"
        ) from error
    return read.tst_info.gen_time


class TimestampCheck:
    """Judges the time stamps of sealed streams by the authorities that somebody trusts."""

    def __init__(self, authorities: Sequence[Certificate] = ()) -> None:
        """Without authorities, time stamps are counted and prove nothing."""
        self._authorities = authorities
        self._kept: dict[str, list[Timestamp]] = {}

    def add(self, stream: str, timestamp: Timestamp) -> None:
        """Add one that the relay itself has kept, of a seal of that stream."""
        self._kept.setdefault(stream, []).append(timestamp)

    def judge(
        self, stream: str, seals: Sequence[Seal]
    ) -> tuple[int, Stamped | None, list[tuple[int, str]]]:
        """How many the stream has; the one of the largest tree that counts; what is wrong.

        The last: numbers of seals, and a sentence for each.
        """
        carried = (seal.timestamp for seal in seals)
        found = dict.fromkeys(filter(None, (*carried, *self._kept.get(stream, ()))))
        by_number = {seal.tally.number: seal for seal in seals}
        best, wrong = None, list[tuple[int, str]]()
        for stamp in found if self._authorities else ():
            seal = by_number.get(stamp.number)
            if seal is None:  # not in this export
                continue
            try:
                at = self._time_of(stamp, seal)
            except ValueError as error:
                wrong.append((stamp.number, f"the time stamp of this seal proves nothing: {error}"))
                continue
            if best is None or seal.tree.size > best.size:
                best = Stamped(stamp.number, seal.tree.size, rfc3339(at.timestamp()))
        return len(found), best, wrong

    def _time_of(self, stamp: Timestamp, seal: Seal) -> datetime:
        at = check(stamp.response, seal.note, self._authorities)
        made = datetime.fromisoformat(seal.tally.at)
        if made.timestamp() - at.timestamp() > _CLOCKS_DIFFER_S:
            raise ValueError(
                f"it is of {rfc3339(at.timestamp())}, and the seal says that it was made later, at "
                f"{seal.tally.at}: the relay's clock was wrong"
            )
        return at


def read_authorities(pem: bytes) -> list[Certificate]:
    """The certificates of a PEM file. Raises ValueError, with a sentence for a person."""
    from cryptography.x509 import load_pem_x509_certificates

    if TIMESTAMPS.missing():
        raise ValueError(f"{TIMESTAMPS.absence}; {TIMESTAMPS.advice}")
    try:
        return load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ValueError(f"not certificates in PEM: {error}") from error


def _granted(response: bytes) -> TimeStampResponse:
    from rfc3161_client import PKIStatus, decode_timestamp_response

    if len(response) > MOST_RESPONSE_BYTES:
        raise ValueError(f"it is longer than {MOST_RESPONSE_BYTES // 1024} KiB")
    try:
        read = decode_timestamp_response(_with_sorted_certificates(response))
        status, why = PKIStatus(read.status), "; ".join(read.status_string)
        if status is PKIStatus.GRANTED:
            read.tst_info  # noqa: B018  (raises unless there is a token)
    except (ValueError, IndexError) as error:
        raise ValueError(f"it is not a time stamp: {error}") from error
    if status is not PKIStatus.GRANTED:
        raise ValueError(f"it is a refusal: {status.name.lower()}" + f" ({why})" * bool(why))
    return read


class _Element(NamedTuple):
    """An element of DER: its tag, and where it begins, where its content begins, and its end."""

    tag: int
    begin: int
    content: int
    end: int


def _with_sorted_certificates(response: bytes) -> bytes:
    """The answer with its certificates in the order of DER, which many authorities do not keep.

    rfc3161-client refuses others; no signature covers their order. Raises ValueError for an answer
    of another form.
    """
    # TimeStampResp → timeStampToken → [0] content → SignedData (RFC 5652, 5.1) → [0] certificates
    inside = partial(_elements, response)
    (whole,) = inside(0, len(response))
    _status, *token = inside(whole.content, whole.end)
    if not token:  # of a refusal
        return response
    *_, content = inside(token[0].content, token[0].end)
    for signed_data in inside(content.content, content.end):
        for field in inside(signed_data.content, signed_data.end):
            if field.tag == _CERTIFICATES:
                found = [response[c.begin : c.end] for c in inside(field.content, field.end)]
                inner = b"".join(sorted(found))
                return response[: field.content] + inner + response[field.end :]
    return response


def _elements(data: bytes, at: int, end: int) -> list[_Element]:
    """The elements in a stretch of DER. Raises ValueError."""
    found = []
    while at < end:
        tag, content = data[at], at + 2
        length = int.from_bytes(data[at + 1 : content])
        if length >= _LONG_FORM:
            octets = length - _LONG_FORM
            length = int.from_bytes(data[content : content + octets])
            content += octets
        found.append(_Element(tag, at, content, content + length))
        at = content + length
    if at != end:
        raise ValueError("an element is cut off")
    return found


def _hash_of(response: TimeStampResponse) -> str:
    return response.tst_info.message_imprint.hash_algorithm.dotted_string
