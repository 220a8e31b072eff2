"""The configuration's own models: the relay, and the options common to all sources and sinks.

The options of one kind of source, protocol or format are beside its code; `option_models` joins
them with these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    WithJsonSchema,
    field_validator,
)

from siemrelay.config.describe import nearest
from siemrelay.core.event import DEFAULT_SEVERITY, FIELDS
from siemrelay.core.event_types import Catalogue, EventType
from siemrelay.core.filters import EventsChoice, EventsOptions
from siemrelay.core.options import Duration, NonEmpty, Options, Size, absolute, one_or_more
from siemrelay.pipeline.sealing.options import SealChoice
from siemrelay.products.product import BUILT_IN, Products
from siemrelay.telemetry.endpoint_options import EndpointOptions
from siemrelay.transforms.transform import SinkTransformOptions, SourceTransformOptions

# Names become metric labels, command arguments and keys in the buffer: short and plain.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# Every syslog receiver must accept this size (RFC 5424, 6.1); a smaller one holds no event.
_MIN_MESSAGE_BYTES: Final = 480

# A buffer of fewer than a few of the largest batches would always be full.
_MIN_BUFFER_BYTES: Final = 16 << 20

WhenFull = Literal["block", "drop_oldest"]
Header = Literal["none", "rfc3164", "rfc5424"]


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "a name is 1 to 64 letters, digits, `.`, `_`, `-`; first a letter or digit"
        )
    return value


def _event_field(value: str) -> str:
    if value not in FIELDS:
        meant = nearest(value, list(FIELDS))
        hint = f"did you mean `{meant}`?" if meant else f"the fields are {', '.join(FIELDS)}"
        raise ValueError(f"unknown event field `{value}`; {hint}")
    return value


Name = Annotated[str, AfterValidator(_name)]
EventField = Annotated[
    str, AfterValidator(_event_field), WithJsonSchema({"type": "string", "enum": [*FIELDS]})
]


Names = Annotated[list[Name], one_or_more(Name)]
Pools = Annotated[list[NonEmpty], one_or_more(NonEmpty)]
"""Pool labels; a single one may be written without a list."""


class SourceConfig(SourceTransformOptions):
    """Options of every source."""

    type: str = Field(description="the kind of source")
    decoder: str = Field("json", description="how its records are read")
    product: str = Field(
        "generic", description="the product that writes the records: a ready-made `fields:`"
    )
    fields: dict[EventField, NonEmpty] = Field(
        default={},
        description="event field → dotted path in the record (`actor.name: user.email`); "
        "added to what the product knows",
    )
    items: NonEmpty | None = Field(
        None,
        description="dotted path of an array in JSON records that hold many (`Records`): each "
        "element becomes an event of its own; a record without it stays one event. In the answers "
        "to `http_poll` it is not needed where the array has one of the usual names",
    )
    events: EventsChoice = Field(
        default_factory=EventsOptions,
        description="which records are stored at all, written as a sink's `events`; records that "
        "cannot be parsed are kept unless `exclude` names `Unparsed Record`",
    )
    renamed_from: Name | None = Field(
        None,
        description="the name that this source had before: it keeps its positions, its counts and "
        "the ids of its records. Leave it here while records from before are kept",
    )
    pool: Pools = Field(
        default=[], description="the pools of relays that run it; one name or a list (`run --pool`)"
    )


class RetryOptions(Options):
    """The pause after a failure: `initial`, doubled each time up to `max`, jittered, for ever."""

    initial: Duration = Field(1.0, description="the first pause")
    max: Duration = Field(60.0, description="the longest pause")

    @field_validator("initial", "max")
    @classmethod
    def _positive(cls, value: float) -> float:
        if value <= 0:
            raise ValueError("must be longer than 0s")
        return value

    @field_validator("max")
    @classmethod
    def _not_below_initial(cls, value: float, info: Any) -> float:
        if value < info.data.get("initial", 0.0):
            raise ValueError("must not be shorter than `initial`")
        return value


class SinkConfig(SinkTransformOptions):
    """Options of every sink."""

    siem: str = Field("generic", description="the SIEM whose defaults are used (a preset)")
    protocol: str = Field("udp", description="the transport; `http` if `url` is given")
    format: str = Field("syslog", description="the message format")
    header: Header = Field("none", description="the syslog header in front of the message")
    enabled: bool = Field(
        True, description="`no`: off; records wait for it until the buffer needs the room"
    )
    sources: Names = Field(
        default=[],
        description="the sources that it takes events from, one name or a list; by default all",
    )
    events: EventsChoice = Field(default_factory=EventsOptions, description="which events it takes")
    when_full: WhenFull | None = Field(
        None,
        description="what happens when the buffer is full because of this sink; "
        "by default the buffer's own `when_full`",
    )
    start_at: Literal["next", "oldest"] = Field(
        "next",
        description="where a sink that is new to the buffer starts: "
        "at the next record, or at the oldest that is kept",
    )
    renamed_from: Name | None = Field(
        None,
        description="the name that this sink had before: it takes over what waits for that name, "
        "its counts, dead letters and pause",
    )
    retry: RetryOptions = Field(
        default_factory=RetryOptions, description="the pauses between attempts"
    )
    seal: SealChoice = None
    max_message_size: Annotated[Size, Field(ge=_MIN_MESSAGE_BYTES)] | None = Field(
        None, description="truncate longer messages to this size, with a mark; no limit if not set"
    )
    pool: Pools = Field(
        default=[], description="the pools of relays that run it; one name or a list (`run --pool`)"
    )


class BufferOptions(Options):
    """The disk buffer."""

    max_size: Size = Field(10 << 30, description="the most disk space that the buffer uses")
    keep: Duration = Field(86400.0, description="how long delivered records stay, for replay")
    keep_removed: Duration = Field(
        7 * 86400.0,
        description="how long records wait for a sink that is no longer in the file when the "
        "relay starts; less if the buffer needs the room",
    )
    when_full: WhenFull = Field(
        "block",
        description="stop reading the sources until there is room, or drop the oldest records "
        "(counted); each sink may override this",
    )
    batch_window: Duration = Field(
        0.02,
        ge=0,
        le=1,
        description="records that arrive one by one within this time are stored and sent "
        "together. The first one after a pause goes at once, and so does what a sender waits for "
        "(HTTP, HEC, RELP). A longer window saves CPU, `0` gives the least delay",
    )

    @field_validator("max_size")
    @classmethod
    def _room(cls, value: int) -> int:
        if value < _MIN_BUFFER_BYTES:
            raise ValueError("must be at least 16MiB")
        return value


class LogOptions(Options):
    """The relay's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least important lines that are written"
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is console when attached to a terminal, else json"
    )


class EventTypeConfig(Options):
    """A declared event type."""

    category: NonEmpty = Field("custom", description="the category it belongs to")
    severity: Annotated[int, Field(ge=0, le=10)] = Field(
        DEFAULT_SEVERITY, description="for records that name no severity"
    )
    description: str = Field("", description="one line for people")


DeclaredTypes = dict[NonEmpty, EventTypeConfig | None] | list[NonEmpty]
"""The forms of `event_types`."""


def _declared(value: Any) -> Any:
    """Expand the short forms: a list of names, a name without settings."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    if isinstance(value, dict):
        return {name: {} if settings is None else settings for name, settings in value.items()}
    return value


class RelayConfig(Options):
    """The whole file."""

    include: Annotated[list[NonEmpty], one_or_more(NonEmpty)] = Field(
        default=[],
        description="files with further `sources`, `sinks` and `event_types`: a path or pattern "
        "like `conf.d/*.yaml`, from this file's directory, or a list of them; read in the order of "
        "their names",
    )
    state_dir: Path = Field(
        Path("/var/lib/siemrelay"), description="disk buffer, positions and dead letters"
    )
    sources: dict[Name, SourceConfig] = Field(
        min_length=1, description="where records come from: under a name of yours, a block for each"
    )
    sinks: dict[Name, SinkConfig] = Field(
        min_length=1, description="where events go: under a name of yours, a block for each"
    )
    products_dir: Path | None = Field(
        None,
        description="directory of your own product files, NAME.yaml each, for `product: NAME` of "
        "a source; one with the name of a built-in product replaces it",
    )
    event_types: Annotated[
        dict[NonEmpty, EventTypeConfig],
        BeforeValidator(_declared, json_schema_input_type=DeclaredTypes),
    ] = Field(
        default={},
        description="event types in addition to the built-in ones, for use in `events`",
    )
    buffer: BufferOptions = Field(default_factory=BufferOptions, description="the disk buffer")
    endpoint: EndpointOptions = Field(
        default_factory=EndpointOptions, description="metrics, health and status"
    )
    log: LogOptions = Field(default_factory=LogOptions, description="the relay's own log")
    self_audit: bool = Field(
        True,
        description="whether the relay's own events (start, stop, reload, pause, test, replay, "
        "dead letters, losses) are stored and sent, as those of a source `siemrelay`; never with "
        "`run --drain`",
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        "auto",
        description="the most worker processes, which format events while more arrive than one "
        "core can format. `auto`: one less than the cores that the relay may use (CPU set and "
        "quota of its control group), 4 at most; 0: none",
    )
    shutdown_timeout: Duration = Field(
        10.0, description="how long sinks may continue to deliver when the relay stops"
    )

    _products: Products = PrivateAttr(default=BUILT_IN)

    @property
    def products(self) -> Products:
        """The products that sources may name."""
        return self._products

    @field_validator("state_dir", "products_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value if value is None else absolute(value)

    def with_products(self, products: Products) -> RelayConfig:
        """The same with these products."""
        copied = self.model_copy()
        copied._products = products
        return copied

    def catalogue(self) -> Catalogue:
        """The event types of the sources' products and the declared ones: a choice's vocabulary."""
        named = [source.product for source in self.sources.values()]
        return declared_catalogue(self.event_types, self.products, named)

    def catalogue_for(self, product: str) -> Catalogue:
        """Those of that product alone, and what the values of its records mean.

        A word like `login` means in the records of a source what it means to its own product.
        """
        return declared_catalogue(self.event_types, self.products, (), product)

    def of_pool(self, pool: str) -> RelayConfig:
        """The configuration with only the parts of that pool.

        Raises ValueError with a sentence for a person if it has no source or no sink.
        """
        sources = {name: part for name, part in self.sources.items() if pool in part.pool}
        sinks = {name: part for name, part in self.sinks.items() if pool in part.pool}
        for section, parts in (("source", sources), ("sink", sinks)):
            if not parts:
                known = sorted(
                    {p for s in (self.sources, self.sinks) for q in s.values() for p in q.pool}
                )
                meant = nearest(pool, known)
                hint = (
                    f"did you mean `{meant}`?"
                    if meant and meant != pool
                    else (f"the pools are {', '.join(known)}" if known else "no part has a `pool:`")
                )
                raise ValueError(f"no {section} has `pool: {pool}`; {hint}")
        return self.model_copy(update={"sources": sources, "sinks": sinks})

    def when_full(self, sink: SinkConfig) -> WhenFull:
        """The policy of that sink for a full buffer."""
        return sink.when_full or self.buffer.when_full


def declared_catalogue(
    declared: Mapping[str, EventTypeConfig], products: Products, named: Iterable[str],
    product: str | None = None,
) -> Catalogue:  # fmt: skip
    """The catalogue of the products named and the declared types; see `Products.catalogue`."""
    types = [
        EventType(name, settings.category, settings.severity, settings.description)
        for name, settings in declared.items()
    ]
    return products.catalogue(named, types, product=product)
