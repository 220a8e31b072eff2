"""How messages are made, in plain values that can be sent to a worker.

A worker imports this and the formats and decoders that it uses, and nothing that only the relay
needs: it starts in half the time and takes half the memory
(test_a_worker_imports_only_what_it_formats_with).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from siemrelay import registry
from siemrelay.core.event_types import Catalogue
from siemrelay.core.filters import EventFilter, EventsOptions
from siemrelay.core.options import Options, Secret
from siemrelay.decoders.contract import Decoder
from siemrelay.formats.contract import Format, HeaderName
from siemrelay.pipeline.formatting.formatter import DecoderOf, Formatter
from siemrelay.pipeline.formatting.sink_format import SinkFormat
from siemrelay.transforms.additions import AddingDecoder, Additions
from siemrelay.transforms.event_paths import decoded_field
from siemrelay.transforms.redaction.options import RedactOptions, RedactRule
from siemrelay.transforms.transform import EVERYTHING, SinkTransformOptions, transform_of

if TYPE_CHECKING:
    from siemrelay.config.models import SinkConfig


class FormatRecipe(msgspec.Struct, frozen=True):
    """The settings of a sink's format: equal ones write equal messages.

    `wrap` is that of the sink's protocol, and `options` has those that are read while the format is
    made: of the sink itself a worker imports nothing.
    """

    format: str
    header: HeaderName
    wrap: Callable[[Format, Any], Format]
    host: str
    options: SimpleNamespace

    @classmethod
    def of(cls, config: SinkConfig, options: Any, host: str) -> FormatRecipe:
        """The recipe of a sink's format; `options` are the sink's, with what it carries beside."""
        wrap = registry.PROTOCOLS[config.protocol].wrap
        recipe = cls(config.format, config.header, wrap, host, SimpleNamespace())
        recipe._made(_Reads(options, recipe.options))
        return recipe

    def build(self) -> Format:
        """The format, in its envelope."""
        return self._made(self.options)

    def _made(self, options: Any) -> Format:
        inner = registry.build_format(self.format, self.header, options, self.host)
        return self.wrap(inner, options)


class _Reads:
    """Options of which those that are read are noted in `found`, also those in a block of them."""

    def __init__(self, options: Any, found: SimpleNamespace) -> None:
        self._options, self._found = options, found

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._options, name)
        noted = vars(self._found)
        if isinstance(value, Options):
            return _Reads(value, noted.setdefault(name, SimpleNamespace()))
        noted[name] = value
        return value


class SinkRecipe(msgspec.Struct, frozen=True):
    """How one sink's messages are made; the fields are as in `SinkFormat`."""

    format: FormatRecipe
    events: EventsOptions
    transform: SinkTransformOptions
    catalogue: Catalogue
    max_message_bytes: int | None
    sources: frozenset[str] | None
    number: str | None

    def build(self) -> SinkFormat:
        """Builds what formats the messages."""
        limit, transform = self.max_message_bytes, self.transform
        return SinkFormat(
            EventFilter(self.events, self.catalogue), self.format.build(), limit, self.sources,
            made_of=(self.format, limit, transform.changing, self.number is None),
            filtered_by=(self.events, transform.choosing),
            transform=transform_of(transform, self.catalogue),
            number=self.number,
        )  # fmt: skip


class Reading(Protocol):
    """The demands of a sink on decoders."""

    @property
    def fields(self) -> frozenset[str]:
        """The fields that the decoder has to fill for it."""

    @property
    def sources(self) -> frozenset[str] | None:
        """The sources that it takes records of, with their former names; None for all."""


class DecoderRecipe(msgspec.Struct, frozen=True):
    """How a source's records are read. `source` is empty for sources that are gone."""

    source: str
    decoder: str
    spellings: Mapping[str, tuple[str, ...]]
    catalogue: Catalogue
    options: dict[str, Any]
    add: dict[str, Any]

    def build(self, sinks: Iterable[Reading], *, everything: bool = False) -> Decoder:
        """Reads as far as these sinks need."""
        wanted = self._wanted(sinks) | (EVERYTHING if everything else frozenset())
        return self._adding(wanted, wanted)

    def fitted(self, sinks: Iterable[Reading]) -> DecoderOf:
        """Makes decoders that read as far as some of these sinks need.

        They all add the same, so that a message never depends on the sinks beside its own.
        """
        return partial(self._adding, self._wanted(sinks))

    def _wanted(self, sinks: Iterable[Reading]) -> frozenset[str]:
        taking = (
            sink.fields for sink in sinks
            if not self.source or sink.sources is None or self.source in sink.sources
        )  # fmt: skip
        return frozenset[str]().union(*taking)

    def _adding(self, added: frozenset[str], wanted: frozenset[str]) -> Decoder:
        decoder = self.reading(wanted)
        add = {path: value for path, value in self.add.items() if decoded_field(path) in added}
        return AddingDecoder(decoder, Additions(add)) if add else decoder

    def reading(self, wanted: frozenset[str]) -> Decoder:
        """Reads these fields, without what the source adds."""
        kind = registry.DECODERS[self.decoder]
        return kind.build(self.spellings, wanted, self.catalogue, **self.options)


class FormatterRecipe(msgspec.Struct, frozen=True):
    """How the messages of all sinks are made.

    `decoders` are those of the sources, `fallback` that of removed ones, and `former_names` the
    ones of renamed sources by their present names.
    """

    sinks: dict[str, SinkRecipe]
    decoders: dict[str, DecoderRecipe]
    fallback: DecoderRecipe
    former_names: dict[str, str]

    def build(self) -> Formatter:
        """Builds what formats the messages."""
        return self.of({name: sink.build() for name, sink in self.sinks.items()})

    def of(self, sinks: Mapping[str, SinkFormat]) -> Formatter:
        """The same for sinks that are made; those that are up decide which fields are decoded."""
        decoders = {name: each.fitted(sinks.values()) for name, each in self.decoders.items()}
        for name, former in self.former_names.items():
            # Records that were stored under that name.
            decoders.setdefault(former, decoders[name])
        fallback = self.fallback.build(sinks.values())
        return Formatter(sinks, decoders, fallback, self.former_names)

    def pickled(self) -> bytes:
        """A pickled function that makes the formatter; without secrets, but for one.

        That is the key of pseudonyms: messages are made with it.
        """
        stream = io.BytesIO()
        _Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(self.build)
        return stream.getvalue()


def _redact(rules: list[RedactRule], key: str | None) -> RedactOptions:
    return RedactOptions.model_construct(rules=rules, key=None if key is None else Secret(key))


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """See `pickle`."""
        if isinstance(value, RedactOptions):
            return _redact, (value.rules, None if value.key is None else str(value.key))
        if isinstance(value, Secret):
            return Secret, ("",)
        return NotImplemented
