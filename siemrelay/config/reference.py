"""Generates `config/reference.md`: every key of the configuration, from the models.

python -m siemrelay.config.reference > config/reference.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from siemrelay import registry
from siemrelay.config.describe import field_names, nested_model, type_text, written
from siemrelay.config.models import EventTypeConfig, RelayConfig, SinkConfig, SourceConfig
from siemrelay.config.presets import PRESETS
from siemrelay.core.event import FIELDS
from siemrelay.core.options import Options
from siemrelay.formats.contract import FormatKind
from siemrelay.formats.syslog_header import HeaderOptions
from siemrelay.products.product import BUILT_IN

_INTRODUCTION = """\
# Every key of the configuration

Generated from the code by `python -m siemrelay.config.reference > config/reference.md`.

- Durations are written with a unit: `500ms`, `10s`, `5m`, `24h`, `7d`, `2w`. Sizes too: `64KiB`,
  `10MiB`, `1GiB` (1024) or `64kB`, `10MB`, `1GB` (1000). A *value* is text, a number, yes or no.
- `${NAME}` is an environment variable, `${NAME:-DEFAULT}` one with a default for when it is not set
  or blank, `${file:/PATH}` what a file holds (without the line end at its end),
  `${credential:NAME}` a systemd credential; `$${` stands for `${` itself. Their values are never
  logged or shown; secrets are shown as `***` wherever they come from.
- Top-level keys that begin with `x-` are ignored: a place for blocks that several parts share by
  YAML's anchors (`&name`), aliases (`*name`) and merge keys (`<<`).
- A key with a dot is inside a block: `basic.username` is `username` below `basic:`,
  `where.NAME.min` is `min` below any name below `where:`, and `sample[].one_in` is in each entry of
  a list. A key that is *required in this block* is required only if the block is present.
- A key that is unknown, given twice, or not used by the chosen type, protocol or format is a fault.
  `siemrelay check` shows every fault with its line, or what is set.
"""


def render() -> str:
    """The whole document."""
    parts = [_INTRODUCTION, _contents(), *_relay(), *_sources(), *_sinks()]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _contents() -> str:
    def links(kind: str, names: Iterable[str]) -> str:
        anchor = kind.lower().replace(" ", "-")
        return ", ".join(f"[{name}](#{anchor}-{name})" for name in names)

    return (
        "Contents:\n\n- [The relay](#the-relay), [event types](#event_types)\n"
        f"- [Sources](#sources): {links('Source type', registry.SOURCES)}; "
        f"[products](#products); decoders: {links('Decoder', registry.DECODERS)}\n"
        f"- [Sinks](#sinks): {links('Protocol', registry.PROTOCOLS)}; "
        f"[presets](#presets-siem); formats: {links('Format', registry.FORMATS)}; "
        "[syslog header](#the-syslog-header)"
    )


def _relay() -> Iterator[str]:
    yield "## The relay\n"
    yield _table(_rows(RelayConfig, leave_out={"event_types"}, flat={"sources", "sinks"}))
    yield (
        "### `event_types`\n\n"
        f"{_sentence(RelayConfig.model_fields['event_types'].description)} A list of names, or a\n"
        "mapping from a name to:"
    )
    yield _table(_rows(EventTypeConfig))


def _sources() -> Iterator[str]:
    yield (
        "## Sources\n\n"
        "`sources:` maps a name of your choice to the keys below and those of its `type`."
    )
    changed = {
        "type": (_choices(registry.SOURCES), "required"),
        "decoder": (_choices(registry.DECODERS), "by type"),
        "product": (_choices(BUILT_IN), "`generic`"),
    }
    yield _table(_rows(SourceConfig, changed=changed))
    yield f"The event fields are {', '.join(f'`{name}`' for name in FIELDS)}."
    for name, source in registry.SOURCES.items():
        yield f"### Source type `{name}`"
        yield f"{_sentence(source.summary)} Decoder: `{source.decoder}`."
        yield from _own(source.options)
    yield "### Products\n\nWhat a `product` sets where the source itself does not:"
    yield _product_table()
    for name, decoder in registry.DECODERS.items():
        yield f"### Decoder `{name}`\n\n{_sentence(decoder.summary)}"
        yield from _own(decoder.options)


def _sinks() -> Iterator[str]:
    yield (
        "## Sinks\n\n"
        "`sinks:` maps a name of your choice to the keys below and those of its `protocol` and\n"
        "`format`. `events` may be written as one entry or a list of them, short for its `include`."
    )
    changed = {
        "siem": (_choices(PRESETS), "`generic`"),
        "protocol": (_choices(registry.PROTOCOLS), "`http` if `url` is given, else `udp`"),
        "format": (_choices(registry.FORMATS), "by protocol"),
        "header": (type_text(SinkConfig.model_fields["header"].annotation), "by format"),
    }
    yield _table(_rows(SinkConfig, changed=changed))
    yield "### Presets (`siem`)\n\nWhat a preset sets where the sink itself does not:"
    yield _preset_table()
    for name, protocol in registry.PROTOCOLS.items():
        yield f"### Protocol `{name}`\n\n{_sentence(protocol.summary)} Format: `{protocol.format}`."
        yield from _own(protocol.options)
    for name, form in registry.FORMATS.items():
        header = (
            f" Header where the protocol carries syslog: `{form.header}`." if form.headers else ""
        )
        yield f"### Format `{name}`\n\n{_sentence(form.summary)}{header}"
        if form.implies:
            yield f"Its own defaults: {'; '.join(_implied(form))}."
        yield from _own(form.options, without=HeaderOptions)
        if form.headers:
            yield "With a `header`, also the keys of the syslog header, below."
        elif issubclass(form.options, HeaderOptions):
            yield "Also the keys of the syslog header, below."
    yield "### The syslog header"
    yield _table(_rows(HeaderOptions))


def _implied(form: FormatKind) -> Iterator[str]:
    for protocol, keys in form.implies.items():
        yield f"over {protocol} " + ", ".join(f"`{key}: {value}`" for key, value in keys.items())


def _preset_table() -> str:
    lines = [
        "| `siem` | for | sets | same format over | stated by the vendor |",
        "|---|---|---|---|---|",
    ]
    for name, preset in PRESETS.items():
        sets = ", ".join(f"`{key}: {_plain(value)}`" for key, value in preset.defaults.items())
        also = ", ".join(f"`{protocol}`" for protocol in preset.also)
        page = f"[page]({preset.page})" if preset.page else ""
        lines.append(f"| `{name}` | {preset.summary} | {sets or 'nothing'} | {also} | {page} |")
    return "\n".join(lines)


def _product_table() -> str:
    lines = ["| `product` | for | event types | sets |", "|---|---|---|---|"]
    for name in BUILT_IN:
        product = BUILT_IN[name]
        sets = [f"`items: {product.items}`"] if product.items else []
        sets += [
            f"on `{kind}` `{key}: {_plain(value)}`"
            for kind, options in product.sources.items()
            for key, value in options.items()
        ]
        kinds = len(product.types) or "none"
        lines.append(f"| `{name}` | {product.summary} | {kinds} | {', '.join(sets) or 'nothing'} |")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
    return "null" if value is None else str(value)


def _own(options: type[Options], without: type[BaseModel] = Options) -> Iterator[str]:
    rows = list(_rows(options, leave_out=set(field_names(without))))
    yield _table(rows) if rows else "No keys of its own."


def _rows(
    model: type[BaseModel],
    prefix: str = "",
    *,
    leave_out: Iterable[str] = (),
    flat: Iterable[str] = (),
    changed: dict[str, tuple[str, str]] | None = None,
    optional: bool = False,
) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of each field; the keys of nested models after a dot.

    Those in `changed` come first, with another type and default. `optional`: the model is a block
    that may be left out.
    """
    fields = field_names(model)
    for name in dict.fromkeys((*(changed or ()), *fields)):
        info = fields[name]
        if name in leave_out:
            continue
        inside = nested_model(info.annotation) if name not in flat else None
        if inside is not None:
            left_out = optional or not info.is_required()
            many = _MANY.get(get_origin(info.annotation) or info.annotation, "")
            if many:
                what = "mapping, a block for each key" if many != "[]" else "list of blocks"
                default = "none" if left_out else "required"
                yield f"`{prefix}{name}`", what, default, info.description or ""
            yield from _rows(inside, f"{prefix}{name}{many}.", optional=left_out)
            continue
        kind, default = (changed or {}).get(name) or (
            type_text(info.annotation, info.metadata),
            _default(info, "required in this block" if optional else "required"),
        )
        yield f"`{prefix}{name}`", kind, default, info.description or ""


_MANY: Final[dict[Any, str]] = {dict: ".NAME", list: "[]"}
"""How the key of one of many blocks is written."""


def _default(info: FieldInfo, required: str) -> str:
    if info.is_required():
        return required
    value = info.get_default(call_default_factory=True, validated_data={})
    assert value is not PydanticUndefined
    plain: Any = written(value, info.annotation, info.metadata)
    if plain in (None, "", [], {}):
        return "none"
    if isinstance(plain, bool):
        return "`yes`" if plain else "`no`"
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def _choices(names: Iterable[str]) -> str:
    some = [f"`{name}`" for name in names]
    return ("one of " if len(some) > 1 else "") + ", ".join(some)


def _sentence(text: str | None) -> str:
    text = (text or "").rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for row in rows:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(render(), end="")
