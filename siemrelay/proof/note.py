"""Signed notes with Ed25519 (C2SP signed-note, Go's `golang.org/x/mod/sumdb/note`).

A note is a text of lines, an empty line, and a line for each signature:

    — NAME BASE64(key id ‖ signature)

The key id is the first four bytes of SHA-256(NAME ‖ LF ‖ 0x01 ‖ public key).
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# The package cryptography is imported where a key is used: every start would pay for it.
_ED25519 = b"\1"
_KEY_BYTES = 32
_ID_BYTES = 4
_SIGNATURE_BYTES = 64
_MOST_SIGNATURES = 100  # as in Go's sumdb/note
_PRIVATE = "PRIVATE+KEY+"


def is_key_name(name: str) -> bool:
    """Whether a key may have this name: not empty, no spaces, no `+`."""
    return bool(name) and "+" not in name and name.isprintable() and not set(name) & set(" \u00a0")


class Verifier(msgspec.Struct, frozen=True):
    """A public key with its name."""

    name: str
    public: bytes

    @classmethod
    def read(cls, text: str) -> Verifier:
        """Read `NAME+ID+BASE64`. Raises ValueError with a sentence for a person."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        key = _decoded(encoded)
        if (
            not is_key_name(name)
            or key is None
            or len(key) != 1 + _KEY_BYTES
            or key[:1] != _ED25519
        ):
            raise ValueError("not a verifier key: write NAME+ID+KEY as `siemrelay seal key` prints")
        verifier = cls(name, key[1:])
        if verifier.id.hex() != key_id:
            raise ValueError("the verifier key is damaged: its id is not that of its key")
        return verifier

    @property
    def id(self) -> bytes:
        """The four bytes by which a signature names its key."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_ID_BYTES]

    @property
    def title(self) -> str:
        """NAME+ID, with which the key begins as it is written."""
        return f"{self.name}+{self.id.hex()}"

    def __str__(self) -> str:
        return f"{self.title}+{b64encode(_ED25519 + self.public).decode()}"

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether this key signed the text."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except InvalidSignature:
            return False
        return True


class Signer(msgspec.Struct, frozen=True):
    """A private key with its name."""

    name: str
    seed: bytes

    @classmethod
    def generate(cls, name: str) -> Signer:
        """A new key. Raises ValueError for a name that no key may have."""
        if not is_key_name(name):
            raise ValueError(f"{name!r} cannot name a key: no spaces, no `+`, not empty")
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def read(cls, text: str) -> Signer:
        """Read `PRIVATE+KEY+NAME+ID+BASE64`. Raises ValueError, without the key in its text."""
        text = text.strip()
        name, _, rest = text.removeprefix(_PRIVATE).partition("+")
        key_id, _, encoded = rest.partition("+")
        key = _decoded(encoded)
        if (not text.startswith(_PRIVATE) or not is_key_name(name) or key is None
                or len(key) != 1 + _KEY_BYTES or key[:1] != _ED25519):  # fmt: skip
            raise ValueError("not a signing key: it has the form PRIVATE+KEY+NAME+ID+KEY")
        signer = cls(name, key[1:])
        if signer.verifier.id.hex() != key_id:
            raise ValueError("the signing key is damaged: its id is not that of its key")
        return signer

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self._key.public_key().public_bytes_raw())

    @property
    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def written(self) -> str:
        """The key as `read` takes it: a secret."""
        key = b64encode(_ED25519 + self.seed).decode()
        return f"{_PRIVATE}{self.name}+{self.verifier.id.hex()}+{key}"

    def __repr__(self) -> str:
        return f"Signer({self.name!r}, ***)"

    def line(self, text: bytes) -> bytes:
        """The signature line for a text."""
        signed = b64encode(self.verifier.id + self._key.sign(text))
        return f"— {self.name} ".encode() + signed + b"\n"


def sign(text: bytes, signers: Iterable[Signer]) -> bytes:
    """The note: a text that ends with a line feed, signed by each of them."""
    assert text.endswith(b"\n"), "a note's text is of whole lines"
    return text + b"\n" + b"".join(signer.line(text) for signer in signers)


class OpenedNote(msgspec.Struct, frozen=True):
    """A note's text, the keys that signed it, and the names and ids of keys that are not known."""

    text: bytes
    verified: tuple[Verifier, ...]
    unknown: tuple[str, ...]


def open_note(note: bytes, verifiers: Iterable[Verifier]) -> OpenedNote:
    """Check the signatures of a note.

    Raises ValueError if it is malformed, or if a signature of one of the verifiers is false.
    """
    text, found, signatures = note.rpartition(b"\n\n")
    if not found or not signatures.endswith(b"\n"):
        raise ValueError("not a signed note")
    text += b"\n"
    known = {(verifier.name, verifier.id): verifier for verifier in verifiers}
    verified, unknown = list[Verifier](), list[str]()
    lines = signatures[:-1].split(b"\n")
    if len(lines) > _MOST_SIGNATURES:
        raise ValueError(f"a note with more than {_MOST_SIGNATURES} signatures")
    for line in lines:
        name, signed = _signature(line)
        verifier = known.get((name, signed[:_ID_BYTES]))
        if verifier is None:
            unknown.append(f"{name}+{signed[:_ID_BYTES].hex()}")
        elif verifier.verify(text, signed[_ID_BYTES:]):
            verified.append(verifier)
        else:
            raise ValueError(f"the signature of {name} is false")
    return OpenedNote(text, tuple(verified), tuple(unknown))


def _signature(line: bytes) -> tuple[str, bytes]:
    try:
        dash, name, encoded = line.decode().split(" ")
    except ValueError as error:
        raise ValueError("a malformed signature line") from error
    signed = _decoded(encoded)
    if dash != "—" or signed is None or len(signed) != _ID_BYTES + _SIGNATURE_BYTES:
        raise ValueError("a malformed signature line")
    return name, signed


def _decoded(encoded: str) -> bytes | None:
    try:
        decoded = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    # Bits at the end that stand for nothing must be zero: a text has one form.
    return decoded if b64encode(decoded).decode() == encoded else None
