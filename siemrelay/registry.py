"""Every kind of part by its name in the configuration, and where it is declared.

A new format, protocol, decoder or source is one file and one row here, with an example, a line in
the guide and a peer for the contract tests (README.md here). A row is looked up, and its
module imported, when a configuration names it: a start pays for the parts that it uses. The
contract tests run over these tables and import all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Generic, TypeVar

from siemrelay.decoders.contract import DecoderKind
from siemrelay.formats.contract import Format, FormatKind, HeaderName
from siemrelay.sinks.contract import ProtocolKind
from siemrelay.sources.contract import Source, SourceKind
from siemrelay.sources.framing import text_framing
from siemrelay.wire.framing.contract import Framing

_Kind = TypeVar("_Kind")


class Rows(Mapping[str, _Kind], Generic[_Kind]):
    """Name → kind; which names there are is known without importing any."""

    def __init__(self, kind: type[_Kind], rows: Mapping[str, str]) -> None:
        """`rows` have `module:NAME` within siemrelay."""
        self._kind, self._rows = kind, rows
        self._found: dict[str, _Kind] = {}

    def __getitem__(self, name: str) -> _Kind:
        if name not in self._found:
            module, _, constant = self._rows[name].partition(":")
            found = getattr(import_module(f"siemrelay.{module}"), constant)
            assert isinstance(found, self._kind), self._rows[name]
            self._found[name] = found
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


SOURCES: Final = Rows(SourceKind, {
    "file": "sources.file.source:FILE",
    "stdin": "sources.stdin:STDIN",
    "redis": "sources.queues.redis:REDIS",
    "kafka": "sources.queues.kafka:KAFKA",
    "amqp": "sources.queues.amqp:AMQP",
    "journal": "sources.journal:JOURNAL",
    "http_poll": "sources.http_poll.source:HTTP_POLL",
    "http": "sources.http.webhook:HTTP",
    "splunk-hec": "sources.splunk_hec.source:HEC",
    "syslog": "sources.syslog.source:SYSLOG",
})  # fmt: skip

DECODERS: Final = Rows(DecoderKind, {
    "json": "decoders.json.decoder:JSON",
    "syslog": "decoders.syslog.decoder:SYSLOG",
    "cef": "decoders.syslog.decoder:CEF",
    "leef": "decoders.syslog.decoder:LEEF",
    "key_value": "decoders.syslog.decoder:KEY_VALUE",
    "auditd": "decoders.auditd.decoder:AUDITD",
    "laurel": "decoders.auditd.laurel:LAUREL",
    "csv": "decoders.csv:CSV",
    "regex": "decoders.regex:REGEX",
    "text": "decoders.text:TEXT",
})  # fmt: skip

FORMATS: Final = Rows(FormatKind, {
    "syslog": "formats.rfc5424:SYSLOG",
    "rfc3164": "formats.rfc3164:RFC3164",
    "json": "formats.json:JSON",
    "raw": "formats.raw:RAW",
    "cef": "formats.cef:CEF",
    "leef": "formats.leef:LEEF",
    "leef1": "formats.leef:LEEF1",
    "gelf": "formats.gelf:GELF",
    "ecs": "formats.ecs.document:ECS",
    "ocsf": "formats.ocsf.event:OCSF",
})  # fmt: skip

PROTOCOLS: Final = Rows(ProtocolKind, {
    "udp": "sinks.stream.udp:UDP",
    "tcp": "sinks.stream.tcp:TCP",
    "tls": "sinks.stream.tcp:TLS",
    "unix": "sinks.stream.unix:UNIX",
    "unixgram": "sinks.stream.unix:UNIXGRAM",
    "relp": "sinks.stream.relp:RELP",
    "http": "sinks.http.sink:HTTP",
    "splunk-hec": "sinks.splunk_hec.sink:SPLUNK_HEC",
    "elasticsearch": "sinks.elasticsearch:ELASTICSEARCH",
    "sentinel": "sinks.sentinel:SENTINEL",
    "otlp": "sinks.otlp:OTLP",
    "kafka": "sinks.kafka.sink:KAFKA",
    "file": "sinks.file.sink:FILE",
    "stdout": "sinks.stdout:STDOUT",
})  # fmt: skip

__all__ = [
    "DECODERS", "FORMATS", "PROTOCOLS", "SOURCES", "Rows", "build_format", "build_source",
    "carrying", "framing",
]  # fmt: skip


def build_source(name: str, config: Any) -> Source:
    """A source of that name by its joined options."""
    kind = SOURCES[config.type]
    return kind.build(name, config, framing(config)) if kind.framed else kind.build(name, config)


def framing(config: Any) -> Framing:
    """How records are found in what a source reads that is `framed`, by its joined options."""
    declared = DECODERS[config.decoder].framing
    return text_framing(config, declared and declared(config, config.max_record_size))


def carrying(name: str, options: Any, attributes: Sequence[str]) -> Any:
    """A format's options, changed so that it carries these attributes (`attributes.NAME`) too."""
    if not FORMATS[name].maps:
        return options
    # A prefix, or a name could be one of the format's own keys.
    keys = {
        re.sub(r"[^A-Za-z0-9]", "_", path): path
        for path in attributes if path not in options.map.values()
    }  # fmt: skip
    return options.model_copy(update={"map": {**keys, **options.map}}) if keys else options


def build_format(name: str, header: HeaderName, options: Any, host: str) -> Format:
    """The format of a sink, behind the syslog header that it chose."""
    kind = FORMATS[name]
    inner = kind.build(options, host)
    if header == "none":
        return inner
    from siemrelay.formats.syslog_header import (
        WithSyslogHeader,  # as the rows: a start pays for the parts that it uses
    )

    return WithSyslogHeader(inner, header, options, host, tag=kind.tag)
