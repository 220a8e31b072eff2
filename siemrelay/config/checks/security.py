"""Warnings of `check`: settings that are allowed and that a security engineer would question."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from siemrelay.config.load import Loaded
from siemrelay.config.secrets import secrets_of
from siemrelay.config.yaml_document import KeyPath
from siemrelay.core.errors import Fault
from siemrelay.net.peers import is_loopback
from siemrelay.net.tls_client import ClientTlsOptions
from siemrelay.net.tls_server import ServerTlsOptions
from siemrelay.sources.http.options import WebhookOptions

_PLAIN_HTTP: Final = re.compile(r"http://(?:[^/@]*@)?(?:\[([^\]]*)\]|([^:/?#]*))", re.IGNORECASE)
_SECRET_FILE: Final = re.compile(r"\$\{file:([^}]+)\}")


def security_remarks(loaded: Loaded) -> Iterator[Fault]:
    """Warnings, each with its line. Looks at the permissions of files."""

    def remark(path: KeyPath, message: str) -> Fault:
        return loaded.document.fault(path, message)

    config = loaded.config
    address = config.endpoint.address
    if address is not None and _is_every(address[0]):
        yield remark(
            ("endpoint", "listen"), "every machine that reaches this one can read the status; "
            "listen on 127.0.0.1, or on the address of a network of its own"
        )  # fmt: skip
    sections: Mapping[str, Mapping[str, BaseModel]] = {
        "sources": config.sources, "sinks": config.sinks,
    }  # fmt: skip
    for section, parts in sections.items():
        for name, part in parts.items():
            at: KeyPath = (section, name)
            if isinstance(part, WebhookOptions) and part.is_open and not part.address.is_loopback:
                yield remark(
                    (*at, "listen"), "everybody who reaches this address can write audit events; "
                    "set `authorization`, `signature` or `tls: {client_ca: FILE}`, or listen on "
                    "127.0.0.1"
                )  # fmt: skip
            if isinstance(part, WebhookOptions) and part.lacks_scheme:
                yield remark(
                    (*at, "authorization"), "senders must show this secret without a scheme before "
                    "it; most send `Bearer SECRET`: then write that"
                )  # fmt: skip
            yield from _of_part(loaded, part, at)
    for path, text in loaded.shown.items():
        for file in _SECRET_FILE.findall(text):
            if readable_by_all(file):
                yield remark(path, f"every user of this machine can read {file} (chmod o-rwx)")


def _of_part(loaded: Loaded, part: BaseModel, at: KeyPath) -> Iterator[Fault]:
    has_secret = any(True for _ in secrets_of(part))
    for path, model in _models(part, at):
        if isinstance(model, ClientTlsOptions) and not model.verify:
            yield loaded.document.fault(
                (*path, "verify"), "anybody between this machine and the receiver can read and "
                "change what is sent; name the receiver's authority in `ca` instead"
            )  # fmt: skip
        if isinstance(model, (ClientTlsOptions, ServerTlsOptions)):
            for key in ("key", "certificate"):
                file = getattr(model, key)
                if file is not None and _is_private_key(Path(file)) and readable_by_all(file):
                    yield loaded.document.fault(
                        (*path, key), f"every user of this machine can read the private key in "
                        f"{file} (chmod o-rwx)"
                    )  # fmt: skip
        for name, info in type(model).model_fields.items():
            value = getattr(model, name)
            if has_secret and isinstance(value, str) and _is_plain_http(value) and name != "listen":
                yield loaded.document.fault(
                    (*path, info.alias or name), "a credential goes over plain http://, which "
                    "everybody on the way can read; use https://"
                )  # fmt: skip


def _models(value: Any, at: KeyPath) -> Iterator[tuple[KeyPath, BaseModel]]:
    """The model and those inside it, with their paths."""
    if isinstance(value, BaseModel):
        yield at, value
        for name, info in type(value).model_fields.items():
            yield from _models(getattr(value, name), (*at, info.alias or name))


def _is_plain_http(url: str) -> bool:
    found = _PLAIN_HTTP.match(url)
    return found is not None and not is_loopback(found[1] or found[2])


def _is_every(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_private_key(file: Path) -> bool:
    try:
        return b"PRIVATE KEY-----" in file.read_bytes()[: 1 << 20]
    except OSError:
        return False


def readable_by_all(file: str | Path) -> bool:
    """Whether every user of this machine can read a file; not, if it cannot be looked at."""
    try:
        return bool(Path(file).stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
