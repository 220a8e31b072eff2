"""`${...}` in the configuration: environment variables, files and systemd credentials.

What came from one of them is never shown: the text as written in the file stands in for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from siemrelay.config.yaml_document import Document, KeyPath

# systemd refuses credentials over 1 MiB; a larger file is the wrong file.
_MAX_SECRET_BYTES: Final = 1 << 20

# A shorter text is in so many words that taking it out of the log would hide nothing else.
MIN_REDACTED_LENGTH_CHARACTERS: Final = 4

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIAL: Final = re.compile(r"[^/\x00-\x1f]+")


class Substituted(msgspec.Struct):
    """The document's values with every `${...}` filled in."""

    value: Any
    shown: dict[KeyPath, str] = msgspec.field(default_factory=dict)
    """For each value that held a `${...}`: the text as written."""
    found: set[str] = msgspec.field(default_factory=set)
    """What stood behind them."""
    failed: set[KeyPath] = msgspec.field(default_factory=set)
    """Values with a reference that led to nothing: nothing more can be said about them."""


class _Missing(Exception):
    """A reference that leads to nothing; the text says what to do."""


def substitute(document: Document, environment: Mapping[str, str] | None = None) -> Substituted:
    """Fill in every `${...}`; each that cannot be filled becomes one of the document's faults.

    `$${` stands for `${` itself. Keys are left alone. `environment` is the process's own if None.
    """
    result = Substituted(None)
    variables = os.environ if environment is None else environment

    def walk(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return fill(value, path)
        return value

    def fill(text: str, path: KeyPath) -> str:
        def one(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            result.shown[path] = text
            try:
                secret = _look_up(match[1], variables)
            except _Missing as missing:
                document.faults.append(document.fault(path, str(missing)))
                result.failed.add(path)
                return ""
            result.found.add(secret)
            return secret

        return _REFERENCE.sub(one, text)

    result.value = walk(document.value, ())
    return result


def _look_up(reference: str | None, variables: Mapping[str, str]) -> str:
    if reference is None:
        raise _Missing("`${` without its `}`; write `$${` if a plain `${` is meant")
    kind, colon, name = reference.partition(":")
    if not colon and _VARIABLE.fullmatch(reference):
        if reference not in variables:
            raise _Missing(
                f"the environment variable {reference} is not set; set it where the relay is "
                "started (for systemd: Environment= or EnvironmentFile=)"
            )
        return variables[reference]
    if kind == "file" and name:
        if not Path(name).is_absolute():
            raise _Missing(
                f"`{name}` must be an absolute path, like ${{file:/etc/siemrelay/token}}"
            )
        return _content(Path(name), f"cannot read {name}", "let the service's user read it")
    if kind == "credential" and _CREDENTIAL.fullmatch(name) and name not in (".", ".."):
        return _credential(name, variables)
    raise _Missing(
        f"`${{{reference}}}` is none of ${{NAME}} (environment), ${{file:/PATH}} and "
        "${credential:NAME} (systemd); write `$${` if a plain `${` is meant"
    )


def _credential(name: str, variables: Mapping[str, str]) -> str:
    folder = variables.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise _Missing(
            f"there is no credential {name}: systemd gave this process none; add "
            f"LoadCredential={name}:/PATH to the unit, or set CREDENTIALS_DIRECTORY"
        )
    advice = f"add LoadCredential={name}:/PATH to the unit"
    return _content(Path(folder) / name, f"there is no credential {name}", advice)


def _content(path: Path, trouble: str, advice: str) -> str:
    try:
        # A FIFO or a device would hang the start; a regular file answers.
        if not path.is_file():
            raise _Missing(
                f"{trouble}: {'not a file' if path.exists() else 'no such file'}; {advice}"
            )
        with path.open("rb") as file:
            data = file.read(_MAX_SECRET_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise _Missing(f"{trouble}: {error.strerror}; {advice}") from error
    except UnicodeDecodeError as error:
        raise _Missing(f"{trouble}: it is not UTF-8 text") from error
    if len(data) > _MAX_SECRET_BYTES:
        raise _Missing(f"{trouble}: it is larger than 1 MiB")
    return text.removesuffix("\n").removesuffix("\r")


def redactable(texts: set[str]) -> frozenset[str]:
    """The texts that are long enough to be taken out of a log without hiding everything else."""
    return frozenset(text for text in texts if len(text) >= MIN_REDACTED_LENGTH_CHARACTERS)
