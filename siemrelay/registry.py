"""Every kind of part by its name in the configuration: its options and how it is built.

A new format, protocol, decoder or source is one file and one row here; the contract tests run over
these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from siemrelay.catalogue import Catalogue
from siemrelay.decoders.contract import Decoder
from siemrelay.decoders.json import JsonDecoder
from siemrelay.decoders.mapping import PRODUCTS, Spellings
from siemrelay.formats.cef import Cef, CefOptions
from siemrelay.formats.contract import Format
from siemrelay.formats.ecs import Ecs, EcsOptions
from siemrelay.formats.gelf import Gelf, GelfOptions
from siemrelay.formats.headed import Headed
from siemrelay.formats.json import Json, JsonOptions
from siemrelay.formats.leef import Leef, Leef1Options, LeefOptions
from siemrelay.formats.ocsf import Ocsf, OcsfOptions
from siemrelay.formats.raw import Raw, RawOptions
from siemrelay.formats.rfc3164 import Rfc3164
from siemrelay.formats.rfc5424 import Rfc5424, Rfc5424Options
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.options import Options
from siemrelay.sinks.archive import ArchiveOptions, ArchiveSink
from siemrelay.sinks.contract import RunLimits, Sink
from siemrelay.sinks.datagram import MAX_DATAGRAM_BYTES, UdpOptions, UdpSink
from siemrelay.sinks.elasticsearch import ElasticsearchOptions, ElasticsearchSink, bulk_documents
from siemrelay.sinks.hec_options import SplunkHecOptions, hec_events
from siemrelay.sinks.http import HttpOptions, HttpSink
from siemrelay.sinks.kafka import KafkaSink
from siemrelay.sinks.kafka_options import KafkaOptions, keyed_messages
from siemrelay.sinks.local import UnixgramSink, UnixOptions, UnixSink, UnixStreamOptions
from siemrelay.sinks.otlp import OtlpOptions, OtlpSink, log_records
from siemrelay.sinks.relp import RelpOptions, RelpSink
from siemrelay.sinks.sentinel import (
    MAX_RECORD_BYTES,
    SentinelOptions,
    SentinelSink,
    sentinel_records,
)
from siemrelay.sinks.splunk_hec import SplunkHecSink
from siemrelay.sinks.stdout import StdoutOptions, StdoutSink
from siemrelay.sinks.stream import TcpOptions, TcpSink, TlsStreamOptions
from siemrelay.sources.contract import Source
from siemrelay.sources.file import FileOptions, FileSource

HeaderName = Literal["none", "rfc3164", "rfc5424"]


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A way in. `build` takes the source's name and options; `decoder` is the default one."""

    options: type[Options]
    build: Callable[[str, Any], Source]
    decoder: str
    summary: str


@dataclass(frozen=True, slots=True)
class DecoderKind:
    """How records are read. `build` takes spellings, the fields wanted and the catalogue."""

    options: type[Options]
    build: Callable[[Spellings, frozenset[str], Catalogue], Decoder]
    summary: str


@dataclass(frozen=True, slots=True)
class FormatKind:
    """What messages look like. `build` takes the options and this machine's name.

    `header` is the syslog header in front where the protocol carries syslog; `headers` whether one
    may be chosen; `tag` whether RFC 3164's TAG goes before the message.
    """

    options: type[Options]
    build: Callable[[Any, str], Format]
    summary: str
    header: HeaderName = "none"
    headers: bool = False
    tag: bool = True


@dataclass(frozen=True, slots=True)
class ProtocolKind:
    """A way out. `format` is the default one; `framings` the choices on a byte stream.

    `limits` says how large a run may be, `max_message_bytes` how large one message (None: as large
    as it likes). `wrap` puts what the protocol wants around each message (an envelope with the
    event's time): a format made of the sink's format.
    """

    options: type[Options]
    build: Callable[[Any], Sink]
    format: str
    summary: str
    port: int | None = None
    framings: tuple[str, ...] = ()
    max_message_bytes: int | None = None
    limits: Callable[[Any], RunLimits] = lambda options: RunLimits()
    wrap: Callable[[Format, Any], Format] = lambda form, options: form


class NoOptions(Options):
    """Nothing to set."""


SOURCES: Final[Mapping[str, SourceKind]] = {
    "file": SourceKind(FileOptions, FileSource, "json", "files by glob, followed through rotation"),
}

DECODERS: Final[Mapping[str, DecoderKind]] = {
    "json": DecoderKind(NoOptions, JsonDecoder, "one JSON object a record"),
}

FORMATS: Final[Mapping[str, FormatKind]] = {
    "syslog": FormatKind(Rfc5424Options, Rfc5424, "RFC 5424, the event in structured data"),
    "rfc3164": FormatKind(HeaderOptions, Rfc3164, "RFC 3164 (BSD syslog), the event as key=value"),
    "json": FormatKind(
        JsonOptions, lambda options, host: Json(options), "one JSON object an event", headers=True
    ),
    "raw": FormatKind(
        RawOptions, lambda options, host: Raw(options), "the bytes as received", headers=True
    ),
    "cef": FormatKind(
        CefOptions, lambda options, host: Cef(options), "ArcSight's Common Event Format",
        header="rfc3164", headers=True, tag=False,
    ),
    "leef": FormatKind(
        LeefOptions, lambda options, host: Leef(options, "2.0"),
        "QRadar's Log Event Extended Format 2.0", header="rfc3164", headers=True, tag=False,
    ),
    "leef1": FormatKind(
        Leef1Options, lambda options, host: Leef(options, "1.0"),
        "QRadar's Log Event Extended Format 1.0", header="rfc3164", headers=True, tag=False,
    ),
    "gelf": FormatKind(GelfOptions, Gelf, "Graylog's GELF 1.1"),
    "ecs": FormatKind(
        EcsOptions, lambda options, host: Ecs(options), "Elastic Common Schema 8", headers=True
    ),
    "ocsf": FormatKind(
        OcsfOptions, lambda options, host: Ocsf(options),
        "Open Cybersecurity Schema Framework 1.5", headers=True,
    ),
}  # fmt: skip

PROTOCOLS: Final[Mapping[str, ProtocolKind]] = {
    "udp": ProtocolKind(
        UdpOptions, UdpSink, "syslog", "datagrams, unconfirmed", port=514,
        max_message_bytes=MAX_DATAGRAM_BYTES,
    ),
    "tcp": ProtocolKind(
        TcpOptions, TcpSink, "syslog", "a TCP stream, confirmed by the peer's kernel", port=514,
        framings=("newline", "octet-counting", "nul"),
    ),
    "tls": ProtocolKind(
        TlsStreamOptions, TcpSink, "syslog", "a TCP stream within TLS, confirmed as tcp",
        port=6514, framings=("octet-counting", "newline", "nul"),
    ),
    "unix": ProtocolKind(
        UnixStreamOptions, UnixSink, "syslog", "a Unix stream socket, confirmed when it was read",
        framings=("newline", "octet-counting", "nul"),
    ),
    "unixgram": ProtocolKind(
        UnixOptions, UnixgramSink, "syslog", "datagrams to a Unix socket, unconfirmed"
    ),
    "relp": ProtocolKind(
        RelpOptions, RelpSink, "syslog", "RELP, confirmed by the receiver's answer", port=2514,
        limits=lambda options: options.limits(),
    ),
    "http": ProtocolKind(
        HttpOptions, HttpSink, "json", "POST requests, confirmed by the answer",
        limits=lambda options: options.batch.limits(options.in_flight),
    ),
    "splunk-hec": ProtocolKind(
        SplunkHecOptions, SplunkHecSink, "json",
        "Splunk's HTTP Event Collector, confirmed by its answer or by the indexers",
        port=8088, limits=lambda options: options.limits(), wrap=hec_events,
    ),
    "elasticsearch": ProtocolKind(
        ElasticsearchOptions, ElasticsearchSink, "ecs",
        "Elasticsearch and OpenSearch: bulk requests, each document confirmed by its own answer",
        port=9200, limits=lambda options: options.batch.limits(options.in_flight),
        wrap=bulk_documents,
    ),
    "sentinel": ProtocolKind(
        SentinelOptions, SentinelSink, "json",
        "Microsoft Sentinel's Logs Ingestion API, confirmed by the answer",
        limits=lambda options: options.batch.limits(options.in_flight), wrap=sentinel_records,
        max_message_bytes=MAX_RECORD_BYTES,
    ),
    "otlp": ProtocolKind(
        OtlpOptions, OtlpSink, "json",
        "OpenTelemetry log records (OTLP/HTTP, JSON), confirmed by the answer",
        port=4318, limits=lambda options: options.batch.limits(options.in_flight), wrap=log_records,
    ),
    "kafka": ProtocolKind(
        KafkaOptions, KafkaSink, "json",
        "a Kafka topic, confirmed by all in-sync replicas; needs `pip install siemrelay[kafka]`",
        limits=lambda options: options.limits(), wrap=keyed_messages,
    ),
    "file": ProtocolKind(
        ArchiveOptions, ArchiveSink, "json", "lines in a rotating file, confirmed by fsync"
    ),
    "stdout": ProtocolKind(
        StdoutOptions, StdoutSink, "json", "lines on standard output, for another program"
    ),
}  # fmt: skip

__all__ = [
    "DECODERS", "FORMATS", "PRODUCTS", "PROTOCOLS", "SOURCES", "Decoder", "DecoderKind",
    "FormatKind", "ProtocolKind", "SourceKind", "build_format",
]  # fmt: skip


def build_format(name: str, header: HeaderName, options: Any, host: str) -> Format:
    """The format of a sink, behind the syslog header that it chose."""
    kind = FORMATS[name]
    inner = kind.build(options, host)
    return inner if header == "none" else Headed(inner, header, options, host, tag=kind.tag)
