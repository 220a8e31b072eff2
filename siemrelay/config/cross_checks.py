"""Parts that are valid alone and cannot run together."""

# ruff: noqa: PTH100, PTH118
# Patterns are text here: a path would take `**` for a folder.
from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from siemrelay import registry
from siemrelay.config.describe import nearest
from siemrelay.config.models import SinkConfig, SourceConfig
from siemrelay.config.yaml_document import KeyPath
from siemrelay.core.event_types import OWN_SOURCE
from siemrelay.net.listening_sockets import BindAddress, Listening
from siemrelay.sinks.stream.servers import addresses
from siemrelay.sources.file.finder import Globs
from siemrelay.sources.file.options import FileOptions
from siemrelay.telemetry.endpoint_options import EndpointOptions
from siemrelay.transforms.conditions import impossible

if TYPE_CHECKING:
    from siemrelay.sinks.file.sink import ArchiveOptions


def clashes(
    sources: Any, sinks: Any, endpoint: Any, line: Callable[[KeyPath], str]
) -> Iterator[tuple[KeyPath, str]]:
    """Every part that cannot run beside another one, with its path and a message.

    Takes the sections as far as they could be built, and of a path the place in the file as text.
    Reads only symbolic links from the disk.
    """
    sources = sources if isinstance(sources, dict) else {}
    sinks = sinks if isinstance(sinks, dict) else {}
    if OWN_SOURCE in sources:
        yield ("sources", OWN_SOURCE), f"`{OWN_SOURCE}` names the relay's own events; rename it"
    yield from _not_alone(sources)
    yield from _not_framed(sources)
    yield from _same_address(sources, endpoint, line)
    yield from _renamed("source", sources)
    yield from _renamed("sink", sinks)
    yield from _unknown_sources(sources, sinks)
    for section, parts in (("sources", sources), ("sinks", sinks)):
        for name, part in parts.items():
            yield from _never_met(part, (section, name))
    for name, sink in sinks.items():
        if isinstance(sink, SinkConfig) and sink.add and registry.FORMATS[sink.format].as_received:
            yield (
                ("sinks", name, "add"),
                f"format {sink.format} forwards records as they were received, and nothing can be "
                "added to them; choose another format",
            )
    yield from _sealed(sinks)
    archives = {
        name: sink
        for name, sink in sinks.items()
        # The placeholder of a faulty sink is an instance of the bare class.
        if isinstance(sink, SinkConfig)
        and type(sink) is not SinkConfig
        and sink.protocol == "file"
        and sink.enabled
    }
    yield from _shared(archives)
    yield from _circles(sources, archives)
    yield from _to_itself(sources, sinks)


def _not_alone(sources: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Every further source of a type that a relay can have only once."""
    met: set[str] = set()
    for name, source in sources.items():
        kind = getattr(source, "type", "")
        if kind in met and registry.SOURCES[kind].alone:
            yield ("sources", name, "type"), f"only one source can be of type {kind}"
        if kind in registry.SOURCES:
            met.add(kind)


def _not_framed(sources: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Every source whose decoder and options do not agree on what a record is."""
    for name, source in sources.items():
        if type(source) is SourceConfig or not isinstance(source, SourceConfig):
            continue
        decoder, framed = source.decoder, registry.SOURCES[source.type].framed
        if getattr(source, "multiline", None) and registry.DECODERS[decoder].framing:
            yield (
                ("sources", name, "multiline"),
                f"decoder {decoder} finds records of several lines by itself: remove `multiline`, "
                "or choose another decoder",
            )
        if decoder == "auditd" and getattr(source, "encoding", "auto") not in ("auto", "utf-8"):
            yield ("sources", name, "encoding"), "audit logs are UTF-8: remove `encoding`"
        if decoder == "csv" and not framed and source.columns is None:  # type: ignore[attr-defined]  # the joined model's
            yield (
                ("sources", name, "decoder"),
                f"`columns` is required: records of type {source.type} come without a header line",
            )


def _renamed(kind: str, parts: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Every `renamed_from` that names a present part, or one that another part took over."""
    taken = dict[str, str]()
    for name, part in parts.items():
        before = getattr(part, "renamed_from", None)
        if before is None:
            continue
        path: KeyPath = (f"{kind}s", name, "renamed_from")
        if before == name:
            yield path, f"this is the {kind}'s name now; write the one that it had before"
        elif before in parts:
            yield path, f"`{before}` is still a {kind}: remove it, or this key"
        elif before in taken:
            yield path, f"{kind} `{taken[before]}` takes the place of `{before}` already"
        taken.setdefault(before, name)


def _unknown_sources(
    sources: Mapping[str, Any], sinks: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, str]]:
    """Every name in a sink's `sources` that no source has."""
    known = [*sources, OWN_SOURCE]
    for name, sink in sinks.items():
        for source in getattr(sink, "sources", ()):
            if source not in known:
                meant = nearest(source, known)
                hint = f"did you mean `{meant}`?" if meant else f"there are {', '.join(known)}"
                yield ("sinks", name, "sources"), f"no source is named `{source}`; {hint}"


def _never_met(part: Any, at: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every condition of a part that no event can fulfil."""
    places: list[tuple[KeyPath, Any]] = [(at, part)]
    for key in ("sample", "limit"):
        places += [((*at, key, i), rule) for i, rule in enumerate(getattr(part, key, ()) or ())]
    for place, having in places:
        for field, message in impossible(getattr(having, "where", {})):
            yield (*place, "where", field), message


# A seal accounts for hundreds of messages, and is of no use in part.
_SEAL_BYTES: Final = 8 << 10


def _sealed(sinks: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Every sink with `seal:` whose messages have no place for a number, or none for a seal."""
    for name, sink in sinks.items():
        if not isinstance(sink, SinkConfig) or sink.seal is None:
            continue
        limit = registry.PROTOCOLS[sink.protocol].max_message_bytes(sink)
        if any(key.startswith("siemrelay") for key in getattr(sink, "map", ())):
            yield (
                ("sinks", name, "map"),
                "with `seal` the members that begin with `siemrelay` are the relay's own: they "
                "carry the number of a message",
            )
        if not registry.FORMATS[sink.format].numbered:
            yield (
                ("sinks", name, "seal"),
                f"the format `{sink.format}` has no place for the number of a message; take "
                "another one, like `syslog` or `json`, or leave `seal` out",
            )
        if min(filter(None, (limit, sink.max_message_size)), default=_SEAL_BYTES) < _SEAL_BYTES:
            yield (
                ("sinks", name, "seal"),
                "a seal needs up to 8KiB, and this sink sends shorter messages; set "
                "`max_message_size: 8KiB` or more, or leave `seal` out",
            )


def _same_address(
    sources: Mapping[str, Any], endpoint: Any, line: Callable[[KeyPath], str]
) -> Iterator[tuple[KeyPath, str]]:
    """Every address at which the kernel would refuse a listener because of an earlier one."""
    taken: list[tuple[KeyPath, str, Any, BindAddress]] = []
    if isinstance(endpoint, EndpointOptions) and endpoint.address is not None:
        bind = BindAddress(False, *endpoint.address)
        taken.append((("endpoint", "listen"), "the endpoint", None, bind))
    for name, source in sources.items():
        for number, bind in enumerate(source.binds if isinstance(source, Listening) else ()):
            listen: KeyPath = ("sources", name, "listen")
            path = (*listen, number) if isinstance(getattr(source, "listen", ""), list) else listen
            for place, who, other, earlier in taken:
                if bind.clashes(earlier) and (other is None or share_a_relay(source, other)):
                    yield (
                        path,
                        f"{who}{line(place)} listens on {earlier} already; give each an address "
                        "of its own",
                    )
                    break
            taken.append((path, f"source `{name}`", source, bind))


def _shared(archives: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Every archive that an earlier sink writes: each would rotate it under the other."""
    for index, (name, archive) in enumerate(archives.items()):
        for other, earlier in list(archives.items())[:index]:
            if share_a_relay(archive, earlier) and _real(archive.path) == _real(earlier.path):
                yield (
                    ("sinks", name, "path"),
                    f"sink `{other}` writes to that file already; give each sink a file of its own",
                )
                break


def _circles(
    sources: Mapping[str, Any], archives: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, str]]:
    """Every archive that a source would read: its records would go round without end."""
    for name, archive in archives.items():
        for source, files in sources.items():
            if not isinstance(files, FileOptions) or not share_a_relay(archive, files):
                continue
            read = _read_by(files, archive)
            if read is not None:
                which = "this file" if read == archive.path.name else f"its rotated files ({read})"
                yield (
                    ("sinks", name, "path"),
                    f"source `{source}` would read {which}, and this sink write that again, "
                    "without end; give the sink a directory that no source's `path` matches",
                )
                break


def _read_by(files: FileOptions, archive: ArchiveOptions) -> str | None:
    """The name of one of the archive's files that the source's globs match, or None."""
    from siemrelay.sinks.file.rotation import names  # a start pays for the parts that it has

    globs = Globs(files.patterns)
    beyond_links = Globs(map(_real_pattern, globs.patterns))
    for path in names(archive.path, time.time(), compress=archive.compression == "gzip"):
        if globs.matches(os.path.abspath(path)) or beyond_links.matches(_real(path)):
            return path.name
    return None


def _to_itself(
    sources: Mapping[str, Any], sinks: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, str]]:
    """Every sink that sends what a source receives to that source: it would go round for ever."""
    for name, sink in sinks.items():
        if not isinstance(sink, SinkConfig) or not sink.enabled:
            continue
        key, targets = _targets(sink)
        for source, listener in sources.items():
            if (
                isinstance(listener, Listening)
                and source in (sink.sources or [source])
                and share_a_relay(sink, listener)
                and any(bind.leads_here(target) for bind in listener.binds for target in targets)
            ):
                yield (
                    ("sinks", name, key),
                    f"source `{source}` listens there, and this sink would send its records to it "
                    "again, without end; send elsewhere, or leave that source out of the sink's "
                    "`sources`",
                )
                break


def _targets(sink: Any) -> tuple[str, list[BindAddress]]:
    """The key of a sink that says where it sends, and the addresses that it names."""
    if sink.protocol in ("unix", "unixgram"):
        return "path", [BindAddress(sink.protocol == "unixgram", "", 0, str(sink.path))]
    if hasattr(sink, "server"):
        found = addresses(sink.server, sink.port)
        return "server", [BindAddress(sink.protocol == "udp", at.host, at.port) for at in found]
    if not hasattr(sink, "url"):
        return "", []
    url = urlsplit(str(sink.url))
    port = url.port or (443 if url.scheme == "https" else 80)
    return "url", [BindAddress(False, url.hostname or "", port)]


def share_a_relay(one: Any, other: Any) -> bool:
    """Whether the two run in one relay: their pools overlap, or one has none."""
    assert isinstance(one, (SinkConfig, SourceConfig))
    assert isinstance(other, (SinkConfig, SourceConfig))
    return not one.pool or not other.pool or bool({*one.pool} & {*other.pool})


def _real(path: os.PathLike[str]) -> str:
    return os.path.realpath(path)


def _real_pattern(pattern: str) -> str:
    """The pattern with the symbolic links before its first wildcard resolved."""
    if not glob.has_magic(pattern):
        return os.path.realpath(pattern)
    parts = pattern.split("/")
    plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return os.path.join(os.path.realpath("/".join(parts[:plain]) or "/"), *parts[plain:])
