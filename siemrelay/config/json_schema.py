"""The JSON Schema of the configuration file, from the models: for editors, and for reviews in CI.

`siemrelay schema` prints it; `config/siemrelay.schema.json` is a copy. Draft 7, which YAML editors
understand. It refuses no file that `siemrelay check` accepts; what it cannot express (files on this
machine, parts that clash, addresses) only `check` finds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from siemrelay import registry
from siemrelay.config.describe import field_names
from siemrelay.config.files import SECTIONS, SHARED
from siemrelay.config.models import RelayConfig, SinkConfig, SourceConfig
from siemrelay.config.presets import PRESETS
from siemrelay.core.options import Options, show_bytes, show_seconds
from siemrelay.products.product import BUILT_IN

Schema = dict[str, Any]

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_REFERENCE: Final[Schema] = {"type": "string", "pattern": r"\$\{"}
"""`${...}`: what it stands for is known only where the relay runs."""

_NUMBER: Final[Schema] = {"type": "string", "pattern": r"^\s*-?\d+(\.\d+)?\s*$|\$\{"}
_YES_OR_NO: Final = [True, False, "yes", "no", "on", "off", "true", "false"]
"""Editors read YAML 1.2, in which `yes` is a text."""

_QUANTITIES: Final[Mapping[str, Schema]] = {
    "duration": {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d|w)\s*$|\$\{"},
    "size": {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(B|[kKMGT]B|[KMGT]iB)\s*$|\$\{"},
    "rate": {
        "type": "string",
        "pattern": r"^\s*\d+\s*(/|per )\s*(\d+(\.\d+)?\s*)?(ms|s|m|h|d|w)\s*$|\$\{",
    },
}
_PATH: Final[Schema] = {"type": "string", "pattern": r"^/|\$\{"}

_SHOWN: Final[Mapping[str, Callable[[Any], str]]] = {"duration": show_seconds, "size": show_bytes}


def render() -> str:
    """The schema as JSON: each key and each definition on one line."""
    return "{\n" + ",\n".join(_blocks(document())) + "\n}\n"


def _blocks(schema: Schema) -> Iterator[str]:
    for key, value in schema.items():
        if key in ("properties", "definitions"):
            lines = (f"  {json.dumps(name)}: {json.dumps(each)}" for name, each in value.items())
            yield f" {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n }"
        else:
            yield f" {json.dumps(key)}: {json.dumps(value)}"


def document() -> Schema:
    """The whole schema."""
    definitions: Schema = {}
    relay = _properties(RelayConfig, definitions)
    definitions |= {f"over-{name}": _is_protocol(name) for name in registry.PROTOCOLS}
    definitions["source"] = _source(definitions)
    definitions["sink"] = _sink(definitions)
    for section, part in (("sources", "source"), ("sinks", "sink")):
        relay[section] = {
            "description": relay[section]["description"], "type": "object", "minProperties": 1,
            "propertyNames": {"pattern": _NAME},
            "additionalProperties": {"$ref": f"#/definitions/{part}"},
        }  # fmt: skip
    shared = {"additionalProperties": False, "patternProperties": {f"^{SHARED}": True}}
    definitions["included"] = {
        "description": "a file that another one includes", "type": "object", **shared,
        "properties": {section: relay[section] for section in SECTIONS},
    }  # fmt: skip
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "siemrelay's configuration",
        "type": "object",
        "anyOf": [{"required": ["sources", "sinks"]}, {"required": ["include"]}],
        **shared,
        "properties": relay,
        "definitions": dict(sorted(definitions.items())),
    }


def _source(definitions: Schema) -> Schema:
    common = _properties(SourceConfig, definitions)
    common["type"] = _choice(registry.SOURCES, common["type"])
    common["decoder"] = _choice(registry.DECODERS, common["decoder"])
    common["product"]["examples"] = [*BUILT_IN]  # others may be in `products_dir`
    decoding = _keys_of(registry.DECODERS)
    branches = [
        {
            "if": _says("type", [name]),
            "then": {
                "required": _required(kind.options, set()),
                "properties": _properties(kind.options, definitions),
                "propertyNames": {"enum": sorted({*common, *field_names(kind.options), *decoding})},
            },
        }
        for name, kind in registry.SOURCES.items()
    ]
    for name, decoder in registry.DECODERS.items():
        by_default = [kind for kind in registry.SOURCES if registry.SOURCES[kind].decoder == name]
        branches.append({
            "if": {"anyOf": [
                _says("decoder", [name]),
                {**_says("type", by_default), **_without("decoder")},
            ]},
            "then": {"properties": _own(decoder.options, decoding, {*common}, definitions)},
        })  # fmt: skip
    return {
        "type": "object", "required": ["type"], "properties": common, "allOf": branches,
    }  # fmt: skip


def _sink(definitions: Schema) -> Schema:
    common = _properties(SinkConfig, definitions)
    common["siem"] = _choice(PRESETS, common["siem"])
    common["protocol"] = _choice(registry.PROTOCOLS, common["protocol"])
    common["format"] = _choice(registry.FORMATS, common["format"])
    formatting, sending = _keys_of(registry.FORMATS), _keys_of(registry.PROTOCOLS)
    branches = [
        {
            "if": {"$ref": f"#/definitions/over-{name}"},
            "then": {
                "properties": _properties(kind.options, definitions),
                "propertyNames": {
                    "enum": sorted({*common, *field_names(kind.options), *formatting})
                },
                "allOf": [True, *_required_unless_preset(name)],
            },
        }
        for name, kind in registry.PROTOCOLS.items()
    ]
    for name, form in registry.FORMATS.items():
        own = _own(form.options, formatting, {*common, *sending}, definitions)
        branches.append({
            "if": _is_format(name),
            "then": {"properties": own | ({} if form.headers else {"header": False})},
        })  # fmt: skip
    return {"type": "object", "properties": common, "allOf": branches}


def _keys_of(table: Mapping[str, Any]) -> set[str]:
    return {key for kind in table.values() for key in field_names(kind.options)}


def _own(
    options: type[Options], siblings: set[str], elsewhere: set[str], definitions: Schema
) -> Schema:
    """The keys of these options; those of their siblings alone are forbidden."""
    own = _properties(options, definitions)
    return own | dict.fromkeys(sorted(siblings - {*own} - elsewhere), False)


def _says(key: str, values: Iterable[str]) -> Schema:
    return {"properties": {key: {"enum": list(values)}}, "required": [key]}


def _without(*keys: str) -> Schema:
    return {"not": {"anyOf": [{"required": [key]} for key in keys]}}


def _preset_protocol(siem: str) -> str | None:
    return PRESETS[siem].defaults.get("protocol")


def _is_protocol(name: str) -> Schema:
    """Whether a sink uses that protocol: as it says, by its preset, or by its `url`."""
    cases: list[Schema] = [_says("protocol", [name])]
    if presets := [siem for siem in PRESETS if _preset_protocol(siem) == name]:
        cases.append({**_says("siem", presets), **_without("protocol")})
    free = {"siem": {"enum": [siem for siem in PRESETS if _preset_protocol(siem) is None]}}
    if name == "http":
        cases.append({"properties": free, "required": ["url"], **_without("protocol")})
    elif name == "udp":
        cases.append({"properties": free, **_without("protocol", "url")})
    return {"anyOf": cases}


def _is_format(name: str) -> Schema:
    """Whether a sink writes that format: as it says, or by its preset or protocol."""
    cases: list[Schema] = [_says("format", [name])]
    for protocol in registry.PROTOCOLS:
        presets = [siem for siem in PRESETS if _default_format(siem, protocol) == name]
        if not presets:
            continue
        siem = {"properties": {"siem": {"enum": presets}}}
        if "generic" not in presets:
            siem["required"] = ["siem"]  # type: ignore[assignment]  # of another type of value
        over = {"$ref": f"#/definitions/over-{protocol}"}
        cases.append({"allOf": [over, {**siem, **_without("format")}]})
    return {"anyOf": cases}


def _default_format(siem: str, protocol: str) -> str:
    preset = PRESETS[siem]
    fits = protocol == preset.defaults.get("protocol") or protocol in preset.also
    default = registry.PROTOCOLS[protocol].format
    return str(preset.defaults.get("format", default)) if fits else default


def _required(options: type[BaseModel], given: set[str]) -> list[str]:
    return [
        name for name, info in field_names(options).items()
        if info.is_required() and name not in given
    ]  # fmt: skip


def _required_unless_preset(protocol: str) -> Iterator[Schema]:
    for key in _required(registry.PROTOCOLS[protocol].options, set()):
        presets = [
            siem for siem, preset in PRESETS.items()
            if key in preset.defaults and preset.defaults.get("protocol") == protocol
        ]  # fmt: skip
        if presets:
            yield {"if": {"not": _says("siem", presets)}, "then": {"required": [key]}}
        else:
            yield {"required": [key]}


def _choice(names: Iterable[str], described: Schema) -> Schema:
    return {
        "description": described["description"],
        "anyOf": [{"type": "string", "enum": list(names)}, _REFERENCE],
    }


def _properties(model: type[BaseModel], definitions: Schema) -> Schema:
    """The keys of a model as the file may write them; models inside go to `definitions`."""
    schema = model.model_json_schema(ref_template="#/definitions/{model}")
    for name, inside in schema.pop("$defs", {}).items():
        definitions[name] = _as_written(inside)
    properties: Schema = _as_written(schema).get("properties", {})
    return properties


def _as_written(schema: Any) -> Any:
    """A model's schema, open for what the file may write beside: references, units, `yes`."""
    if isinstance(schema, list):
        return [_as_written(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    text = {key: schema[key] for key in ("description",) if key in schema}
    default = schema.get("default")
    kind = str(schema.get("format", ""))
    if kind in _QUANTITIES:
        shown = _SHOWN[kind](default) if isinstance(default, (int, float)) else None
        given = {} if shown is None else {"default": shown}
        none = [] if kind == "rate" else [{"const": 0}]
        return {**text, **given, "anyOf": [_QUANTITIES[kind], *none]}
    if kind == "path":
        return {**text, **({} if default is None else {"default": default}), **_PATH}
    if "$ref" in schema:
        return {**text, "allOf": [{"$ref": schema["$ref"]}]} if text else {"$ref": schema["$ref"]}
    known = {key: schema[key] for key in schema if key not in ("title", "description", "default")}
    given = {} if default is None else {"default": default}
    if "enum" in known or "const" in known:
        return {**text, **given, "anyOf": [known, _REFERENCE]}
    if known.get("type") == "boolean":
        return {**text, **given, "anyOf": [{"enum": _YES_OR_NO}, _REFERENCE]}
    if known.get("type") in ("integer", "number"):
        return {**text, **given, "anyOf": [known, _NUMBER]}
    if known.get("type") == "string" and known.keys() & {"pattern", "format"}:
        known = {key: value for key, value in known.items() if key != "format"}
        return {**text, **given, "anyOf": [known, _REFERENCE]}
    if "discriminator" in known:  # both forms are told apart by their type
        known.pop("discriminator")
    if "properties" in known:
        inner = {name: _as_written(value) for name, value in known.pop("properties").items()}
        return {**text, **_as_written(known), "properties": inner}
    return {**text, **given, **{key: _as_written(value) for key, value in known.items()}}
