"""Loads a configuration file: the validated configuration, or every fault in it at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import BaseModel, ValidationError

from siemrelay.config.cross_checks import clashes
from siemrelay.config.files import document_of, text_of
from siemrelay.config.lookalikes import with_lookalikes
from siemrelay.config.models import (
    EventTypeConfig,
    RelayConfig,
    SinkConfig,
    SourceConfig,
    declared_catalogue,
)
from siemrelay.config.option_models import Joined, join_sink, join_source
from siemrelay.config.own_products import own_products
from siemrelay.config.requirements import missing, pem_files
from siemrelay.config.secrets import (
    inline_secrets,
    parts_of,
    redactable,
    secrets_of,
    without_secrets,
)
from siemrelay.config.substitution import Substituted, substitute
from siemrelay.config.validation_errors import explain
from siemrelay.config.yaml_document import Document, KeyPath, dotted, in_order
from siemrelay.core.errors import ConfigurationRefused, Fault
from siemrelay.core.event_types import Catalogue
from siemrelay.core.filters import entry_fault
from siemrelay.net.pem import FileState, file_state
from siemrelay.products.product import Products
from siemrelay.telemetry.endpoint_options import EndpointOptions
from siemrelay.transforms.event_rules import is_rule


class Loaded(msgspec.Struct, frozen=True):
    """A valid configuration, and what it takes to show it without its secrets."""

    file: str
    config: RelayConfig
    shown: Mapping[KeyPath, str]
    """For each value that held a `${...}`: the text as written, which is shown instead."""
    secrets: frozenset[str]
    """Every secret of 4 characters or more, for the log's redactor."""
    inline_secrets: tuple[KeyPath, ...]
    """Paths at which the file holds a secret in plain text."""
    document: Document
    """The line and column of each key and value."""
    text: str = ""
    included: Mapping[str, str] = {}
    """The files that it includes: the text of each by its path."""
    secret_files: Mapping[Path, FileState | None] = {}
    """The files of its secrets, each as it was before it was read."""
    secret_texts: Mapping[KeyPath, Mapping[Path, str]] = {}
    """Their contents, by the value that each was filled into."""
    kept: tuple[Fault, ...] = ()
    """Faults of new secrets in whose place the earlier ones are; see `load_again`."""
    tls_files: Mapping[Path, FileState | None] = {}
    """The PEM files of its parts, as they were when it was loaded."""
    elsewhere: tuple[str, ...] = ()
    """The sinks that other relays of the fleet run (`of_pool`)."""
    unread: tuple[Fault, ...] = ()
    """Credentials that were not read, and a placeholder stands for them; see `load`."""


def load(
    path: str | Path, *, need_credentials: bool = True, only_sinks: Collection[str] | None = None
) -> Loaded:
    """Read, fill in and validate a configuration file.

    Without `need_credentials`, for what sends nothing, credentials that only the service gets are
    no faults (`unread`). With `only_sinks`, for what uses no other sink, neither are references
    that cannot be resolved in other sinks and in sources; such a sink may be left out.

    Raises: ConfigurationRefused with every fault (without a line if the file cannot be read): show
    them, change nothing.
    """
    return load_text(
        text_of(path), str(path), need_credentials=need_credentials, only_sinks=only_sinks
    )


def of_pool(loaded: Loaded, pool: str) -> Loaded:
    """The parts of that pool. Raises ConfigurationRefused if it lacks sources or sinks."""
    try:
        config = loaded.config.of_pool(pool)
    except ValueError as error:
        raise ConfigurationRefused(loaded.file, [Fault(str(error))]) from error
    elsewhere = tuple(name for name in loaded.config.sinks if name not in config.sinks)
    return msgspec.structs.replace(loaded, config=config, elsewhere=elsewhere)


def load_again(loaded: Loaded, environment: Mapping[str, str] | None = None) -> Loaded:
    """As `load_text`, from the texts of what was loaded, whatever its files say by now.

    A part for which a file holds no usable secret keeps all of its secrets as they were loaded
    (`Loaded.kept`), and the others get theirs.
    """

    def read(kept: Mapping[Path, str]) -> Loaded:
        document = document_of(loaded.text, loaded.file, loaded.included)
        return _load(
            document, loaded.text, loaded.file, environment, products=loaded.config.products,
            kept=kept,
        )  # fmt: skip

    try:
        return read({})
    except ConfigurationRefused as refused:
        paths = {dotted(path): path for path in loaded.shown}
        faults = [fault for fault in refused.faults if fault.key in paths]
        parts = {paths[fault.key][:2] for fault in faults}
        kept = {
            file: text
            for path, texts in loaded.secret_texts.items() if path[:2] in parts
            for file, text in texts.items()
        }  # fmt: skip
        return msgspec.structs.replace(read(kept), kept=tuple(faults))


def load_text(
    text: str, file: str, environment: Mapping[str, str] | None = None, *,
    need_credentials: bool = True, only_sinks: Collection[str] | None = None,
) -> Loaded:  # fmt: skip
    """As `load`, from text; `file` is the name in faults, and `include` starts from its directory.

    `environment` replaces the process's variables if it is given.
    """
    document = document_of(text, file)
    return _load(
        document, text, file, environment, need_credentials=need_credentials, only_sinks=only_sinks
    )


def _load(
    document: Document, text: str, file: str, environment: Mapping[str, str] | None, *,
    need_credentials: bool = True, only_sinks: Collection[str] | None = None,
    products: Products | None = None, kept: Mapping[Path, str] | None = None,
) -> Loaded:  # fmt: skip
    if document.value is None and not document.faults:
        document.faults.append(
            Fault("the file is empty; it needs `sources:` and `sinks:`", "", 1, 1)
        )
    elif document.value is not None and not isinstance(document.value, dict):
        document.faults.append(document.fault((), "expected `key: value` lines at the top level"))
    if not isinstance(document.value, dict):
        raise ConfigurationRefused(file, with_lookalikes(document.faults, text))
    filled = substitute(
        document, environment, need_credentials=need_credentials, only_sinks=only_sinks,
        kept=kept or {},
    )  # fmt: skip
    if products is None:
        products = own_products(document, filled.value.get("products_dir"))
    config = _validated(filled, document, products)
    if config is None or document.faults:
        explained = with_lookalikes(document.faults, text, document.included)
        raise ConfigurationRefused(file, in_order(without_secrets(explained, filled)))
    inline = inline_secrets(config, filled)
    parts = {part for _, secret in secrets_of(config) for part in parts_of(secret)}
    return Loaded(
        file=file,
        config=config,
        shown=filled.shown,
        secrets=redactable(filled.found | parts),
        inline_secrets=tuple(dict.fromkeys(path for path, _ in inline)),
        document=document,
        text=text,
        included=document.included,
        secret_files=filled.files,
        secret_texts=filled.texts,
        tls_files={
            file: file_state(file)
            for part in (*config.sources.values(), *config.sinks.values())
            for file in pem_files(part)
        },
        unread=tuple(filled.unread),
    )


def _validated(filled: Substituted, document: Document, products: Products) -> RelayConfig | None:
    """The configuration, or None after adding every fault to the document."""
    top = dict(filled.value)
    validator = _Validator(document, filled.failed)
    catalogue = _catalogue(top, products)
    join = partial(join_source, products=products)
    top["sources"] = validator.parts(top, "sources", join, SourceConfig)
    top["sinks"] = validator.parts(top, "sinks", join_sink, SinkConfig)
    found = clashes(top["sources"], top["sinks"], _endpoint(top), partial(_line, document))
    for path, message in found:
        document.faults.append(document.fault(path, message))
    for path, entry in _event_entries(filled.value):
        wrong = entry_fault(entry, catalogue) if path not in filled.failed else None
        if wrong is not None:
            owners = products.with_type(entry)
            if owners:
                wrong = (
                    f"{entry!r} is an event type of {' and '.join(owners)}; no source has "
                    f"`product: {owners[0]}`"
                )
            document.faults.append(document.fault(path, wrong))
    if isinstance(top["sinks"], dict) and not document.faults:
        # Without a fault only those are placeholders that nobody needs (`only_sinks`).
        top["sinks"] = {n: sink for n, sink in top["sinks"].items() if type(sink) is not SinkConfig}
    top = {key: value for key, value in top.items() if value is not _ABSENT}
    config = validator.model(RelayConfig, top, filled.value, ())
    if document.faults:
        # Refused in any case, so report everything that needs fixing at once, and what explains it.
        document.faults += [*document.remarks, *document.explanations]
        document.faults += missing(document, top.get("sources"), top.get("sinks"))[0]
    return config.with_products(products) if isinstance(config, RelayConfig) else None


_ABSENT: Final = object()


class _Validator:
    """Validates the parts and collects the faults of all of them."""

    def __init__(self, document: Document, failed: set[KeyPath]) -> None:
        self._document, self._failed = document, failed

    def model(
        self, model: type[BaseModel], values: Any, written: Any, at: KeyPath
    ) -> BaseModel | None:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            faults = explain(error, model, written, at, self._document)
            self._add(faults)
            return None

    def parts(
        self,
        top: dict[str, Any],
        section: str,
        join: Callable[[Mapping[str, Any]], Joined],
        common: type[BaseModel],
    ) -> Any:
        """The section with its valid parts built; a faulty part is an unvalidated placeholder."""
        written = top.get(section, _ABSENT)
        if not isinstance(written, dict):
            return written
        built: dict[str, Any] = {}
        for name, values in written.items():
            if not isinstance(values, dict):
                built[name] = values
                continue
            joined = join(values)
            at: KeyPath = (section, name)
            self._add(
                self._document.fault((*at, refused.key), refused.message, at_key=refused.at_key)
                for refused in joined.refused
            )
            self._failed.update((*at, refused.key) for refused in joined.refused)
            part = self.model(joined.model, joined.values, joined.values, at)
            built[name] = part or common.model_construct()
        return built

    def _add(self, faults: Iterable[Fault]) -> None:
        # A value whose reference failed has its fault already.
        hidden = {dotted(path) for path in self._failed}
        self._document.faults += [fault for fault in faults if fault.key not in hidden]


def _endpoint(top: Mapping[str, Any]) -> EndpointOptions | None:
    """The endpoint's options; None if they have faults, which are reported elsewhere."""
    try:
        return EndpointOptions.model_validate(top.get("endpoint") or {})
    except ValidationError:
        return None


def _line(document: Document, path: KeyPath) -> str:
    """` (line 7)`, or ` (by default)` for a key that the file does not have."""
    mark = document.values.get(path)
    if mark is None:
        return " (by default)"
    return f" ({mark.file}:{mark.line})" if mark.file else f" (line {mark.line})"


def _catalogue(top: Mapping[str, Any], products: Products) -> Catalogue:
    """The catalogue with the valid declared types; their faults are reported elsewhere."""
    declared = top.get("event_types")
    if isinstance(declared, list):
        declared = {name: None for name in declared if isinstance(name, str)}
    good: dict[str, EventTypeConfig] = {}
    for name, settings in declared.items() if isinstance(declared, dict) else ():
        try:
            good[name] = EventTypeConfig.model_validate(settings or {})
        except ValidationError:
            good[name] = EventTypeConfig()
    return declared_catalogue(good, products, _products_named(top, products))


def _products_named(top: Mapping[str, Any], products: Products) -> Iterator[str]:
    sources = top.get("sources")
    for source in sources.values() if isinstance(sources, dict) else ():
        name = source.get("product") if isinstance(source, dict) else None
        if isinstance(name, str) and name in products:
            yield name


def _event_entries(top: Any) -> Iterator[tuple[KeyPath, str]]:
    """Every entry of every part's `events` and of its `sample` or `limit`, with its path."""
    for section in ("sources", "sinks"):
        parts = top.get(section)
        for name, part in parts.items() if isinstance(parts, dict) else ():
            if not isinstance(part, dict):
                continue
            yield from _entries((section, name, "events"), part.get("events"))
            for key in ("sample", "limit"):
                yield from _entries_of_rules((section, name, key), part.get(key))


def _entries_of_rules(at: KeyPath, rules: Any) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(rules, dict) and not is_rule(rules):  # `limit: {User Logged In: 100/s}`
        yield from (((*at, entry), entry) for entry in rules if isinstance(entry, str))
    elif isinstance(rules, dict):
        yield from _entries((*at, "events"), rules.get("events"))
    for i, rule in enumerate(rules if isinstance(rules, list) else ()):
        if isinstance(rule, dict):
            yield from _entries((*at, i, "events"), rule.get("events"))


def _entries(at: KeyPath, events: Any) -> Iterator[tuple[KeyPath, str]]:
    lists: list[tuple[KeyPath, Any]] = [(at, events)]
    if isinstance(events, dict):
        lists = [((*at, key), events.get(key)) for key in ("include", "exclude")]
    for path, value in lists:
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, list):
            yield from (((*path, i), v) for i, v in enumerate(value) if isinstance(v, str))
