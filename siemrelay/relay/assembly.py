"""Parts built from a validated configuration: for the daemon, and for commands that try a part."""

from __future__ import annotations

import re
import socket
from base64 import b32encode
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final

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
from siemrelay.formats.contract import Format
from siemrelay.pipeline.delivery import Delivery
from siemrelay.pipeline.format_cache import FormatCache
from siemrelay.pipeline.formatting.formatter import Formatter
from siemrelay.pipeline.formatting.sink_format import SinkFormat
from siemrelay.pipeline.intake.record_splitter import RecordSplitter
from siemrelay.pipeline.intake.source_filter import SourceFilter
from siemrelay.pipeline.observer import DeliveryObserver
from siemrelay.pipeline.retries import Retry
from siemrelay.pipeline.sealing.settings import StreamSettings
from siemrelay.pipeline.sent_again import NumberSource
from siemrelay.proof.stream import NUMBER_CHARACTERS
from siemrelay.relay.recipes import (
    DecoderRecipe,
    FormatRecipe,
    FormatterRecipe,
    Reading,
    SinkRecipe,
)
from siemrelay.sinks.contract import BatchLimits, Sink
from siemrelay.sources.contract import Source
from siemrelay.telemetry.stats import SinkStats
from siemrelay.transforms.limiting import Limiter
from siemrelay.transforms.transform import EventTransform, TransformOptions, transform_of

if TYPE_CHECKING:
    from siemrelay.pipeline.sealing.sealed_stream import SealedStream

_NUMBER: Final = b32encode(token_bytes(NUMBER_CHARACTERS)).decode()[:NUMBER_CHARACTERS].lower()
"""Stands for a number in messages of this process. No sender can know it."""


class SinkParts(msgspec.Struct, frozen=True):
    """The parts of one sink; nothing in it has been opened."""

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
        """The format of its messages."""
        return self.messages.format

    @property
    def max_message_bytes(self) -> int | None:
        """The size to which longer messages are truncated."""
        return self.messages.max_message_bytes

    @property
    def transform(self) -> EventTransform | None:
        """The transforms of its events."""
        return self.messages.transform

    @property
    def fields(self) -> frozenset[str]:
        """The fields that the decoder has to fill for it."""
        return self.messages.fields

    @property
    def sources(self) -> frozenset[str] | None:
        """The sources that it takes records of, with their former names; None for all."""
        return self.messages.sources


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
        return self._sink_recipe(name).build()

    def _sink_recipe(self, name: str) -> SinkRecipe:
        config = self._config.sinks[name]
        limits = filter(None, (
            config.max_message_size, registry.PROTOCOLS[config.protocol].max_message_bytes(config),
        ))  # fmt: skip
        options = registry.carrying(config.format, config, self._added_attributes(config))
        return SinkRecipe(
            FormatRecipe.of(config, options, self._host), config.events, config.alone(),
            self.catalogue, min(limits, default=None), self._taken(config),
            None if config.seal is None else self.number,
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
        self, source: str | None, sinks: Iterable[Reading], *, everything: bool = False
    ) -> Decoder:
        """Reads a source's records as far as these sinks need; None: of a source that is gone."""
        return self._decoder_recipe(source).build(sinks, everything=everything)

    def formatter(self, sinks: Mapping[str, SinkFormat]) -> Formatter:
        """The formatter of these sinks; those that are up decide what is decoded."""
        return self.formatter_recipe([]).of(sinks)

    def formatter_recipe(self, sinks: Iterable[str]) -> FormatterRecipe:
        """How the messages of these sinks are made, for a worker."""
        return FormatterRecipe(
            {name: self._sink_recipe(name) for name in sinks},
            {name: self._decoder_recipe(name) for name in self._config.sources},
            self._decoder_recipe(None), self.former_names,
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
        """The filter in front of the buffer for a source's records; None if it takes all."""
        config = self._config.sources[source]
        events = EventFilter(config.events, self.catalogue)
        # They are validated already: a start builds no validator for them.
        transform = transform_of(
            TransformOptions.model_construct(where=config.where, redact=config.redact)
        )
        takes_all = not events.fields and events.explain(AuditEvent())[0]
        if transform is None and takes_all and not config.limit:
            return None
        limiter = Limiter(config.limit, self.catalogue) if config.limit else None
        exclude = EventsOptions(exclude=config.events.exclude)
        unreadable = AuditEvent(type=UNPARSED, category=UNKNOWN)
        keep, _ = EventFilter(exclude, self.catalogue).explain(unreadable)
        wanted = events.fields if transform is None else events.fields | transform.fields | {"type"}
        wanted |= frozenset() if limiter is None else limiter.fields
        reader = self._decoder_recipe(source).reading(wanted)
        return SourceFilter(
            source, reader, events, keep_unparsed=keep, transform=transform, limiter=limiter
        )

    def splitter(self, source: str) -> RecordSplitter | None:
        """The splitter of a source's records; None if it splits them itself, or they stay whole."""
        config = self._config.sources[source]
        if config.items is None or registry.SOURCES[config.type].splits_items:
            return None
        return RecordSplitter(source, config.items)

    def _decoder_recipe(self, source: str | None) -> DecoderRecipe:
        if source is None:
            generic = self._config.products["generic"].spellings
            return DecoderRecipe("", "json", generic, self.catalogue, {}, {})
        config = self._config.sources[source]
        spellings = dict(self._config.products[config.product].spellings)
        for field, path in config.fields.items():
            # The user's own word comes first; what the product knows stays for other records.
            known = [spelling for spelling in spellings.get(field, ()) if spelling != path]
            spellings[field] = (path, *known)
        options = registry.DECODERS[config.decoder].options.model_fields
        return DecoderRecipe(
            source, config.decoder, spellings, self._config.catalogue_for(config.product),
            {name: getattr(config, name) for name in options}, config.add,
        )  # fmt: skip


class FullDecoders:
    """Decoders that read every field, for pages and `tap`; made when first used."""

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
    observers: list[DeliveryObserver] | None = None, stream: SealedStream | None = None,
    numbers: NumberSource | None = None,
) -> Delivery:  # fmt: skip
    """The delivery of the buffer's records to that sink, sealed if it has a stream."""
    retry = Retry(parts.config.retry.initial, parts.config.retry.max)
    reader = formatted.reader(parts.name)
    return Delivery(
        parts.name, parts.sink, reader, parts.limits, buffer, stats, retry, observers, stream,
        numbers,
    )  # fmt: skip
