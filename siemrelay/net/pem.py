"""Checks the PEM files of a configuration: finds the options that name one, and reads the files."""

from __future__ import annotations

import getpass
import ssl
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import msgspec
from pydantic import AfterValidator, BaseModel

from siemrelay.core.options import absolute

# A system's whole store of authorities is a fifth of it; a larger file is the wrong file.
_MAX_BYTES: Final = 4 << 20

_CERTIFICATE: Final = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN TRUSTED CERTIFICATE-----")
_KEY: Final = (b"PRIVATE KEY-----",)
_PASSWORD: Final = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
_DER: Final = b"\x30"

# Where OpenSSL gives no reason of its own.
_BAD: Final = "bad PEM"


class Pem(Enum):
    """The purpose of a PEM file."""

    AUTHORITY = auto()
    CERTIFICATE = auto()
    """This side's; with its key, if no other file has it."""
    KEY = auto()


_PemPath = Annotated[Path, AfterValidator(absolute)]
AuthorityFile = Annotated[_PemPath, Pem.AUTHORITY]
CertificateFile = Annotated[_PemPath, Pem.CERTIFICATE]
KeyFile = Annotated[_PemPath, Pem.KEY]


class PemFinding(msgspec.Struct, frozen=True):
    """A fault in the file of one option. Not `certain`: another user may be able to read it."""

    option: str
    message: str
    certain: bool = True


FileState = tuple[int, int, int]
"""Inode, size and time of the last change: another state means another content."""


def file_state(file: Path) -> FileState | None:
    """The state of a file; None if there is none or it cannot be looked at."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def files(options: BaseModel) -> list[Path]:
    """The PEM files that these options name (nested options left out)."""
    return [
        Path(value)
        for option, info in type(options).model_fields.items()
        if _kind(info.annotation, info.metadata) is not None
        and (value := getattr(options, option)) is not None
    ]


def findings(options: BaseModel) -> Iterator[PemFinding]:
    """The faults of the files that these options name (nested options left out). Reads them."""
    named: dict[Pem, tuple[str, Path]] = {}
    for option, info in type(options).model_fields.items():
        kind, value = _kind(info.annotation, info.metadata), getattr(options, option)
        if kind is not None and value is not None:
            named[kind] = option, Path(value)
    found = {kind: _judged(kind, *file) for kind, file in named.items()}
    yield from (finding for finding in found.values() if finding is not None)
    if Pem.CERTIFICATE in named and not any(found.get(k) for k in (Pem.CERTIFICATE, Pem.KEY)):
        yield from _pair(named)


def _kind(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> Pem | None:
    for item in metadata:
        if isinstance(item, Pem):
            return item
    parts = (_kind(part, getattr(part, "__metadata__", ())) for part in get_args(annotation))
    return next((kind for kind in parts if kind is not None), None)


def _judged(kind: Pem, option: str, file: Path) -> PemFinding | None:
    try:
        # A FIFO or a device would hang the start; a regular file answers.
        if not file.is_file():
            is_there = file.exists() or file.is_symlink()
            return PemFinding(
                option, f"{file} is not a file" if is_there else f"there is no file {file}"
            )
        with file.open("rb") as stream:
            data = stream.read(_MAX_BYTES)
    except PermissionError:
        message = (
            f"user {_user()}, who runs this, may not read {file}; the user that the relay runs as "
            "must be able to"
        )
        return PemFinding(option, message, certain=False)
    except OSError as error:
        return PemFinding(option, f"cannot read {file}: {error.strerror}")
    wrong = _no_key(file, data) if kind is Pem.KEY else _no_certificate(file, data)
    return PemFinding(option, wrong) if wrong else None


def _no_certificate(file: Path, data: bytes) -> str | None:
    if not any(begin in data for begin in _CERTIFICATE):
        return _not_pem(file, data, "CERTIFICATE", "x509")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError as error:
        return (
            f"{file} holds a certificate that cannot be read ({error.reason or _BAD}); is it whole?"
        )
    return None


def _no_key(file: Path, data: bytes) -> str | None:
    if not any(begin in data for begin in _KEY):
        return _not_pem(file, data, "PRIVATE KEY", "pkey")
    return _with_password(file, data)


def _with_password(file: Path, data: bytes) -> str | None:
    if any(mark in data for mark in _PASSWORD):
        return (
            f"the key in {file} has a password, which a service cannot type; remove it: "
            f"openssl pkey -in {file} -out KEY.pem"
        )
    return None


def _not_pem(file: Path, data: bytes, what: str, command: str) -> str:
    hint = "expected PEM"
    if data[:1] == _DER:
        hint = f"it looks like DER; make it PEM: openssl {command} -inform der -in {file}"
    return f"{file} holds no `-----BEGIN {what}-----`; {hint}"


def _pair(files: dict[Pem, tuple[str, Path]]) -> Iterator[PemFinding]:
    """The fault of a certificate and key that do not fit; each has been checked by itself."""
    option, certificate = files[Pem.CERTIFICATE]
    key_option, key = files.get(Pem.KEY, (option, certificate))
    if Pem.KEY not in files:
        data = certificate.read_bytes()
        if not any(begin in data for begin in _KEY):
            yield PemFinding(option, f"{certificate} holds no private key; name its file by `key`")
            return
        wrong = _with_password(certificate, data)
        if wrong is not None:
            yield PemFinding(option, wrong)
            return
    try:
        # Without a password of our own OpenSSL would ask the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, lambda: "")
    except ssl.SSLError as error:
        reason = error.reason or _BAD
        if reason.endswith("VALUES_MISMATCH"):
            yield PemFinding(key_option, f"the key in {key} does not belong to {certificate}")
        else:
            yield PemFinding(
                key_option, f"the key in {key} cannot be read ({reason}); is it whole?"
            )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "without a name"
