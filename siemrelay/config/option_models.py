"""The options model of one source or sink: the common options and those of the parts it names.

The joined model is a subclass of all of them, so a part takes its configuration as its options.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from copy import copy
from functools import cache
from typing import Any, Final, Literal, cast

import msgspec
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from siemrelay import registry
from siemrelay.config.describe import field_names, key_elsewhere, key_hint, meant_choice
from siemrelay.config.models import SinkConfig, SourceConfig
from siemrelay.config.presets import PRESETS, Preset
from siemrelay.core.options import Options
from siemrelay.products.product import BUILT_IN, Products
from siemrelay.sinks.stream.servers import ports_within

# A limit of events, as it is called here and elsewhere.
_LIMITS: Final = frozenset({"limit", "throttle", "rate_limit", "ratelimit"})

# A preset's keys about one message: these hold over every protocol that carries its format, a size
# in any format.
_OF_FORMAT: Final = ("header", "map")
_SIZE: Final = "max_message_size"


class Refused(msgspec.Struct, frozen=True):
    """A key or choice that no model can validate, and the message about it (or its value)."""

    key: str
    message: str
    at_key: bool = True


class Joined(msgspec.Struct):
    """A source's or sink's model and the values that it is to validate."""

    model: type[Options]
    values: dict[str, Any]
    refused: list[Refused] = msgspec.field(default_factory=list)


def join_source(written: Mapping[str, Any], products: Products = BUILT_IN) -> Joined:
    """The model for a source as written; unknown choices and keys are in `refused`.

    What the file leaves out and its product sets is filled in.
    """
    joined = Joined(SourceConfig, dict(written))
    kind = _choice(joined, "type", registry.SOURCES, None)
    product = _choice(joined, "product", products, "generic")
    defaults = products[product].defaults(kind) if product and kind else {}
    default = registry.SOURCES[kind].decoder if kind else next(iter(registry.DECODERS))
    decoder = _choice(joined, "decoder", registry.DECODERS, defaults.get("decoder", default))
    joined.model = source_model(kind, decoder)
    _fill_source(joined, defaults)
    if "sample" in joined.values:
        message = "a source has no `sample`; write `sample:` on a sink, or `limit:` here"
        _refuse(joined, "sample", message)
    _refuse_keys(
        joined,
        {"type": kind, "decoder": decoder},
        {"type": registry.SOURCES, "decoder": registry.DECODERS},
    )
    return joined


def join_sink(written: Mapping[str, Any]) -> Joined:
    """The model for a sink as written; unknown choices and keys are in `refused`."""
    joined = Joined(SinkConfig, dict(written))
    _take_type_for_protocol(joined)
    siem = _choice(joined, "siem", PRESETS, "generic")
    chosen = PRESETS[siem] if siem else Preset("", "")
    preset = chosen.defaults
    implied = preset.get("protocol") or ("http" if "url" in written else "udp")
    protocol = _choice(joined, "protocol", registry.PROTOCOLS, implied)
    default = registry.PROTOCOLS[protocol].format if protocol else None
    fits = protocol == preset.get("protocol") or protocol in chosen.also
    if fits:
        default = preset.get("format", default)
    form = _choice(joined, "format", registry.FORMATS, default)
    joined.model = sink_model(protocol, form)
    _refuse_limit(joined)
    _refuse_second_port(joined, written)
    _fill(joined, {**preset, **chosen.also.get(protocol or "", {})}, protocol, form, fits=fits)
    if not (joined.values.keys() | written.keys()) & {"protocol", "server", "url"}:
        joined.refused.append(
            Refused("server", "is required: the receiver's name or address (or `url` for http)")
        )
    if form and not registry.FORMATS[form].headers and "header" in joined.values:
        having = ", ".join(name for name, kind in registry.FORMATS.items() if kind.headers)
        _refuse(joined, "header", f"`header` is not used by format {form}; it belongs to {having}")
    _refuse_keys(
        joined,
        {"protocol": protocol, "format": form},
        {"protocol": registry.PROTOCOLS, "format": registry.FORMATS},
    )
    return joined


def _take_type_for_protocol(joined: Joined) -> None:
    """A sink has a `type` in other relays: judge the rest by it, or each key would be a fault."""
    value = joined.values.get("type")
    if not isinstance(value, str) or joined.values.keys() & {"protocol", "siem", "url"}:
        return
    meant = meant_choice("protocol", value, registry.PROTOCOLS)
    if meant is not None:
        _refuse(joined, "type", f"unknown key `type`; did you mean `protocol: {meant}`?")
        joined.values["protocol"] = meant


def _fill_source(joined: Joined, defaults: Mapping[str, Any]) -> None:
    """Fill in what the product sets; of a block (`signature`) only if the file has it."""
    known = field_names(joined.model)
    for key, value in defaults.items():
        if not isinstance(value, dict):
            if key in known:
                joined.values.setdefault(key, value)
        elif isinstance(joined.values.get(key), dict):
            joined.values[key] = {**value, **joined.values[key]}


def _refuse_limit(joined: Joined) -> None:
    for key in _LIMITS & joined.values.keys():
        message = (
            f"a sink has no `{key}`: what a rate lets through depends on when it is sent, and a "
            "repeat would send other events; write `limit:` on the source, which decides before "
            "the record is stored, or `sample:` here"
        )
        _refuse(joined, key, message)


def _refuse_second_port(joined: Joined, written: Mapping[str, Any]) -> None:
    """Reject `port` where every `server` names a port of its own and they differ."""
    ports = ports_within(written.get("server"))
    if (
        "port" in written
        and ports
        and all(port and str(port) != str(written["port"]) for port in ports)
    ):
        message = f"`server` names port {ports[0]} already: leave one of the two out"
        joined.refused.append(Refused("port", message))


def _fill(
    joined: Joined, preset: Mapping[str, Any], protocol: str | None, form: str | None,
    *, fits: bool,
) -> None:  # fmt: skip
    """Fill in the preset's values that the file leaves out.

    A preset's keys belong to its own protocol and format; those of a protocol or format that the
    file does not use are skipped. `fits`: the SIEM takes the preset's format over this protocol,
    and messages of its size in any format.
    """
    own = protocol == preset.get("protocol")
    for key, value in preset.items():
        if key in ("protocol", "format"):
            if {"protocol": protocol, "format": form}[key] == value:
                joined.values.setdefault(key, value)
        elif key == _SIZE:
            if fits:
                joined.values.setdefault(key, value)
        elif key in _OF_FORMAT:
            if fits and form == preset.get("format"):
                written = joined.values.setdefault(key, value)
                if isinstance(value, dict) and isinstance(written, dict):
                    joined.values[key] = {**value, **written}
        elif own and key not in joined.values and key in field_names(joined.model):
            joined.values[key] = value
        elif own and isinstance(value, dict) and isinstance(joined.values.get(key), dict):
            joined.values[key] = {**value, **joined.values[key]}


@cache
def source_model(kind: str | None, decoder: str | None) -> type[SourceConfig]:
    """The model of that combination; None stands for an unknown choice."""
    parts: list[type[Options]] = [SourceConfig]
    changed: dict[str, Any] = {}
    if kind:
        parts.append(registry.SOURCES[kind].options)
        changed["type"] = _one_of(SourceConfig, "type", registry.SOURCES, ...)
    if decoder:
        parts.append(registry.DECODERS[decoder].options)
        changed["decoder"] = _one_of(SourceConfig, "decoder", registry.DECODERS, decoder)
    return cast("type[SourceConfig]", _model(f"{kind}_{decoder}_source", parts, changed))


@cache
def sink_model(protocol: str | None, form: str | None) -> type[SinkConfig]:
    """The model of that combination; None stands for an unknown choice."""
    parts: list[type[Options]] = [SinkConfig]
    changed: dict[str, Any] = {"siem": _one_of(SinkConfig, "siem", PRESETS, "generic")}
    if protocol:
        parts.append(registry.PROTOCOLS[protocol].options)
        changed["protocol"] = _one_of(SinkConfig, "protocol", registry.PROTOCOLS, protocol)
    if form:
        parts.append(registry.FORMATS[form].options)
        changed["format"] = _one_of(SinkConfig, "format", registry.FORMATS, form)
    if protocol and form:
        info = SinkConfig.model_fields["header"]
        header = default_header(protocol, form)
        changed["header"] = (info.annotation, Field(header, description=info.description))
        for key, value in registry.FORMATS[form].implies.get(protocol, {}).items():
            implied = copy(registry.PROTOCOLS[protocol].options.model_fields[key])
            implied.default = value
            changed[key] = (implied.annotation, implied)
    return cast("type[SinkConfig]", _model(f"{protocol}_{form}_sink", parts, changed))


def default_header(protocol: str, form: str) -> str:
    """The syslog header in front of that format's messages where the sink sets none."""
    # Only syslog receivers expect a header; elsewhere it would corrupt the body.
    carries_syslog = registry.PROTOCOLS[protocol].format == "syslog"
    return registry.FORMATS[form].header if carries_syslog else "none"


def _one_of(
    base: type[Options], name: str, table: Mapping[str, Any], default: Any
) -> tuple[Any, Any]:
    choices: Any = Literal[tuple(table)]
    return choices, Field(default, description=base.model_fields[name].description)


def _model(name: str, parts: list[type[Options]], changed: dict[str, Any]) -> type[Options]:
    # A class beside its own subclass would give Python no consistent method order.
    bases = [
        p for p in parts if not any(p is not other and issubclass(other, p) for other in parts)
    ]
    return cast(
        "type[Options]", create_model(name, __base__=tuple(dict.fromkeys(bases)), **changed)
    )


def _choice(joined: Joined, key: str, table: Mapping[str, Any], default: str | None) -> str | None:
    if key not in joined.values:
        if default is None and key == "type":
            joined.refused.append(Refused(key, f"is required: {_names(table)}"))
        return default
    value = joined.values[key]
    if isinstance(value, str) and value in table:
        return value
    meant = meant_choice(key, value, table) if isinstance(value, str) else None
    text = f" `{value}`" if isinstance(value, str) else ""
    hint = f"; did you mean `{meant}`?" if meant else ""
    if key == "protocol" and value in registry.FORMATS:
        hint = f"; `{value}` is a format: write `format: {value}` and the protocol that carries it"
    elif key == "protocol" and value in PRESETS:
        hint = f"; did you mean `siem: {value}`?"
    _refuse(joined, key, f"unknown {key}{text}{hint}; expected {_names(table)}", at_key=False)
    return None


def _names(table: Mapping[str, Any]) -> str:
    return ("one of " if len(table) > 1 else "") + ", ".join(f"`{name}`" for name in table)


def _refuse(joined: Joined, key: str, message: str, *, at_key: bool = True) -> None:
    joined.values.pop(key)
    joined.refused.append(Refused(key, message, at_key))


def _refuse_keys(
    joined: Joined, chosen: Mapping[str, str | None], tables: Mapping[str, Mapping[str, Any]]
) -> None:
    known = field_names(joined.model)
    unsure = [what for what, name in chosen.items() if name is None]
    for key in [key for key in joined.values if key not in known]:
        owners = list(_owners(key, tables))
        if any(what in unsure for what, _ in owners):
            # Whether the key belongs here depends on the unknown choice. Its value can still be
            # validated if it means the same to every part that has it.
            infos = [field_names(tables[what][name].options)[key] for what, name in owners]
            if all(_same(info, infos[0]) for info in infos):
                joined.model = _model(
                    joined.model.__name__, [joined.model], {key: (infos[0].annotation, infos[0])}
                )
            else:
                joined.values.pop(key)
            continue
        what = owners[0][0] if owners else None
        if what is not None:
            having = ", ".join(name for _, name in owners)
            meant = key_elsewhere(key, known.keys() - joined.values.keys())
            hint = f"did you mean `{meant}`?" if meant else f"it belongs to {having}"
            message = f"`{key}` is not used by {what} {chosen[what]}; {hint}"
        else:
            message = f"unknown key `{key}`{key_hint(key, known, _others(known, tables))}"
        _refuse(joined, key, message)


def _others(
    known: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """The keys of all other choices, each with their names. Loads every part, for a fault only."""
    others = defaultdict[str, list[str]](list)
    for table in tables.values():
        for name, kind in table.items():
            for key in field_names(kind.options).keys() - known.keys():
                others[key].append(name)
    return dict(others)


def _same(one: FieldInfo, other: FieldInfo) -> bool:
    """Whether the two fields take the same values."""
    return (one.annotation, one.metadata) == (other.annotation, other.metadata)


def _owners(key: str, tables: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for what, table in tables.items():
        for name, kind in table.items():
            if key in field_names(kind.options):
                yield what, name
