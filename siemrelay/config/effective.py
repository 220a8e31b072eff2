"""The effective configuration: every setting with its value and the origin of the value."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from glob import has_magic, iglob
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel

from siemrelay import registry
from siemrelay.config.checks.paths import fixed, obstacle
from siemrelay.config.checks.security import readable_by_all, security_remarks
from siemrelay.config.describe import field_names, written
from siemrelay.config.load import Loaded
from siemrelay.config.models import SinkConfig, SourceConfig
from siemrelay.config.presets import PRESETS
from siemrelay.config.secrets import secrets_of
from siemrelay.config.url_secrets import without_url_secrets
from siemrelay.config.yaml_document import KeyPath, dotted, in_order
from siemrelay.core.errors import Fault
from siemrelay.core.event_types import ANY
from siemrelay.formats.syslog_header import HeaderOptions

Origin = Literal["file", "preset", "product", "default"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, safe to show: `value` is plain data (for JSON) without secrets."""

    key: str
    value: Any
    origin: Origin

    @property
    def essential(self) -> bool:
        """Whether the file sets it, or a reader wants to know it even so."""
        return self.origin != "default" or (self.key in _ESSENTIAL and self.value is not None)

    @property
    def text(self) -> str:
        """The value on one line as the file writes it; `-` where there is none."""
        return _text(self.value) or "-"


# Shown first: what a reader wants to know about a part before the rest.
_FIRST: Final = ("type", "siem", "protocol", "server", "port", "url", "path", "format", "header")


_ESSENTIAL: Final = frozenset({*_FIRST, "state_dir", "endpoint.listen", "decoder"})

# These are shown part by part.
_PARTS: Final = frozenset({"sources", "sinks"})


def relay_settings(loaded: Loaded) -> list[Setting]:
    """The settings of the whole relay."""
    config = loaded.config
    names = [name for name in field_names(type(config)) if name not in _PARTS]
    return [setting for name in names for setting in _settings(loaded, config, name, ())]


def source_settings(loaded: Loaded, name: str) -> list[Setting]:
    """The effective settings of a source."""
    return _part(loaded, loaded.config.sources[name], ("sources", name), set())


def sink_settings(loaded: Loaded, name: str) -> list[Setting]:
    """The effective settings of a sink; those of a syslog header only if it has one."""
    sink = loaded.config.sinks[name]
    unused = _header_options(sink) if registry.FORMATS[sink.format].headers else {"header"}
    settings = _part(loaded, sink, ("sinks", name), unused)
    effective = Setting("when_full", loaded.config.when_full(sink), "default")
    return [effective if s.key == "when_full" and s.value is None else s for s in settings]


def remarks(loaded: Loaded) -> list[Fault]:
    """Warnings: what is allowed but probably not meant. Looks at the disk."""
    found = [*loaded.document.remarks]
    for name, source in loaded.config.sources.items():
        found += list(_empty_globs(loaded, name, source))
        found += list(_closed_log_socket(loaded, name, source))
    for name, sink in loaded.config.sinks.items():
        found += list(_without_effect(loaded, name, sink))
        found += list(_below_min_severity(loaded, name, sink))
        found += list(_of_receiver(loaded, name, sink))
        if not sink.enabled:
            message = "off: nothing is sent; records wait for it until the buffer needs the room"
            found.append(loaded.document.fault(("sinks", name, "enabled"), message))
    found += security_remarks(loaded)
    for path in _secrets_for_all(loaded):
        message = (
            "a secret is in the file, and every user of this machine can read the file; "
            "use ${credential:NAME} or ${file:/PATH}, or take the permission away (chmod o-rwx)"
        )
        found.append(loaded.document.fault(path, message))
    return in_order(found)


def _secrets_for_all(loaded: Loaded) -> Iterator[KeyPath]:
    """The first secret in each file that every user of this machine can read."""
    met = set[str]()
    for path in loaded.inline_secrets:
        file = loaded.document.fault(path, "").file or loaded.file
        if file not in met and readable_by_all(file):
            yield path
        met.add(file)


def _part(
    loaded: Loaded, part: SourceConfig | SinkConfig, at: KeyPath, unused: set[str]
) -> list[Setting]:
    names = [name for name in field_names(type(part)) if name not in unused]
    own = [name for name in names if name not in field_names(_common(part))]
    order = [name for name in (*_FIRST, *own, *names) if name in names]
    return [s for name in dict.fromkeys(order) for s in _settings(loaded, part, name, at)]


def _common(part: SourceConfig | SinkConfig) -> type[BaseModel]:
    return SourceConfig if isinstance(part, SourceConfig) else SinkConfig


def _settings(loaded: Loaded, model: BaseModel, key: str, at: KeyPath) -> Iterator[Setting]:
    """The setting of that key, or those inside it; keys are named from below the part."""
    own = next(n for n, i in type(model).model_fields.items() if (i.alias or n) == key)
    info, value = type(model).model_fields[own], getattr(model, own)
    path = (*at, key)
    if isinstance(value, BaseModel) and path not in loaded.shown:
        for name in field_names(type(value)):
            yield from _settings(loaded, value, name, path)
        return
    plain = _as_written(loaded, path, written(value, info.annotation, info.metadata))
    # Below the section and the part's own name; relay-wide settings have neither.
    below = path[2:] if path[0] in ("sources", "sinks") else path
    yield Setting(dotted(below), plain, _origin(loaded, path, own in model.model_fields_set))


def _origin(loaded: Loaded, path: KeyPath, is_set: bool) -> Origin:
    if not is_set:
        return "default"
    # A value that is set but not written came from the sink's preset or the source's product.
    filled: Origin = "product" if path[0] == "sources" else "preset"
    value: Any = loaded.document.value
    for key in path:
        if not isinstance(value, dict) or key not in value:
            # A short form (`events: NAME`) holds what its long form would.
            short = not isinstance(value, dict)
            return "file" if short else filled
        value = value[key]
    return "file"


def _as_written(loaded: Loaded, path: KeyPath, plain: Any) -> Any:
    """The value with every `${...}` as the file writes it."""
    if path in loaded.shown:
        return _hidden(loaded, loaded.shown[path])
    if isinstance(plain, dict):
        return {key: _as_written(loaded, (*path, key), item) for key, item in plain.items()}
    if isinstance(plain, list):
        return [_as_written(loaded, (*path, i), item) for i, item in enumerate(plain)]
    # A short form (`events: [${NAME}]`) has another path than its long form.
    return _hidden(loaded, plain) if isinstance(plain, str) else plain


def _hidden(loaded: Loaded, text: str) -> str:
    # A secret too short to search for is still recognised by its parameter in a URL.
    text = without_url_secrets(text)
    for secret in sorted(loaded.secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{key}: {_text_inside(item)}" for key, item in value.items())
        case list():
            return ", ".join(_text(item) for item in value)
    return str(value)


def _text_inside(value: Any) -> str:
    text = _text(value) or "null"
    return f"{{{text}}}" if isinstance(value, dict) else text


def _header_options(sink: SinkConfig) -> set[str]:
    """The keys of the syslog header that this sink does not use."""
    return set(field_names(HeaderOptions)) if sink.header == "none" else set()


def _without_effect(loaded: Loaded, name: str, sink: SinkConfig) -> Iterator[Fault]:
    if registry.FORMATS[sink.format].as_received:
        for source, config in loaded.config.sources.items():
            if config.add and (not sink.sources or source in sink.sources):
                message = (
                    f"{sink.format} forwards records as they were received, without the fields "
                    f"that `add` of source {source} sets"
                )
                yield loaded.document.fault(("sinks", name, "format"), message)
    if registry.FORMATS[sink.format].headers:
        for key in sorted(_header_options(sink) & sink.model_fields_set):
            message = "has no effect without a syslog header; set `header` to add one"
            yield loaded.document.fault(("sinks", name, key), message, at_key=True)


def _below_min_severity(loaded: Loaded, name: str, sink: SinkConfig) -> Iterator[Fault]:
    events, catalogue = sink.events, loaded.config.catalogue()
    for entry in events.include:
        known = catalogue.find(entry)
        if known is not None and known.name != ANY and known.severity < events.min_severity:
            yield loaded.document.fault(
                ("sinks", name, "events", "min_severity"),
                f"leaves out `{known.name}`, which `include` names: its severity is "
                f"{known.severity}, unless a record says another",
            )


def _of_receiver(loaded: Loaded, name: str, sink: SinkConfig) -> Iterator[Fault]:
    """Remarks where the protocol or the SIEM expects otherwise; none on credentials not read."""
    kind, preset = registry.PROTOCOLS[sink.protocol], PRESETS[sink.siem]
    advice = preset.credential or kind.credential
    tls = getattr(sink, "tls", None)
    shown = any(True for _ in secrets_of(sink)) or (tls is not None and tls.certificate)
    if advice and not shown:
        yield loaded.document.fault(("sinks", name, "url"), advice)
    unread = {fault.key for fault in loaded.unread}
    for key, message in kind.remarks(sink):
        if not any(read.startswith(f"sinks.{name}.{key}") for read in unread):
            yield loaded.document.fault(("sinks", name, key), message)


def _empty_globs(loaded: Loaded, name: str, source: SourceConfig) -> Iterator[Fault]:
    paths = getattr(source, "path", None) if source.type == "file" else None
    for path in [paths] if isinstance(paths, (str, Path)) else paths or []:
        if obstacle(fixed(str(path)), os.R_OK | os.X_OK):
            continue  # what is there cannot be seen: `checks.paths` says so
        why = _matching_no_file(str(path))
        if why is not None:
            yield loaded.document.fault(("sources", name, "path"), why)


# The socket of syslog(3), and its place under systemd, to which /dev/log is a link there.
_LOG_SOCKETS: Final = frozenset({"/dev/log", "/run/systemd/journal/dev-log"})
_BY_ALL: Final = 0o666


def _closed_log_socket(loaded: Loaded, name: str, source: SourceConfig) -> Iterator[Fault]:
    """A socket for all programs to which those of other users cannot write: syslog(3) is silent."""
    if source.type != "syslog" or getattr(source, "mode", _BY_ALL) & _BY_ALL == _BY_ALL:
        return
    paths = [bind.path for bind in getattr(source, "binds", ())]
    for path in _LOG_SOCKETS.intersection(paths):
        message = (
            f"programs of other users cannot write to {path}, and do not say so; "
            'set `mode: "0666"` at this source, as syslog daemons do'
        )
        yield loaded.document.fault(("sources", name, "listen"), message)


def _matching_no_file(pattern: str) -> str | None:
    """Why the source reads nothing yet; None if a file matches."""
    # Path.glob takes no absolute pattern, and every pattern here is one.
    found = iglob(pattern, recursive=True)  # noqa: PTH207 (see above)
    first = next(found, None)
    if first is None:
        what = "no file matches it yet" if has_magic(pattern) else "there is no such file yet"
        braces = "; braces are not a pattern, write a list instead" if "{" in pattern else ""
        return f"{what}; it will be read as soon as it appears{braces}"
    if any(Path(path).is_file() for path in chain([first], found)):
        return None
    first = str(Path(first))
    if Path(first).is_dir():
        return f"{first} is a directory; write {first}/* for the files in it"
    return f"{first} is not a regular file; only those are followed"
