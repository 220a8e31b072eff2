"""Describes settings from their options models, for faults, tables and the reference."""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo

from siemrelay.config.yaml_document import KeyPath
from siemrelay.core.options import URL_PASSWORD, Secret, show_bytes, show_seconds


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that was most likely meant, or None."""
    import difflib  # only a faulty configuration needs it

    folded = {k.casefold().replace("-", "_"): k for k in known}
    key = name.casefold().replace("-", "_")
    longer = [k for k in folded if len(key) > 1 and k.startswith(key)]
    # By its letters `prot` is nearer to `port`, but it abbreviates `protocol`.
    if len(longer) != 1 or len(key) < _ABBREVIATION_CHARACTERS:
        longer = difflib.get_close_matches(key, folded, n=1, cutoff=0.6) or longer
    return folded[longer[0]] if longer else None


def meant_key(key: str, known: Mapping[str, FieldInfo]) -> str | None:
    """The key most likely meant: the new name of a renamed one, the one that does here what `key`
    does elsewhere, or the nearest; else None."""
    return _renamed(key, known) or key_elsewhere(key, known.keys()) or nearest(key, list(known))


def _renamed(key: str, known: Mapping[str, FieldInfo]) -> str | None:
    for name, info in known.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and key in cast("tuple[str, ...]", extra.get("formerly", ())):
            return name
    return None


def key_elsewhere(key: str, known: Collection[str]) -> str | None:
    """The first of `known` that does here what `key` does in other relays and SIEMs, or None."""
    meant = _KEYS_ELSEWHERE.get(key.casefold(), ())
    return next((name for name in meant if name in known), None)


def key_hint(
    key: str, known: Mapping[str, FieldInfo], others: Mapping[str, Collection[str]]
) -> str:
    """What to write in place of an unknown key, to follow its message; empty if nobody can know.

    `others` are the keys that only other choices of the part have, and for each those choices.
    """
    if meant := _renamed(key, known) or key_elsewhere(key, known.keys()):
        return f"; did you mean `{meant}`?"
    block, _, inner = key.partition(".")
    if inner and block in known:
        return f"; write `{inner}` below `{block}:`"
    if meant := key_elsewhere(key, others.keys()):
        return f"; did you mean `{meant}`, of {', '.join(others[meant])}?"
    for pattern, instead in _NOT_NEEDED.items():
        if re.fullmatch(pattern, key.casefold()):
            return f"; leave it out: {instead}"
    meant = nearest(key, list(known))
    return f"; did you mean `{meant}`?" if meant else ""


def meant_choice(key: str, value: str, known: Collection[str]) -> str | None:
    """The value of `type`, `protocol` or `format` most likely meant, or None."""
    meant = _CHOICES_ELSEWHERE.get(key, {}).get(value.casefold())
    return meant if meant in known else nearest(value, list(known))


_KEYS_ELSEWHERE: Final = {
    **dict.fromkeys(("inputs", "receivers"), ("sources",)),
    **dict.fromkeys(("outputs", "exporters"), ("sinks",)),
    **dict.fromkeys(
        ("token", "api_key", "hec_token", "default_token", "splunk_token", "auth", "bearer_token"),
        ("authorization", "basic"),
    ),
    **dict.fromkeys(
        ("host", "hostname", "target", "address", "hosts", "destination", "remote"),
        ("server", "listen", "url", "brokers"),
    ),
    **dict.fromkeys(("http_user", "http_passwd", "username", "password", "user"), ("basic",)),
    **dict.fromkeys(("systemd_filter", "include_matches"), ("matches",)),
    "include_units": ("units",),
    **dict.fromkeys(("servers", "bootstrap_servers", "bootstrap.servers"), ("server", "brokers")),
    **dict.fromkeys(("endpoint", "endpoints", "uri"), ("url",)),
    **dict.fromkeys(("port", "bind", "bind_address"), ("listen",)),
    "protocol": ("listen",), "type": ("protocol",),
    "name": ("type", "protocol"), **dict.fromkeys(("parser", "parsers"), ("decoder",)),
    **dict.fromkeys(("codec", "encoding", "template", "formatter"), ("format", "decoder")),
    **dict.fromkeys(("file", "files", "filename", "paths", "include"), ("path",)),
    **dict.fromkeys(
        ("read_from", "start_position", "read_from_head", "read_from_tail", "from_beginning",
         "freshstarttail"),
        ("start_at",),
    ),
    **dict.fromkeys(
        ("exclude", "min_severity", "outcome", "filter", "filters", "match"), ("events",)
    ),
    **dict.fromkeys(("throttle", "rate_limit", "ratelimit"), ("limit",)),
    **dict.fromkeys(("insecure", "insecure_skip_verify", "verify_certificate"), ("verify",)),
    **dict.fromkeys(("cert", "crt_file", "cert_file", "certfile", "mycert"), ("certificate",)),
    **dict.fromkeys(("max_size", "max_file_size", "rotate"), ("rotate_size",)),
    **dict.fromkeys(("key_file", "keyfile", "myprivkey", "private_key"), ("key",)),
    **dict.fromkeys(
        ("ca_file", "cafile", "cacert", "ca_cert", "ca_certificate"), ("ca", "client_ca")
    ),
    **dict.fromkeys(("sni", "vhost", "permittedpeer"), ("server_name",)),
}  # fmt: skip
"""Keys of other relays and SIEMs, in lower case → the keys that do the same here, in order."""

_NOT_NEEDED: Final = {
    r"db(\..*)?|statefile|checkpoint.*|data_dir": "positions are in `state_dir`",
    r"queue[._]?.*|buffer(_.*)?|storage\..*|mem_buf_limit|spool.*|disk_buffer": "every record is "
    "in the disk buffer, which `buffer:` at the top level describes",
    r"reopenontruncate|rotate_wait|refresh_interval": "files are followed through every rotation",
    r"streamdriver.*": "`protocol: tls` and its block `tls:` say all of it",
    r"action\..*|retry_limit|max_retries|retry_attempts": "delivery is retried for ever, and "
    "`retry:` has the pauses",
}  # fmt: skip
"""Patterns of keys of other relays, in lower case, that nothing here needs, and the reason."""

_CHOICES_ELSEWHERE: Final = {
    "type": {
        **dict.fromkeys(("tail", "filelog", "filestream"), "file"),
        **dict.fromkeys(("udp", "tcp", "tls", "relp", "imudp", "imtcp", "imrelp"), "syslog"),
        **dict.fromkeys(("systemd", "imjournal"), "journal"),
        "imfile": "file", "webhook": "http", "http_server": "http", "hec": "splunk-hec",
        "rabbitmq": "amqp",
    },
    "protocol": {
        "ssl": "tls", "hec": "splunk-hec", "opensearch": "elasticsearch", "es": "elasticsearch",
        "webhook": "http", "omfwd": "tcp", "omrelp": "relp", "console": "stdout",
    },
    "format": {
        **dict.fromkeys(("rfc5424", "rsyslog_syslogprotocol23format"), "syslog"),
        **dict.fromkeys(("bsd", "rsyslog_forwardformat"), "rfc3164"),
        **dict.fromkeys(("ndjson", "jsonl", "json_lines"), "json"), "text": "raw",
    },
}  # fmt: skip
"""Values of these keys in other relays, in lower case, and the same here."""


# A shorter beginning of a name may as well be a typing error.
_ABBREVIATION_CHARACTERS: Final = 3


def field_names(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys that may be written for a model, in its own order."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None`, `Annotated[Model, …]`, `list[Model]` and so on."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = nested_model(part) if get_origin(annotation) is not Literal else None
        if found is not None:
            return found
    return None


def field_at(model: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    """The field at a path below a model; list indexes and free keys are skipped."""
    info: FieldInfo | None = None
    inside: type[BaseModel] | None = model
    for part in path:
        if inside is None or part not in (fields := field_names(inside)):
            continue
        info = fields[str(part)]
        inside = nested_model(info.annotation)
    return info


def model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The model whose keys are written at a path below a model."""
    info = field_at(model, path)
    return model if info is None else nested_model(info.annotation)


def is_secret(annotation: Any) -> bool:
    """Whether a value of that type must never be shown."""
    if isinstance(annotation, type):
        return issubclass(annotation, Secret)
    return any(is_secret(part) for part in get_args(annotation))


def type_text(annotation: Any, metadata: list[Any] | None = None) -> str:
    """The type for a person: `duration`, `one of tcp, udp`, `list of text`."""
    metadata = metadata or []
    for item in metadata:
        if isinstance(item, WithJsonSchema) and "format" in (item.json_schema or {}):
            return str((item.json_schema or {})["format"])
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(parts[0], list(parts[1:]))
    if origin is Literal:
        return ("one of " if len(parts) > 1 else "") + ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        some = dict.fromkeys(type_text(part) for part in parts if part is not type(None))
        if some.keys() >= _SCALARS:
            some = {"value": None} | {text: None for text in some if text not in _SCALARS}
        return " or ".join(some)
    if origin in (list, tuple, set, frozenset):
        return f"list of {type_text(parts[0])}" if parts else "list"
    if origin in (dict, Mapping) or annotation is dict:
        of = type_text(parts[1]) if parts else ""
        return "named blocks" if of == "block" else f"mapping of names to {of}" if of else "mapping"
    if annotation is Any:
        return "any value"
    if annotation in (int, float):
        return _number(metadata, whole=annotation is int)
    if isinstance(annotation, type):
        if issubclass(annotation, Secret):
            return "secret text"
        if issubclass(annotation, PurePath):
            return "path"
        if issubclass(annotation, BaseModel):
            return "block"
        return {bool: "yes or no", str: "text"}.get(annotation, annotation.__name__)
    return "text"


_SCALARS: Final = frozenset({"yes or no", "whole number", "number", "text"})
"""Types that are a `value` together."""

_BOUNDS: Final = (("from", Ge, "ge"), ("above", Gt, "gt"), ("to", Le, "le"), ("below", Lt, "lt"))


def _number(metadata: list[Any], *, whole: bool) -> str:
    bounds: dict[str, Any] = {}
    for item in (part for group in metadata for part in getattr(group, "metadata", [group])):
        for word, kind, attribute in _BOUNDS:
            if isinstance(item, kind):
                bounds[word] = getattr(item, attribute)
    name = "whole number" if whole else "number"
    return " ".join([name, *(f"{word} {limit}" for word, limit in bounds.items())])


def written(value: Any, annotation: Any, metadata: list[Any] | None = None) -> Any:
    """A value as the file writes it: durations and sizes with units, permissions in octal.

    Secrets become `***`. The result holds only text, numbers, booleans, lists and mappings.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Secret):
        return "***"
    if isinstance(value, BaseModel):
        return {
            name: written(getattr(value, own), info.annotation, info.metadata)
            for (own, info), name in zip(
                type(value).model_fields.items(), field_names(type(value)), strict=True
            )
        }
    if isinstance(value, (int, float)):
        kind = type_text(annotation, metadata)
        if "duration" in kind:
            return show_seconds(value)
        if "octal" in kind:
            return f"{value:04o}"
        return show_bytes(int(value)) if "size" in kind else value
    if isinstance(value, Mapping):
        return {str(key): _written_item(item, annotation) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [_written_item(item, annotation) for item in items]
    return URL_PASSWORD.sub(r"\g<user>:***", str(value))


def _written_item(item: Any, annotation: Any) -> Any:
    """One of many blocks is shown without the keys that it leaves out."""
    if not isinstance(item, BaseModel):
        return written(item, _inner(annotation))
    fields, names = type(item).model_fields, field_names(type(item))
    return {
        name: _written_item(getattr(item, own), info.annotation)
        if isinstance(getattr(item, own), BaseModel)
        else written(getattr(item, own), info.annotation, info.metadata)
        for (own, info), name in zip(fields.items(), names, strict=True)
        if own in item.model_fields_set
    }


def _inner(annotation: Any) -> Any:
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return parts[-1] if parts else None
