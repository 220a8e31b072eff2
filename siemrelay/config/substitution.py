"""Fills in what a configuration refers to: environment variables, files, systemd credentials.

`${NAME}` is an environment variable, `${NAME:-DEFAULT}` one with a default, `${file:PATH}` a file,
`${credential:NAME}` a systemd credential. Their values are never shown: the text as written in the
file is shown instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from siemrelay.config.service_unit import ServiceUnit, service_unit
from siemrelay.config.yaml_document import Document, KeyPath
from siemrelay.core.errors import Fault
from siemrelay.core.options import UNREAD_CREDENTIAL
from siemrelay.net.pem import FileState, file_state

# systemd refuses credentials over 1 MiB; a larger file is the wrong file.
_MAX_SECRET_BYTES: Final = 1 << 20

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_BARE_VARIABLE: Final = re.compile(r"(?<![\w$\\])\$[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")
"""What other programs replace. Its underscore makes a password that looks so unlikely."""
PLACEHOLDER: Final = re.compile(r"\$\{[^}]*\}")
"""A reference, as it is written."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DEFAULTED: Final = re.compile(r"(?!(?:file|credential):)([A-Za-z_][A-Za-z0-9_]*):-(.*)", re.DOTALL)
"""`NAME:-DEFAULT`, the default for a variable that is not set or empty, as in a shell."""
_CREDENTIAL: Final = re.compile(r"[^/\x00-\x1f]+")

_NOTHING: Final[Mapping[Path, str]] = {}


class Substituted(msgspec.Struct):
    """The document's values with every `${...}` filled in."""

    value: Any
    shown: dict[KeyPath, str] = msgspec.field(default_factory=dict)
    """For each value that held a `${...}`: the text as written."""
    found: set[str] = msgspec.field(default_factory=set)
    """The values that were filled in."""
    failed: set[KeyPath] = msgspec.field(default_factory=set)
    """Paths of values whose reference could not be resolved; they are not validated further."""
    files: dict[Path, FileState | None] = msgspec.field(default_factory=dict)
    """The files that references name, each as it was before it was read."""
    texts: dict[KeyPath, dict[Path, str]] = msgspec.field(default_factory=dict)
    """The secrets that were read from files, by the value that they are filled into."""
    unread: list[Fault] = msgspec.field(default_factory=list)
    """References that this process could not resolve and need not."""


class _Missing(Exception):
    """A reference that cannot be resolved; the message says what to do."""


class _NoCredentials(_Missing):
    """A credential that the service may get, and this process does not."""


def substitute(
    document: Document, environment: Mapping[str, str] | None = None, *,
    need_credentials: bool = True, only_sinks: Collection[str] | None = None,
    kept: Mapping[Path, str] = _NOTHING,
) -> Substituted:  # fmt: skip
    """Fill in every `${...}`; one that cannot be resolved becomes a fault of the document.

    `$${` stands for `${` itself. Keys are left alone. `environment` is the process's own if None:
    then variables and credentials that the service would get from its unit are found there, as far
    as this user may read them. Without `need_credentials`, a process that systemd gave none goes on
    without them; their faults are in `unread`. With `only_sinks`, so are those of every reference
    in another sink or in a source, whatever keeps it from being resolved. `kept` are secrets that
    stand for what their files hold now.
    """
    result = Substituted(None, failed={*document.unread})
    variables = _Variables(environment)

    def walk(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, str) and _BARE_VARIABLE.search(value):
            message = "`$NAME` is not replaced, only `${NAME}` is: put braces around the name"
            document.remarks.append(document.fault(path, message))  # not the name: it may be secret
        if isinstance(value, str) and "${" in value:
            return fill(value, path)
        return value

    def fill(text: str, path: KeyPath) -> str:
        def one(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            result.shown[path] = text
            file = _file_of(match[1], variables)
            if file is not None:
                result.files[file] = file_state(file)
            try:
                if (default := _default(match[1], variables)) is not None:
                    return default  # the file has it in plain text: no secret to be redacted
                secret = kept.get(file) if file else None
                if secret is None:
                    secret = _look_up(match[1], variables)
                if not secret.strip():
                    raise _Missing(f"`{match[0]}` is empty; give it a value")
            except _Missing as missing:
                fault = document.fault(path, str(missing))
                elsewhere = only_sinks is not None and _is_elsewhere(path, only_sinks)
                if elsewhere or (isinstance(missing, _NoCredentials) and not need_credentials):
                    result.unread.append(fault)
                    if elsewhere and path[0] == "sinks":
                        result.failed.add(path)  # the sink is not used, whatever it comes to
                    return UNREAD_CREDENTIAL
                document.faults.append(fault)
                result.failed.add(path)
                return ""
            result.found.add(secret)
            if file is not None:
                result.texts.setdefault(path, {})[file] = secret
            return secret

        return _REFERENCE.sub(one, text)

    result.value = walk(document.value, ())
    return result


def _is_elsewhere(path: KeyPath, only_sinks: Collection[str]) -> bool:
    return path[0] == "sources" or (path[0] == "sinks" and path[1] not in only_sinks)


class _Variables:
    """The environment, and behind it what the unit gives to the service."""

    def __init__(self, environment: Mapping[str, str] | None) -> None:
        self._given = environment

    def get(self, name: str) -> str | None:
        """The variable's value; None if it is not set."""
        if self._given is not None:
            return self._given.get(name)
        value = os.environ.get(name)
        return self.unit.environment.get(name) if value is None and self.unit else value

    @cached_property
    def unit(self) -> ServiceUnit | None:
        """The installed unit, unless the environment was given."""
        return None if self._given is not None else service_unit()


def variables_of(text: str) -> list[str]:
    """The environment variables that a configuration's text refers to."""
    found = (match[1] or "" for match in _REFERENCE.finditer(text))
    names = (each[1] if (each := DEFAULTED.fullmatch(name)) else name for name in found)
    return [name for name in names if _VARIABLE.fullmatch(name)]


def _file_of(reference: str | None, variables: _Variables) -> Path | None:
    """The file that a reference names, if it names one."""
    kind, _, name = (reference or "").partition(":")
    if kind == "file" and name.startswith("/"):
        return Path(name)
    folder = variables.get("CREDENTIALS_DIRECTORY")
    return Path(folder) / name if kind == "credential" and name and folder else None


def _default(reference: str | None, variables: _Variables) -> str | None:
    """The default of a variable that is not set or blank; None where there is something better."""
    defaulted = DEFAULTED.fullmatch(reference or "")
    if defaulted is None:
        return None
    if not defaulted[2].strip() or "${" in defaulted[2]:
        raise _Missing(
            f"the default of `${{{reference}}}` is not plain text: write "
            f"${{{defaulted[1]}:-DEFAULT}}, or no default at all: ${{{defaulted[1]}}}"
        )
    return None if (variables.get(defaulted[1]) or "").strip() else defaulted[2]


def _look_up(reference: str | None, variables: _Variables) -> str:
    if reference is None:
        raise _Missing("`${` without its `}`; write `$${` if a plain `${` is meant")
    if defaulted := DEFAULTED.fullmatch(reference):
        reference = defaulted[1]
    kind, colon, name = reference.partition(":")
    if not colon and _VARIABLE.fullmatch(reference):
        value = variables.get(reference)
        if value is None:
            raise _Missing(
                f"the environment variable {reference} is not set; set it where the relay is "
                "started (for systemd: Environment= or EnvironmentFile=), or give it a default: "
                f"${{{reference}:-DEFAULT}}"
            )
        return value
    if kind == "file" and name:
        if not Path(name).is_absolute():
            raise _Missing(
                f"`{name}` must be an absolute path, like ${{file:/etc/siemrelay/token}}"
            )
        return _content(Path(name), f"cannot read {name}", "let the relay's user read it",
                        absent="write the secret there, for the relay's user to read")  # fmt: skip
    if kind == "credential" and _CREDENTIAL.fullmatch(name) and name not in (".", ".."):
        return _credential(name, variables)
    raise _Missing(
        f"`${{{reference}}}` is not one of ${{NAME}} (environment), ${{NAME:-DEFAULT}}, "
        "${file:/PATH} and ${credential:NAME} (systemd); write `$${` if a plain `${` is meant"
    )


def _credential(name: str, variables: _Variables) -> str:
    advice = f"add LoadCredential={name}:/PATH to the unit"
    folder, unit = variables.get("CREDENTIALS_DIRECTORY"), variables.unit
    if folder:
        return _content(Path(folder) / name, f"there is no credential {name}", advice)
    if unit is not None and name in unit.credentials:
        path = unit.credentials[name]
        try:
            return _content(path, f"cannot read credential {name} from {path}", "write it there")
        except _Missing as missing:
            if not isinstance(missing.__cause__, PermissionError):
                raise
            raise _NoCredentials(
                f"this user may not read credential {name} from {path}; run this as root"
            ) from missing
    if unit is not None:
        raise _NoCredentials(
            f"the service gets no credential {name}: {advice} (systemctl edit siemrelay)"
        )
    raise _NoCredentials(
        f"there is no credential {name}: systemd gave this process none; {advice}, or set "
        "CREDENTIALS_DIRECTORY"
    )


def _content(path: Path, trouble: str, advice: str, absent: str = "") -> str:
    try:
        # A FIFO or a device would hang the start; a regular file answers.
        if not path.is_file():
            if path.exists():
                raise _Missing(f"{trouble}: not a file; {advice}")
            raise _Missing(f"{trouble}: no such file; {absent or advice}")
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
