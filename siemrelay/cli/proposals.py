"""Which decoder fits a file: what `preview` and `check FILE` propose, with the lines to paste."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

import msgspec
import yaml

from siemrelay import registry
from siemrelay.core.event import Batch
from siemrelay.core.event_types import UNPARSED, Catalogue
from siemrelay.core.extras import REGEX
from siemrelay.core.lines import records_of
from siemrelay.decoders.json.lookup import FieldLookup
from siemrelay.decoders.key_value import declared_pairs, whole_pairs
from siemrelay.decoders.snare import SNARE
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.products.product import BUILT_IN
from siemrelay.sources.framing import FramingOptions, RecordStream, text_framing
from siemrelay.wire.framing.contract import Framing
from siemrelay.wire.framing.csv_rows import Dialect
from siemrelay.wire.items import ItemSplitter

SAMPLE_BYTES: Final = 256 << 10
"""So much of a file's beginning is looked at."""

_MOST_RECORDS: Final = 1000

# A decoder fits if it reads this share: logs have a line or two of something else.
_FITS: Final = 0.8
# Among words are so many pairs at least; fewer may stand in any text.
_PAIRS: Final = 3

# A product's own types are this share of its records at least, as others have types of no note; and
# so many of its fields have names of its own: types like `login` are many a product's.
_IS_PRODUCT: Final = 0.3
_OWN_FIELDS: Final = 3
_MOST_OBJECTS: Final = 100

# What every GELF message has; its types are whatever its sender writes.
_GELF: Final = {"version", "host", "short_message"}

_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_CEF: Final = re.compile(r"(?:^|[\s:])CEF:\d\|")
_LEEF: Final = re.compile(r"(?:^|[\s:])LEEF:[\d.]+\|")
_SYSLOG: Final = re.compile(
    r"<\d{1,3}>|[A-Z][a-z]{2} [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d \S+ \S|"
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* [\w.:-]+ [\w./-]+(?:\[\d+\])?: "
    rf"|\S+\t{SNARE}\t"
)
_DELIMITERS: Final = ",;\t|"
_DATES: Final = (
    (r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d", r"(?P<time>{}\S*?)[:|]? "),
    # Samba's has its level behind the time.
    (r"\[\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d", r"\[(?P<time>[^]]+?)(?:,  \d+)?\] "),
    (r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]", r"\[(?P<time>[^]]+)\] "),
    (r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d", r"(?P<time>{}) "),
)
"""The time with which a record begins, and what takes it without what stands around it."""

# The log of web servers and proxies: Apache's `common` and `combined`, nginx' default, squid's. A
# quote inside a value is escaped in all of them, so no client ends one.
_QUOTED: Final = r'"(?P<{}>(?:[^"\\]|\\.)*)"'
_ACCESS: Final = (
    r"(?P<actor_address>\S+) \S+ (?:-|(?P<actor_name>\S+)) \[(?P<time>[^]]+)\] "
    r'"(?P<message>(?:(?P<type>[A-Z]+) (?P<target_name>(?:[^\s"\\]|\\.)+))?(?:[^"\\]|\\.)*)" '
    r"(?P<outcome>\d{3}) (?:-|(?P<bytes>\d+))"
    rf"(?: {_QUOTED.format('referer')} {_QUOTED.format('user_agent')})?(?: (?P<more>.*))?"
)


class Proposal(msgspec.Struct, frozen=True):
    """The settings of a source of type `file` that fit, and how well."""

    settings: dict[str, Any]
    fit: int
    of: int
    """`fit` of so many records are read."""
    repeated: str | None = None
    """The name of a member that a JSON record has more than once; None if there is none."""

    def lines(self, indent: str) -> list[str]:
        """The settings as lines of the configuration."""
        text = yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True, width=1000)
        return [indent + line for line in text.splitlines()]


def proposal(sample: bytes, *, whole: bool) -> Proposal | None:
    """The best fit to the beginning of a file, or to all of it (`whole`); None without a record."""
    found = _Sample(sample, whole=whole)
    for name, fits in _forms():
        records = found.records(registry.DECODERS[name].framing)
        fit = sum(map(fits, records))
        if records and fit >= _FITS * len(records):
            product = _product(records) if name == "json" else name if name in BUILT_IN else None
            if name == "syslog" and sum(SNARE in record for record in records) >= _FITS * fit:
                product = "windows"
            settings = {"decoder": name, **({"product": product} if product else {})}
            repeated = _repeated(records) if name == "json" else None
            return Proposal(settings | found.encoding, fit, len(records), repeated)
    return _access(found) or _csv_or_dated(found) or _text(found)


class _Sample:
    def __init__(self, data: bytes, *, whole: bool) -> None:
        self._data, self._whole = data, whole
        self.encoding = _encoding(data)

    def records(self, declared: Callable[[Any, int], Framing] | None = None) -> list[str]:
        """Its first records under that framing; lines by default."""
        options = FramingOptions(**self.encoding)
        framing = declared(None, options.max_record_size) if declared else None
        stream = RecordStream(text_framing(options, framing))
        found = stream.feed(self._data)
        if self._whole or not found:
            found += stream.end()
        records = [record for some in found for record in records_of(some.payload, some.count)]
        return [
            record.decode("utf-8", "replace").rstrip("\r") for record in records[:_MOST_RECORDS]
        ]


def _encoding(data: bytes) -> dict[str, str]:
    """The setting that the text needs; none if it is UTF-8 or says by a mark what it is."""
    if data.startswith(_MARKS):
        return {}
    even, odd = data[0::2].count(0), data[1::2].count(0)
    if max(even, odd) * 4 > len(data):
        return {"encoding": "utf-16-le" if odd > even else "utf-16-be"}
    try:
        data[: data.rfind(b"\n") + 1].decode()
    except UnicodeDecodeError:
        return {"encoding": "cp1252"}
    return {}


def _is_parsed_by(name: str) -> Callable[[str], bool]:
    kind = registry.DECODERS[name]
    decoder = kind.build(BUILT_IN["generic"].spellings, frozenset[str](), Catalogue())

    def is_parsed(record: str) -> bool:
        batch = Batch(1, 1, "", 0.0, record.encode() + b"\n")
        return decoder.decode(batch).events[0].type != UNPARSED

    return is_parsed


def _product(records: list[str]) -> str | None:
    """The product that most of these JSON objects are of: by its types and its own field names."""
    objects = [found for found in map(_object, records[:_MOST_OBJECTS]) if found is not None]
    if objects and all(msgspec.json.decode(each).keys() >= _GELF for each in objects):
        return "gelf"
    common = BUILT_IN["generic"].spellings
    shares = dict[str, float]()
    for name in (name for name in BUILT_IN if BUILT_IN[name].types):
        product = BUILT_IN[name]
        own = {
            field: tuple(path for path in paths if path not in common.get(field, ()))
            for field, paths in product.spellings.items()
        }
        items = ItemSplitter(product.items) if product.items else None
        apart = [item for each in objects for item in _items(each, items)]
        finder, payload = FieldLookup(own), b"".join(item + b"\n" for item in apart)
        kind = registry.DECODERS["json"]
        catalogue = BUILT_IN.catalogue([name], product=name)
        decoder = kind.build(product.spellings, frozenset[str](), catalogue)
        events = decoder.decode(Batch(1, len(apart), "", 0.0, payload)).events if apart else []
        types = {known.name for known in product.types}
        fits = [
            event.type in types and len(finder.find(msgspec.json.decode(item))) >= _OWN_FIELDS
            for event, item in zip(events, apart, strict=True)
        ]
        shares[name] = sum(fits) / len(fits) if fits else 0
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= _IS_PRODUCT:
        return best
    return "ecs" if objects and all(map(_is_ecs, objects)) else None


def _is_ecs(record: bytes) -> bool:
    found = msgspec.json.decode(record)
    nested = found.get("ecs")
    return "ecs.version" in found or (isinstance(nested, dict) and "version" in nested)


class _Repeated(Exception):
    """A JSON object has this name twice."""


def _repeated(records: list[str]) -> str | None:
    """The first name that an object in these records has twice."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise _Repeated(next(name for name in names if names.count(name) > 1))
        return found

    for record in records[:_MOST_OBJECTS]:
        try:
            json.loads(record, object_pairs_hook=members)
        except _Repeated as error:
            return str(error)
        except (ValueError, RecursionError):
            continue
    return None


def _object(record: str) -> bytes | None:
    try:
        found = msgspec.json.decode(record)
    except msgspec.DecodeError:
        return None
    return msgspec.json.encode(found) if isinstance(found, dict) else None


def _items(record: bytes, splitter: ItemSplitter | None) -> Iterator[bytes]:
    slices = splitter.slices(record) if splitter is not None else None
    found = [record] if slices is None else map(bytes, chain.from_iterable(slices))
    yield from (item for item in found if item.startswith(b"{"))


def _is_pairs(record: str) -> bool:
    if whole_pairs(record) is not None:
        return True
    if _SYSLOG.match(record) is not None or record.count("=") <= 2 * _PAIRS:
        return False
    pairs = declared_pairs(record)
    return pairs is not None and len(pairs) > _PAIRS


def _forms() -> Iterator[tuple[str, Callable[[str], bool]]]:
    """Decoders, the one that asks for most first, and whether a record is of their form."""
    yield "auditd", _is_parsed_by("auditd")
    yield "laurel", _is_parsed_by("laurel")
    yield "cef", lambda record: _CEF.search(record) is not None
    yield "leef", lambda record: _LEEF.search(record) is not None
    yield "json", _is_parsed_by("json")
    yield "key_value", _is_pairs
    yield "syslog", lambda record: _SYSLOG.match(record) is not None


def _csv(sample: _Sample) -> Proposal | None:
    lines = sample.records()
    best: tuple[float, int, str, list[list[str]]] | None = None
    for delimiter in _DELIMITERS:
        dialect = Dialect(delimiter)
        text = [line + "\n" for line in lines]
        rows = [row for row, _ in dialect.split(text, final=True) if row]
        width = len(rows[0]) if rows else 0
        if width > 1 and len(rows) > 1:
            share = sum(len(row) == width for row in rows) / len(rows)
            if share >= _FITS and (best is None or (share, width) > best[:2]):
                best = share, width, delimiter, rows
    if best is None:
        return None
    _, width, delimiter, rows = best
    settings: dict[str, Any] = {"decoder": "csv", **sample.encoding}
    if delimiter != ",":
        settings["delimiter"] = delimiter
    if not _is_header(rows[0]):
        settings["columns"] = [f"column{i}" for i in range(1, width + 1)]
    fit = sum(len(row) == width for row in rows)
    return Proposal(settings, fit, len(rows))


def _is_header(row: list[str]) -> bool:
    """Whether a first row is names: all different, none empty, none with a digit at its front."""
    names = [value.strip() for value in row]
    return len(set(names)) == len(names) and all(
        name and not name[0].isdigit() and len(name) < 64 for name in names
    )


def _access(sample: _Sample) -> Proposal | None:
    lines = sample.records()
    fit = sum(re.fullmatch(_ACCESS, line) is not None for line in lines)
    if not lines or fit < _FITS * len(lines):
        return None
    return Proposal({"decoder": "regex", "pattern": _ACCESS, **sample.encoding}, fit, len(lines))


def _csv_or_dated(sample: _Sample) -> Proposal | None:
    """Rows, unless they are lines that a time begins: Python writes a comma into it."""
    rows, dated = _csv(sample), _dated(sample)
    columns = rows.settings.get("columns", ()) if rows is not None else ()
    return dated if rows is None or (dated is not None and len(columns) == 2) else rows


def _dated(sample: _Sample) -> Proposal | None:
    """Text that is taken apart by the time with which its records begin; None if they do not."""
    lines = sample.records()
    indented = sum(map(_is_indented, lines))
    for date, taken in _DATES:
        written = taken.replace("{}", date)
        dated = [line for line in lines if re.match(written, line)]
        if dated and len(dated) + indented >= len(lines) // 2 and re.match(written, lines[0]):
            settings: dict[str, Any] = {**sample.encoding}
            if len(dated) < len(lines):
                settings["multiline"] = {"start": f"^{date}"}
            settings |= {"decoder": "regex", "pattern": f"(?s){written}(?P<message>.*)"}
            return Proposal(settings, len(dated), len(dated))
    return None


def _is_indented(line: str) -> bool:
    return line[:1] in (" ", "\t")


def _text(sample: _Sample) -> Proposal | None:
    lines = sample.records()
    if not lines:
        return None
    indented = sum(map(_is_indented, lines))
    settings: dict[str, Any] = {"decoder": "text", **sample.encoding}
    if indented:
        settings["multiline"] = {"indented": True}
    return Proposal(settings, len(lines) - indented, len(lines) - indented)


def shown_proposal(found: Proposal, source: str | None, path: str) -> Iterator[str]:
    """The proposal as text: the decoder that fits, and the lines to paste."""
    decoder = found.settings["decoder"]
    if "product" in found.settings:
        yield f"these are records of product {found.settings['product']}"
    yield f"decoder {decoder} reads {found.fit:,} of the first {found.of:,} records"
    if found.repeated is not None:
        yield (
            f"warning: an object has the name {sanitize_for_display(found.repeated, 40)} more than "
            "once: only the last one is read. sudo's JSON file is such a document: have sudo log "
            "to syslog (`product: sudo`)"
        )
    if REGEX.missing() and ("pattern" in found.settings or "start" in str(found.settings)):
        yield f"{REGEX.absence}; {REGEX.advice}"
    if source is not None:
        yield f"set in source {source}:"
        yield from found.lines("    ")
    else:
        yield "a source that reads it:"
        yield from ("sources:", "  NAME:", "    type: file", f"    path: {path}")
        yield from found.lines("    ")
