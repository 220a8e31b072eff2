"""The products whose records the relay knows: one YAML file each, beside this module.

A file has the product's spellings of the event's fields, the meaning of its values, its event types
with categories and severities, and what it sets for a source that its records come by. A file is
read when a configuration names its product. config/README.md explains the keys to people who write
a file of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product as every
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from siemrelay.core.event import FIELDS
from siemrelay.core.event_types import Catalogue, EventType, Values, normal_key
from siemrelay.core.options import NonEmpty, Options, listed
from siemrelay.decoders.fields import Spellings

# libyaml's parser: ten times as fast. Every value is a text, and the model makes numbers of some.
_Loader: Final[Any] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

NO_PRODUCT: Final = "none"
"""Written in a file that builds on no product: as its `extends`, or a field's last path."""

_MAPPED: Final = ("type", "category", "severity", "outcome")
_OUTCOMES: Final = ("success", "failure", "unknown")
_MOST_SEVERE: Final = 10


def _field(value: str) -> str:
    if value not in FIELDS:
        raise ValueError(f"unknown event field `{value}`; the fields are {', '.join(FIELDS)}")
    return value


def _mapped(value: str) -> str:
    if value not in _MAPPED:
        raise ValueError(f"values of `{value}` have no meanings; those of {', '.join(_MAPPED)} do")
    return value


_Paths = Annotated[list[NonEmpty], BeforeValidator(listed), Field(min_length=1)]
_Row = tuple[Annotated[int, Field(ge=0, le=_MOST_SEVERE)], str]


class ProductFile(Options):
    """The content of a product's file."""

    summary: str = Field(description="the product, in a few words")
    extends: str = Field(
        "generic",
        description="the product whose spellings and meanings count where this one has none; "
        "`none`: no other",
    )
    fields: dict[Annotated[str, AfterValidator(_field)], _Paths] = Field(
        default={},
        description="event field → where a record has it, one path or several in order; `none` as "
        "the last one leaves out those of the product that this one extends",
    )
    values: dict[Annotated[str, AfterValidator(_mapped)], dict[str, str]] = Field(
        default={},
        description="event field → what the record has there, or a pattern with `*` and `?`, → its "
        "meaning; the empty text stands for a record that has nothing there",
    )
    types: dict[NonEmpty, dict[NonEmpty, _Row]] = Field(
        default={},
        description="category → event type → its severity (0 to 10) and a description",
    )
    items: NonEmpty | None = Field(
        None,
        description="the `items` of every source of its records, but for `http_poll`: dotted path "
        "of the array in a record that holds many",
    )
    types_of: list[str] = Field(
        default=[], description="products whose event types are known with this one"
    )
    sources: dict[str, dict[str, Any]] = Field(
        default={},
        description="source type → options that a source of that type has by default, for records "
        "of this product",
    )

    @model_validator(mode="after")
    def _values_are_the_events(self) -> ProductFile:
        for written, meaning in self.values.get("outcome", {}).items():
            if meaning not in _OUTCOMES:
                raise ValueError(f"the outcome of {written!r} must be {' or '.join(_OUTCOMES)}")
        for written, meaning in self.values.get("severity", {}).items():
            if meaning and (not meaning.isdecimal() or int(meaning) > _MOST_SEVERE):
                raise ValueError(
                    f"the severity of {written!r} must be from 0 to {_MOST_SEVERE}, or an empty "
                    "text for that of the type"
                )
        return self


class Product(msgspec.Struct, frozen=True):
    """A product as decoders and sources use it."""

    name: str
    summary: str
    spellings: Spellings
    values: Values
    types: tuple[EventType, ...]
    types_of: tuple[str, ...] = ()
    items: str | None = None
    sources: Mapping[str, Mapping[str, Any]] = {}

    def defaults(self, source_type: str) -> Mapping[str, Any]:
        """The options that a source of that type has for records of this product."""
        # The answers of a product's API are no records.
        wanted = self.items is not None and source_type != "http_poll"
        return {**({"items": self.items} if wanted else {}), **self.sources.get(source_type, {})}


class Products(Mapping[str, Product]):
    """The products by name: those of the operator's own files, then the built-in ones.

    Which names there are is known without reading a file.
    """

    def __init__(self, own: Mapping[str, ProductFile] | None = None) -> None:
        """`own` are the operator's; one with the name of a built-in product replaces it, and may
        extend it.
        """
        self.own: Mapping[str, ProductFile] = own or {}
        self._found: dict[str, Product] = {}

    def __getitem__(self, name: str) -> Product:
        """The product. Raises KeyError with the name of one that does not exist or extends itself.

        A file that has the name of a built-in product and extends it is no circle.
        """
        if name not in self._found:
            file = self.own.get(name)
            self._found[name] = _built_in(name) if file is None else self._made(name, file)
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in _names()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*_names(), *self.own)))

    def __len__(self) -> int:
        return len({*_names(), *self.own})

    def __eq__(self, other: object) -> bool:
        """Whether the operator's files are the same."""
        return self.own == other.own if isinstance(other, Products) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as of every mapping

    def catalogue(
        self, products: Iterable[str], declared: Iterable[EventType] = (), *,
        product: str | None = None,
    ) -> Catalogue:  # fmt: skip
        """The event types of these products, and the declared ones before all.

        With `product` those of its types that share a name with another's are this product's, and
        its values have the meaning that they have in it.
        """
        own = [product] if product else []
        named = dict.fromkeys(("generic", *products, *own))
        names = dict.fromkeys(each for name in named for each in (*self[name].types_of, name))
        types = [known for name in (*names, *own) for known in self[name].types]
        return Catalogue([*types, *declared], self[product].values if product else {})

    def with_type(self, name: str) -> list[str]:
        """The products that have an event type of that name, however it is spelled."""
        key = normal_key(name)
        return [
            product
            for product in self
            if any(normal_key(known.name) == key for known in self[product].types)
        ]

    def _made(self, name: str, file: ProductFile) -> Product:
        if self._is_in_circle(name):
            raise KeyError(name)
        if file.extends == NO_PRODUCT:
            return _product(name, file, None)
        extended = _built_in(name) if file.extends == name else self[file.extends]
        return _product(name, file, extended)

    def _is_in_circle(self, name: str) -> bool:
        at, seen = name, set[str]()
        while at not in seen and (file := self.own.get(at)) is not None and file.extends != at:
            seen.add(at)
            at = file.extends
        return at in seen


def _product(name: str, file: ProductFile, extended: Product | None) -> Product:
    fields = {field: tuple(expanded(paths)) for field, paths in file.fields.items()}
    known: Spellings = extended.spellings if extended else {}
    spellings = {}
    for field in FIELDS:
        paths = fields.get(field, ())
        paths = paths[:-1] if paths[-1:] == (NO_PRODUCT,) else (*paths, *known.get(field, ()))
        if paths:
            spellings[field] = tuple(dict.fromkeys(paths))
    types = [
        EventType(each, category, severity, description, name)
        for category, rows in file.types.items()
        for each, (severity, description) in rows.items()
    ]
    if extended is None:
        return Product(
            name, file.summary, spellings, file.values, tuple(types), tuple(file.types_of),
            file.items, file.sources,
        )  # fmt: skip
    return Product(
        name, file.summary, spellings, {**extended.values, **file.values},
        (*extended.types, *types), (*extended.types_of, *file.types_of),
        file.items or extended.items, {**extended.sources, **file.sources},
    )  # fmt: skip


def expanded(paths: Iterable[str]) -> Iterator[str]:
    """Each path; `user|actor.id|uid` stands for four: `user.id`, `user.uid`, `actor.id`, …"""
    for path in paths:
        if "|" in path and "{" not in path:
            steps = [[name.strip() for name in step.split("|")] for step in path.split(".")]
            yield from map(".".join, every(*steps))
        else:
            yield path


_FOLDER: Final = Path(__file__).parent
_read: Final[dict[str, Product]] = {}
_listed_names: Final[list[str]] = []


def _names() -> list[str]:
    if not _listed_names:
        found = sorted(file.stem for file in _FOLDER.glob("*.yaml"))
        _listed_names.extend(["generic", *(name for name in found if name != "generic")])
    return _listed_names


def _built_in(name: str) -> Product:
    if name not in _names():
        raise KeyError(name)
    if name not in _read:
        file = ProductFile.model_validate(yaml.load(text_of(name), _Loader))
        _read[name] = _product(
            name, file, None if file.extends == NO_PRODUCT else _built_in(file.extends)
        )
    return _read[name]


def text_of(name: str) -> str:
    """The text of a built-in product's file."""
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


BUILT_IN: Final = Products()
"""The products that the relay brings with it."""
