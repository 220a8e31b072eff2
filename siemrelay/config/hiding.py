"""The secrets in a configuration: found, so that they can be taken out of what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel

from siemrelay.config.models import SinkConfig
from siemrelay.config.secrets import Substituted, redactable
from siemrelay.config.yaml_document import KeyPath, dotted
from siemrelay.core.errors import Fault
from siemrelay.core.options import URL_PASSWORD, Secret

# One parameter of an address; what a parameter's name ends in where its value is a secret.
_PARAMETER: Final = re.compile(r"(?P<start>[?&;](?P<name>[^=&;#\s]+)=)(?P<value>[^&;#\s]+)")
_SECRET_NAME: Final = re.compile(
    r".*(?:token|secret|password|passwd|pwd|signature|(?:api|access|auth|shared)[-_.]?key)"
    r"|key|sig|auth|authorization|code",
    re.IGNORECASE,
)
_REFERENCE: Final = re.compile(r"\$\{[^}]*\}")

# The presets whose address itself is the secret, by its last part.
_SECRET_PATHS: Final = frozenset({"sumologic"})


def secrets_of(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every secret in a built configuration, with the path of its value."""
    if isinstance(value, BaseModel):
        if isinstance(value, SinkConfig) and value.siem in _SECRET_PATHS:
            token = urlsplit(getattr(value, "url", "")).path.rstrip("/").rpartition("/")[2]
            yield from [((*path, "url"), token)] if token else []
        for name, info in type(value).model_fields.items():
            yield from secrets_of(getattr(value, name), (*path, info.alias or name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_of(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from secrets_of(item, (*path, i))
    elif isinstance(value, Secret):
        yield path, value
    elif isinstance(value, str) and "://" in value:
        if found := URL_PASSWORD.search(value):
            yield path, found["password"]
        for parameter in _PARAMETER.finditer(value):
            if _SECRET_NAME.fullmatch(parameter["name"]):
                yield path, parameter["value"]


def inline_secrets(config: BaseModel, filled: Substituted) -> list[tuple[KeyPath, str]]:
    """Those that the file itself holds, in plain text, with their paths; an address may have
    several, and others beside them that stand behind a `${...}`.
    """
    plain = {path: _REFERENCE.sub("\0", text) for path, text in filled.shown.items()}
    return [
        (path, secret)
        for path, secret in secrets_of(config)
        if path not in plain or secret in plain[path]
    ]


def parts_of(secret: str) -> set[str]:
    """The secret, and the forms of it that a peer may quote."""
    # `Bearer TOKEN`: a peer's answer may hold the token alone. In an address it may be escaped.
    return {secret, secret.rpartition(" ")[2], unquote(secret)}


def without_url_secrets(text: str) -> str:
    """The text of a setting with `***` for what is secret in an address, but for a `${...}`."""

    def hidden(found: re.Match[str]) -> str:
        secret = _SECRET_NAME.fullmatch(found["name"]) and not _REFERENCE.fullmatch(found["value"])
        return found["start"] + ("***" if secret else found["value"])

    return _PARAMETER.sub(hidden, text) if "://" in text else text


def without_secrets(faults: list[Fault], filled: Substituted) -> list[Fault]:
    """The same faults with `***` where their messages quote a secret."""
    secrets = sorted(redactable(filled.found), key=len, reverse=True)
    values = {dotted(path) for path in filled.shown}
    result = []
    for fault in faults:
        message = URL_PASSWORD.sub(r"\g<user>:***", without_url_secrets(fault.message))
        if fault.key in values:
            # Messages quote what they are about; a short secret is hidden there at least.
            message = re.sub(r"""([`'"])[^`'"]*\1 is no """, "*** is no ", message)
        for secret in secrets:
            message = message.replace(secret, "***")
        result.append(Fault(message, fault.key, fault.line, fault.column))
    return result
