"""The secrets in a configuration: found, so that they can be taken out of what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from siemrelay.config.document import KeyPath, dotted
from siemrelay.config.secrets import Substituted, redactable
from siemrelay.errors import Fault
from siemrelay.options import URL_PASSWORD, Secret


def secrets_of(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every secret in a built configuration, with the path of its value."""
    if isinstance(value, BaseModel):
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
    elif isinstance(value, str) and (found := URL_PASSWORD.search(value)):
        yield path, found["password"]


def parts_of(secret: str) -> set[str]:
    """The secret, and the part of it that a peer may quote alone."""
    # `Bearer TOKEN`: a peer's answer may hold the token alone.
    return {secret, secret.rpartition(" ")[2]}


def without_secrets(faults: list[Fault], filled: Substituted) -> list[Fault]:
    """The same faults with `***` where their messages quote a secret."""
    secrets = sorted(redactable(filled.found), key=len, reverse=True)
    values = {dotted(path) for path in filled.shown}
    result = []
    for fault in faults:
        message = URL_PASSWORD.sub(r"\g<user>:***", fault.message)
        if fault.key in values:
            # Messages quote what they are about; a short secret is hidden there at least.
            message = re.sub(r"""([`'"])[^`'"]*\1 is no """, "*** is no ", message)
        for secret in secrets:
            message = message.replace(secret, "***")
        result.append(Fault(message, fault.key, fault.line, fault.column))
    return result
