"""Parts built from a validated configuration: for the daemon, and for commands that try a part."""

from __future__ import annotations

import re
import socket
from base64 import b32encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from secrets import token_bytes
from typing import Any, Final, Protocol

import msgspec
from pydantic import BaseModel

from siemrelay import __version__, registry
from siemrelay.buffer.contract import Deliverable
from siemrelay.config.describe import written
from siemrelay.config.models import RelayConfig, SinkConfig
from siemrelay.core.event import AuditEvent
from siemrelay.core.event_types import UNKNOWN, UNPARSED
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.decoders.contract import Decoder
from siemrelay.formats.contract import Format, HeaderName
from siemrelay.pipeline.delivery import Delivery, Retry
from siemrelay.pipeline.format_cache import FormatCache
from siemrelay.pipeline.formatting import Formatter, SinkFormat
from siemrelay.pipeline.observer import Observers
from siemrelay.pipeline.record_splitter import RecordSplitter
from siemrelay.pipeline.sealing.sealed_stream import SealedStream
from siemrelay.pipeline.sealing.settings import StreamSettings
from siemrelay.pipeline.sent_again import NumberSource
from siemrelay.pipeline.source_filter import SourceFilter
from siemrelay.proof.leaf import NUMBER_CHARACTERS
from siemrelay.sinks.contract import BatchLimits, Sink, unwrapped
from siemrelay.sources.contract import Source
from siemrelay.telemetry.stats import SinkStats
from siemrelay.transforms.additions import AddingDecoder, Additions
from siemrelay.transforms.event_paths import decoded_field
from siemrelay.transforms.limiting import Limiter
from siemrelay.transforms.transform import (
    EVERYTHING,
    EventTransform,
    TransformOptions,
    transform_of,
)

_NUMBER: Final = b32encode(token_bytes(NUMBER_CHARACTERS)).decode()[:NUMBER_CHARACTERS].lower()
"""Stands for a number in messages of this process. No sender can know it."""


class SinkParts(msgspec.Struct, frozen=True):
    """What one sink is made of; nothing in it has been opened."""

    name: str
    config: SinkConfig
    messages: SinkFormat
    sink: Sink
    limits: BatchLimits

    @property
    def events(self) -> EventFilter:
        """Which events it takes."""
        return self.messages.events

    @property
    def format(self) -> Format:
        """What its messages are made with."""
        return self.messages.format

    @property
    def max_message_bytes(self) -> int | None:
        """The size to which longer messages are truncated."""
        return self.messages.max_message_bytes

    @property
    def transform(self) -> EventTransform | None:
        """What it does with events before it formats them."""
        return self.messages.transform

    @property
    def fields(self) -> frozenset[str]:
        """What the decoder has to fill for it."""
        return self.messages.fields

    @property
    def sources(self) -> frozenset[str] | None:
        """Whose records it takes, with their former names; None for all."""
        return self.messages.sources


class _Reading(Protocol):
    """What the decoders have to know of a sink."""

    @property
    def fields(self) -> frozenset[str]: ...
    @property
    def sources(self) -> frozenset[str] | None: ...


class FormatRecipe(msgspec.Struct, frozen=True):
    """What a sink's format is made of: equal ones write equal messages.

    `options` are those that were read while the format was made. `protocol` is the one that puts
    an envelope around the messages; empty for those that have none.
    """

    format: str
    header: HeaderName
    protocol: str
    host: str
    options: dict[str, Any]

    @classmethod
    def of(cls, config: SinkConfig, host: str, added: Sequence[str]) -> tuple[FormatRecipe, Format]:
        """The recipe of a sink's format, and the format, which carries the added attributes."""
        kind = registry.PROTOCOLS[config.protocol]
        reads = _Reads(registry.carrying(config.format, config, added))
        inner = registry.build_format(config.format, config.header, reads, host)
        protocol = config.protocol if kind.wrap is not unwrapped else ""
        form = kind.wrap(inner, reads)
        return cls(config.format, config.header, protocol, host, reads.found), form


class _Reads:
    """Options that remember which of them were read."""

    def __init__(self, options: SinkConfig) -> None:
        self._options, self.found = options, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        value = self.found[name] = getattr(self._options, name)
        return value


class Assembly:
    """Builds parts by their names in the configuration."""

    def __init__(self, config: RelayConfig, number: str = _NUMBER) -> None:
        """`number` stands for a number in messages of sealed streams."""
        self._config, self.number = config, number
        self.catalogue = config.catalogue()
        self._host = socket.gethostname()

    def sink(self, name: str) -> SinkParts:
        """One sink, enabled or not."""
        config = self._config.sinks[name]
        kind = registry.PROTOCOLS[config.protocol]
        return SinkParts(
            name, config, self.sink_format(name), kind.build(config), kind.limits(config)
        )

    def sink_format(self, name: str) -> SinkFormat:
        """How one sink's messages are made, and what they share with those of other sinks."""
        config = self._config.sinks[name]
        limits = filter(None, (
            config.max_message_size, registry.PROTOCOLS[config.protocol].max_message_bytes(config),
        ))  # fmt: skip
        limit = min(limits, default=None)
        recipe, form = FormatRecipe.of(config, self._host, self._added_attributes(config))
        return SinkFormat(
            EventFilter(config.events, self.catalogue), form, limit, self._taken(config),
            made_of=(recipe, limit, config.add, config.redact, config.seal is None),
            filtered_by=(config.events, config.where, config.sample),
            transform=transform_of(config, self.catalogue),
            number=None if config.seal is None else self.number,
        )  # fmt: skip

    def _taken(self, config: SinkConfig) -> frozenset[str] | None:
        former = (self.former_names.get(name) for name in config.sources)
        return frozenset((*config.sources, *filter(None, former))) if config.sources else None

    def _added_attributes(self, sink: SinkConfig) -> list[str]:
        """The attributes that `add` of the sink and of its sources sets."""
        parts = [source for name, source in self._config.sources.items()
                 if not sink.sources or name in sink.sources]  # fmt: skip
        added = {path: None for part in (*parts, sink) for path in part.add}
        return [path for path in added if path.startswith("attributes.")]

    def stream(self, name: str) -> StreamSettings | None:
        """The sealed stream of a sink; None without `seal:`."""
        config = self._config.sinks[name]
        if config.seal is None:
            return None
        made_by = {
            "version": __version__, "host": self._host, "sink": _settings(config, _OF_DELIVERY),
            "sources": {name: _settings(each) for name, each in self._config.sources.items()},
            "event types": {
                name: _settings(each) for name, each in self._config.event_types.items()
            },
        }  # fmt: skip
        digest = sha256(msgspec.json.encode(made_by, order="sorted")).hexdigest()
        return StreamSettings(
            relay_name(), name, config.protocol, config.format, digest[:_DIGEST_CHARACTERS],
            config.seal.every, config.seal.keep, self._config.state_dir,
        )  # fmt: skip

    def source(self, name: str) -> Source:
        """One source."""
        return registry.build_source(name, self._config.sources[name])

    def decoder(
        self, source: str | None, sinks: Iterable[_Reading], *, everything: bool = False
    ) -> Decoder:
        """Reads a source's records as far as these sinks need; None: of a source that is gone."""
        wanted = EVERYTHING if everything else frozenset[str]()
        for parts in sinks:
            if source is None or parts.sources is None or source in parts.sources:
                wanted |= parts.fields
        decoder = self._reader(source, wanted)
        add = {} if source is None else self._config.sources[source].add
        add = {path: value for path, value in add.items() if decoded_field(path) in wanted}
        return AddingDecoder(decoder, Additions(add)) if add else decoder

    def decoders(self, sinks: Collection[_Reading]) -> dict[str, Decoder]:
        """A decoder for the records of each source, also for those stored under a former name."""
        found = {name: self.decoder(name, sinks) for name in self._config.sources}
        for name, former in self.former_names.items():
            found.setdefault(former, found[name])
        return found

    def formatter(self, sinks: Mapping[str, SinkFormat]) -> Formatter:
        """What makes the messages of these sinks; together they decide which fields are decoded."""
        return Formatter(
            sinks, self.decoders(sinks.values()), self.decoder(None, sinks.values()),
            self.former_names,
        )  # fmt: skip

    @property
    def former_names(self) -> dict[str, str]:
        """The former names of renamed sources, by their present ones."""
        return {
            name: source.renamed_from
            for name, source in self._config.sources.items()
            if source.renamed_from is not None
        }

    def source_filter(self, source: str) -> SourceFilter | None:
        """What keeps the source's unwanted records out of the buffer; None if all are wanted."""
        config = self._config.sources[source]
        events = EventFilter(config.events, self.catalogue)
        transform = transform_of(TransformOptions(where=config.where, redact=config.redact))
        takes_all = not events.fields and events.explain(AuditEvent())[0]
        if transform is None and takes_all and not config.limit:
            return None
        limiter = Limiter(config.limit, self.catalogue) if config.limit else None
        exclude = EventsOptions(exclude=config.events.exclude)
        unreadable = AuditEvent(type=UNPARSED, category=UNKNOWN)
        keep, _ = EventFilter(exclude, self.catalogue).explain(unreadable)
        wanted = events.fields if transform is None else events.fields | transform.fields | {"type"}
        wanted |= frozenset() if limiter is None else limiter.fields
        reader = self._reader(source, wanted)
        return SourceFilter(
            source, reader, events, keep_unparsed=keep, transform=transform, limiter=limiter
        )

    def splitter(self, source: str) -> RecordSplitter | None:
        """What takes the source's records apart; None if it does so itself, or they stay whole."""
        config = self._config.sources[source]
        if config.items is None or registry.SOURCES[config.type].splits_items:
            return None
        return RecordSplitter(source, config.items)

    def _reader(self, source: str | None, wanted: frozenset[str]) -> Decoder:
        if source is None:
            generic = self._config.products["generic"].spellings
            return registry.DECODERS["json"].build(generic, wanted, self.catalogue)
        config = self._config.sources[source]
        spellings = dict(self._config.products[config.product].spellings)
        for field, path in config.fields.items():
            # The user's own word comes first; what the product knows stays for other records.
            known = [spelling for spelling in spellings.get(field, ()) if spelling != path]
            spellings[field] = (path, *known)
        kind = registry.DECODERS[config.decoder]
        own = {name: getattr(config, name) for name in kind.options.model_fields}
        catalogue = self._config.catalogue_for(config.product)
        return kind.build(spellings, wanted, catalogue, **own)


class FullDecoders:
    """Decoders that read every field, for people who look at events; made when first used."""

    def __init__(self, running: Callable[[], RelayConfig]) -> None:
        """`running` returns the configuration that runs now; a reload may change it."""
        self._running, self._config = running, running()
        self._made: dict[str, Decoder] = {}

    def __call__(self, source: str) -> Decoder:
        """The decoder of that source, or of records whose source is gone."""
        if self._config is not self._running():
            self._config, self._made = self._running(), {}
        if source not in self._made:
            known = source if source in self._config.sources else None
            self._made[source] = Assembly(self._config).decoder(known, [], everything=True)
        return self._made[source]


def unparsed_why(config: RelayConfig, source: str, record: bytes) -> str:
    """Why the decoder of a source cannot parse a record: a clause for a person."""
    known = config.sources.get(source)
    name = known.decoder if known is not None else "json"
    return f"{registry.DECODERS[name].why(record)} (decoder {name})"


# What changes how a sink is served, and no message.
_OF_DELIVERY: Final = frozenset({
    "enabled", "pool", "renamed_from", "retry", "seal", "start_at", "when_full",
})  # fmt: skip

# 128 bits: nobody finds another configuration with the same digest.
_DIGEST_CHARACTERS: Final = 32


def _settings(part: BaseModel, without: Collection[str] = ()) -> dict[str, Any]:
    """The options of a part as the file writes them, without its secrets."""
    found: dict[str, Any] = written(part, type(part))
    return {name: value for name, value in found.items() if name not in without}


def relay_name() -> str:
    """This machine's name, as it stands in the origins of sealed streams and names its key."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname()) or "siemrelay"


def delivery(
    parts: SinkParts, formatted: FormatCache, buffer: Deliverable, stats: SinkStats,
    observers: Observers | None = None, stream: SealedStream | None = None,
    numbers: NumberSource | None = None,
) -> Delivery:  # fmt: skip
    """What brings the buffer's records to that sink, under seals if it has a stream."""
    retry = Retry(parts.config.retry.initial, parts.config.retry.max)
    reader = formatted.reader(parts.name)
    return Delivery(
        parts.name, parts.sink, reader, parts.limits, buffer, stats, retry, observers, stream,
        numbers,
    )  # fmt: skip
