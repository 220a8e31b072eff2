"""PEM files and packages that parts need and do not find on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from siemrelay import registry
from siemrelay.config.models import SinkConfig, SourceConfig
from siemrelay.config.yaml_document import Document, KeyPath, dotted
from siemrelay.core.errors import Fault
from siemrelay.core.extras import TIMESTAMPS, Extra
from siemrelay.net import pem


def missing(document: Document, sources: Any, sinks: Any) -> tuple[list[Fault], list[Fault]]:
    """Faults that are certain, and those that this user cannot settle; unordered.

    Looks at enabled sinks and all sources, as far as they could be built.
    """
    faults, uncertain = list[Fault](), list[Fault]()
    for at, part, extra in _parts(sources, sinks):
        if extra is not None and extra.missing():
            key = (*at, "type" if at[0] == "sources" else "protocol")
            faults.append(document.fault(key, f"{extra.absence}; {extra.advice}"))
        if isinstance(part, SinkConfig) and _wants_timestamps(part) and TIMESTAMPS.missing():
            why = f"{TIMESTAMPS.absence}; {TIMESTAMPS.advice}"
            faults.append(document.fault((*at, "seal", "timestamp"), why))
        for path, options in _nested(part, at):
            for finding in pem.findings(options):
                fault = document.fault((*path, finding.option), finding.message)
                (faults if finding.certain else uncertain).append(fault)
    return faults, uncertain


def pem_files(part: BaseModel) -> list[Path]:
    """The PEM files that the options of a part name."""
    return [file for _, options in _nested(part, ()) for file in pem.files(options)]


def pem_fault(part: BaseModel) -> str | None:
    """The first fault of these files; None if all can be used. Reads them."""
    for path, options in _nested(part, ()):
        for finding in pem.findings(options):
            return f"{dotted((*path, finding.option))}: {finding.message}"
    return None


def _parts(sources: Any, sinks: Any) -> Iterator[tuple[KeyPath, BaseModel, Extra | None]]:
    for name, source in sources.items() if isinstance(sources, dict) else ():
        # The placeholder of a faulty part is an instance of the bare class.
        if isinstance(source, SourceConfig) and type(source) is not SourceConfig:
            yield ("sources", name), source, registry.SOURCES[source.type].extra
    for name, sink in sinks.items() if isinstance(sinks, dict) else ():
        if isinstance(sink, SinkConfig) and type(sink) is not SinkConfig and sink.enabled:
            yield ("sinks", name), sink, registry.PROTOCOLS[sink.protocol].extra


def _wants_timestamps(sink: SinkConfig) -> bool:
    return sink.seal is not None and sink.seal.timestamp is not None


def _nested(options: BaseModel, at: KeyPath) -> Iterator[tuple[KeyPath, BaseModel]]:
    """The options and every options model inside them, each with its path."""
    yield at, options
    for name, info in type(options).model_fields.items():
        value, path = getattr(options, name), (*at, info.alias or name)
        inside: Mapping[str | int, object] = {}
        if isinstance(value, Mapping):
            inside = value
        elif isinstance(value, list):
            inside = dict(enumerate(value))
        for step, item in ((None, value), *inside.items()):
            if isinstance(item, BaseModel):
                yield from _nested(item, path if step is None else (*path, step))
