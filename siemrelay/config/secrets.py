"""The secrets of a configuration: each is found, and hidden wherever a text would show it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote

from pydantic import BaseModel

from siemrelay.config.models import SinkConfig
from siemrelay.config.substitution import DEFAULTED, PLACEHOLDER, Substituted
from siemrelay.config.url_secrets import last_segment, url_secrets, without_url_secrets
from siemrelay.config.yaml_document import KeyPath, dotted
from siemrelay.core.errors import Fault
from siemrelay.core.options import URL_PASSWORD, Secret

# Redacting a shorter text would remove parts of common words from the log.
MIN_REDACTED_LENGTH_CHARACTERS: Final = 4

# Presets whose URL is itself the secret, in the last part of its path.
_SECRET_PATHS: Final = frozenset({"sumologic"})


def redactable(texts: set[str]) -> frozenset[str]:
    """The texts that are long enough to be redacted wherever they occur."""
    return frozenset(text for text in texts if len(text) >= MIN_REDACTED_LENGTH_CHARACTERS)


# Secret for the password that most of them have; without one such an address is none.
_ADDRESSES: Final = ("redis://", "rediss://", "amqp://", "amqps://")


def secrets_of(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every secret of a built configuration, with its path."""
    if isinstance(value, BaseModel):
        if isinstance(value, SinkConfig) and value.siem in _SECRET_PATHS:
            token = last_segment(getattr(value, "url", ""))
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
        if not value.startswith(_ADDRESSES) or any(url_secrets(value)):
            yield path, value
    elif isinstance(value, str):
        yield from ((path, secret) for secret in url_secrets(value))


def inline_secrets(config: BaseModel, filled: Substituted) -> list[tuple[KeyPath, str]]:
    """The secrets that the file holds in plain text, with their paths.

    One URL may hold several, beside others that come from a `${...}`.
    """
    plain = {path: PLACEHOLDER.sub(_as_default, text) for path, text in filled.shown.items()}
    return [
        (path, secret)
        for path, secret in secrets_of(config)
        if path not in plain or secret in plain[path]
    ]


def _as_default(reference: re.Match[str]) -> str:
    """The default of a reference, which the file holds; NUL where it has none."""
    defaulted = DEFAULTED.fullmatch(reference[0][2:-1])
    return defaulted[2] if defaulted else "\0"


def parts_of(secret: str) -> set[str]:
    """The secret and the parts and forms of it that a peer may echo."""
    # Of `Bearer TOKEN` a peer may echo the token alone; a URL may hold it percent-encoded.
    return {secret, secret.rpartition(" ")[2], unquote(secret)}


def without_secrets(faults: list[Fault], filled: Substituted) -> list[Fault]:
    """The faults with `***` wherever a message quotes a secret."""
    secrets = sorted(redactable(filled.found), key=len, reverse=True)
    values = {dotted(path) for path in filled.shown}
    result = []
    for fault in faults:
        message = URL_PASSWORD.sub(r"\g<user>:***", without_url_secrets(fault.message))
        if fault.key in values:
            # A secret too short to redact everywhere is still hidden where a message quotes it. A
            # key is never filled in, so it is none.
            message = re.sub(r"""(unknown (?!key )\w+ )([`'"])[^`'"]*\2""", r"\1***", message)
        for secret in secrets:
            message = message.replace(secret, "***")
        result.append(replace(fault, message=message))
    return result
