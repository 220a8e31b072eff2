"""Where the relay of a configuration file is to be asked, whatever else is in the file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from siemrelay.config.load import text_of
from siemrelay.config.process import EndpointOptions
from siemrelay.config.secrets import substitute
from siemrelay.config.validation_errors import explain
from siemrelay.config.yaml_document import parse
from siemrelay.core.errors import ConfigurationRefused


def endpoint_address(path: str | Path) -> tuple[str, int] | None:
    """Host and port of its endpoint; None when that is off.

    Secrets of sinks and faults of other parts do not matter: who asks how a relay does need not be
    able to start it. Raises ConfigurationRefused when the file or its `endpoint:` cannot be read.
    """
    document = parse(text_of(path))
    top = document.value if isinstance(document.value, dict) else {}
    given = top.get("endpoint")
    if not top and document.faults:
        raise ConfigurationRefused(str(path), document.faults)
    document.value = {"endpoint": {} if given is None else given}
    values = substitute(document).value["endpoint"]
    try:
        return EndpointOptions.model_validate(values).address
    except ValidationError as error:
        faults = explain(error, EndpointOptions, values, ("endpoint",), document)
        raise ConfigurationRefused(str(path), [*document.faults, *faults]) from error
