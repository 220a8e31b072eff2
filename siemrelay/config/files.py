"""Reads the configuration file and the files that its `include:` names, as one document.

An included file holds parts, not settings: `sources`, `sinks` and `event_types`. So the commands
that only look for the endpoint or the state directory read one file, and a part that a package
drops into `conf.d` cannot move the buffer.
"""

# ruff: noqa: PTH118, PTH120, PTH207
# Patterns are text here: Path.glob takes none that begins with /.
from __future__ import annotations

import errno
import glob
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from siemrelay.config.yaml_document import Document, KeyPath, parse
from siemrelay.core.errors import ConfigurationRefused, Fault

# Hundreds of sinks fit into a tenth of it; a larger file is not a configuration.
_MAX_FILE_BYTES: Final = 1 << 20

# A part each is more than a relay runs; a pattern that matches more was meant otherwise.
_MAX_INCLUDED: Final = 1000

SECTIONS: Final = ("sources", "sinks", "event_types")
"""The keys of an included file."""

SHARED: Final = "x-"
"""Top-level keys that begin so are ignored: a place for YAML anchors, as in Compose files."""


def text_of(path: str | Path) -> str:
    """The file's text. Raises ConfigurationRefused if it cannot be read or is not text."""
    absent = "name the configuration with -c FILE, or write a first one: `siemrelay init`"
    return _text(str(path), absent, "name the file in it with -c FILE")


def _text(file: str, absent: str, directory: str) -> str:
    """`absent` and `directory` are the advice where the file is not there, or is a directory."""
    try:
        with open(file, "rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigurationRefused(file, [Fault("larger than 1 MiB: not a configuration")])
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationRefused(file, [Fault(_cannot_read(error, absent, directory))]) from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - data[: error.start].rfind(b"\n")
        fault = Fault("not UTF-8 text; save the file as UTF-8", "", line, column)
        raise ConfigurationRefused(file, [fault]) from error


def document_of(text: str, file: str, included: Mapping[str, str] | None = None) -> Document:
    """Parse a configuration file's text and what it includes; never raises.

    Args:
        file: its path, by which relative patterns of `include` go and faults are named.
        included: the texts to take in place of the included files; None reads the files.
    """
    document = parse(text)
    if isinstance(document.value, dict):
        patterns = document.value.get("include")
        _drop_shared(document)
        if included is None:
            found = _matches(document, patterns, file)
            included = dict(_texts(document, found))
        document.included = included
        for path, inner in included.items():
            _merge(document, path, inner, file)
        if document.faults:  # what seems to be missing may be in a file that could not be read
            document.unread |= {(section,) for section in SECTIONS}
    return document


def _drop_shared(document: Document) -> None:
    document.value = {
        key: value for key, value in document.value.items() if not key.startswith(SHARED)
    }


def _matches(document: Document, patterns: Any, file: str) -> dict[str, KeyPath]:
    """The files to include, in order, each with the path of the pattern that matches it first.

    The including file itself is none of them. Patterns of a wrong type have their fault elsewhere.
    """
    found: dict[str, KeyPath] = {}
    folder, itself = os.path.dirname(file), os.path.realpath(file)
    listed = patterns if isinstance(patterns, list) else [patterns]
    for number, pattern in enumerate(listed):
        at: KeyPath = ("include", number) if isinstance(patterns, list) else ("include",)
        if not isinstance(pattern, str):
            continue
        if "${" in pattern:
            document.faults.append(document.fault(at, "`include` takes no `${...}`"))
            continue
        whole = os.path.join(folder, pattern)
        is_glob = glob.has_magic(pattern)
        if is_glob and (closed := _closed(whole)):
            # Without this its parts would be missing, and nobody would know.
            who = "run as root or as the service's user"
            message = f"user {_own_name()} may not list {closed}; {who}"
            document.faults.append(document.fault(at, message))
            continue
        matched = sorted(glob.iglob(whole)) if is_glob else [whole]
        if not matched:
            # A directory for drop-ins is empty at first.
            ready = is_glob and Path(os.path.dirname(whole)).is_dir()
            (document.explanations if ready else document.remarks).append(
                document.fault(at, f"no file matches {whole}; write the parts there, or leave "
                "`include` out"))  # fmt: skip
        for path in matched:
            if os.path.realpath(path) != itself:
                found.setdefault(path, at)
    if len(found) > _MAX_INCLUDED:
        message = f"matches {len(found):,} files; at most {_MAX_INCLUDED:,} can be included"
        document.faults.append(document.fault(("include",), message))
        return {}
    return found


def _closed(pattern: str) -> str | None:
    """The directory of the pattern, if it is there and this process cannot list it."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    is_open = os.access(folder or ".", os.R_OK | os.X_OK, effective_ids=True)
    return folder if not is_open and Path(folder).is_dir() else None


def _texts(document: Document, found: Mapping[str, KeyPath]) -> Iterator[tuple[str, str]]:
    """The text of each file; those that cannot be read become faults at their pattern."""
    for path, at in found.items():
        try:
            # A FIFO or a device would hang the start; a directory has an error of its own.
            if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
                raise ConfigurationRefused(path, [Fault("is not a regular file")])
            advice = "`include` names files or patterns, like conf.d/*.yaml"
            yield path, _text(path, advice, advice)
        except ConfigurationRefused as refused:
            document.faults += [
                document.fault(at, f"{path}: {fault.message}")
                if fault.line is None
                else replace(fault, file=path)
                for fault in refused.faults
            ]


def _merge(document: Document, file: str, text: str, main: str) -> None:
    """Add an included file's parts to the document, with their places and faults."""
    inner = parse(text)
    document.faults += [replace(fault, file=file) for fault in inner.faults]

    def fault(path: KeyPath, message: str) -> None:
        found = inner.fault(path, message, at_key=True)
        document.faults.append(replace(found, file=file))

    if inner.value is None and not inner.faults:
        document.remarks.append(replace(inner.fault((), "the file is empty"), file=file))
    elif inner.value is not None and not isinstance(inner.value, dict):
        fault((), f"expected {', '.join(f'`{name}:`' for name in SECTIONS)} at the top level")
    if not isinstance(inner.value, dict):
        return
    taken: set[KeyPath] = set()
    for section, values in inner.value.items():
        if section.startswith(SHARED):
            continue
        if section == "include":
            fault((section,), f"an included file includes no others; name them in {main}")
        elif section not in SECTIONS:
            fault((section,), f"`{section}` belongs in {main}; an included file holds only "
                  f"{', '.join(f'`{name}`' for name in SECTIONS)}")  # fmt: skip
        elif values is not None:
            taken |= _take(document, inner, section, file, main)
    for marks, more in ((document.keys, inner.keys), (document.values, inner.values)):
        for path, mark in more.items():
            if path[:2] in taken or (len(path) == 1 and path not in marks):
                marks[path] = msgspec.structs.replace(mark, file=file)


def _take(document: Document, inner: Document, section: str, file: str, main: str) -> set[KeyPath]:
    """Add the parts of one section; the paths of those that were added."""
    there = _named(document, section)
    more = _named(inner, section)
    if more is None or there is None:
        wrong, where = (document, None) if there is None else (inner, file)
        found = wrong.fault((section,), "expected `name:` lines below it")
        document.faults.append(replace(found, file=where))
        return set()
    document.value[section] = there
    taken: set[KeyPath] = set()
    for name, value in more.items():
        path: KeyPath = (section, name)
        if name in there:
            first = document.keys[path]
            place = f"{first.file or main}:{first.line}"
            message = f"`{name}` is already in {place}; give one of them another name"
            found = inner.fault(path, message, at_key=True)
            document.faults.append(replace(found, file=file))
        else:
            there[name] = value
            taken.add(path)
    return taken


def _named(document: Document, section: str) -> dict[str, Any] | None:
    """The section as a mapping from names (`event_types` may be a list); None for anything else."""
    values = document.value.get(section)
    if section == "event_types" and isinstance(values, list):
        for number, name in enumerate(values):
            document.keys.setdefault((section, str(name)), document.values[section, number])
            document.values.setdefault((section, str(name)), document.values[section, number])
        return {str(name): None for name in values}
    if values is None:
        return {}
    return values if isinstance(values, dict) else None


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user without a name
        return str(os.geteuid())


def _cannot_read(error: OSError, absent: str, directory: str) -> str:
    if error.errno == errno.ENOENT:
        return f"no such file; {absent}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"user {_own_name()} may not read it; run as root or as the service's user"
    if error.errno == errno.EISDIR:
        return f"is a directory; {directory}"
    return f"cannot be read: {os.strerror(error.errno) if error.errno else error}"
