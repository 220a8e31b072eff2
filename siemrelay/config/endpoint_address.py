"""Reads from a configuration file only where its relay is: the endpoint, the state directory."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from siemrelay.config.files import text_of
from siemrelay.config.models import RelayConfig
from siemrelay.config.substitution import substitute
from siemrelay.config.validation_errors import explain
from siemrelay.config.yaml_document import Document, parse
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.telemetry.endpoint_options import EndpointOptions


def endpoint_address(path: str | Path) -> tuple[str, int] | None:
    """Host and port of the endpoint; None when it is off.

    Ignores faults and secrets of all other parts: whoever may ask for the status need not be able
    to start the relay. Raises ConfigurationRefused if the file or its `endpoint:` is unreadable.
    """
    document = _section(path, "endpoint")
    given = document.value["endpoint"]
    document.value = {"endpoint": {} if given is None else given}
    values = substitute(document).value["endpoint"]
    try:
        return EndpointOptions.model_validate(values).address
    except ValidationError as error:
        faults = explain(error, EndpointOptions, values, ("endpoint",), document)
        raise ConfigurationRefused(str(path), [*document.faults, *faults]) from error


def state_dir(path: str | Path) -> Path:
    """The state directory, whatever else is wrong in the file. Raises as `endpoint_address`."""
    document = _section(path, "state_dir")
    given = substitute(document).value["state_dir"]
    default: Path = RelayConfig.model_fields["state_dir"].default
    return Path(given) if isinstance(given, str) else default


def _section(path: str | Path, key: str) -> Document:
    """The document with that key only, None where the file has no such key.

    A file that is no YAML is looked into for the lines below the key: the relay runs with an
    earlier version of it, and whoever repairs the file must reach the relay.
    """
    text = text_of(path)
    document = parse(text)
    if not isinstance(document.value, dict) and document.faults:
        lines = text.splitlines()
        start = next((i for i, line in enumerate(lines) if line.startswith(f"{key}:")), len(lines))
        ends = (i for i in range(start + 1, len(lines)) if lines[i][:1] not in ("", " ", "#"))
        alone = parse("\n".join(lines[start : next(ends, len(lines))]))
        if alone.faults:
            raise ConfigurationRefused(str(path), document.faults)
        document = alone
    top = document.value if isinstance(document.value, dict) else {}
    document.value = {key: top.get(key)}
    return document
