"""Parses YAML into plain values with the line and column of every key and value.

It is stricter than YAML, for files that people edit: a duplicate key is a fault; a number with
leading zeros, a date or `12:30` stays text; tags are not supported.
`yes`, `no`, `on`, `off`, anchors, aliases and merge keys (`<<`) work as everywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import yaml

from siemrelay.core.errors import Fault

KeyPath = tuple[str | int, ...]
"""The path of a value from the top of the file: mapping keys and list indexes (from 0)."""

# Aliases can multiply a small file into millions of values; no configuration has this many.
_MAX_VALUES: Final = 50_000

_MERGE_TAG: Final = "tag:yaml.org,2002:merge"

_BRACKET: Final = "write commas between the entries, and close the bracket or brace"

_HINTS: Final = (
    ("'\\t' that cannot start", "YAML is indented with spaces, not tabs"),
    ("cannot start any token", "put quotes around text that begins with it"),
    ("expected alphabetic or numeric", "put quotes around text that begins with `*` or `&`"),
    ("chomping or indentation", "put quotes around text that begins with `|` or `>`"),
    ("unknown escape character", "within \" a backslash must be doubled, within ' it stays one"),
    (
        "mapping values are not allowed",
        "check the indentation, write a space after the colon of each key, and put quotes around "
        "text that holds `: `",
    ),
    ("could not find expected ':'", "write `key: value`, with a space after the colon"),
    (
        "but found '<scalar>'",
        "nothing may follow a closing quote; within ' write an apostrophe as ''",
    ),
    ("expected <block end>", "line it up with the keys around it"),
    ("'}', but got '{'", 'in braces, put quotes around "${NAME}"'),
    ("expected ',' or", _BRACKET),
    ("expected the node content", f"give the key a value; {_BRACKET}"),
    ("found unexpected end of stream", "close the quotation mark"),
    ("undefined alias", "give the value a name with `&name` before it is used"),
    ("found another document", "a file is one document: take out the line `---`"),
)
"""The parser's message → what to look for."""


class Mark(msgspec.Struct, frozen=True):
    """A place in the file; both count from 1. `file` names an included one."""

    line: int
    column: int
    file: str | None = None


class Document(msgspec.Struct):
    """The values of a file, the position of each, and the faults of the YAML itself.

    `included` has the texts of the files that it includes, by their paths; `remarks` are warnings,
    and `explanations` what may explain a fault and alone is nothing to warn of.
    """

    value: Any = None
    keys: dict[KeyPath, Mark] = msgspec.field(default_factory=dict)
    values: dict[KeyPath, Mark] = msgspec.field(default_factory=dict)
    faults: list[Fault] = msgspec.field(default_factory=list)
    remarks: list[Fault] = msgspec.field(default_factory=list)
    explanations: list[Fault] = msgspec.field(default_factory=list)
    included: Mapping[str, str] = {}
    unread: set[KeyPath] = msgspec.field(default_factory=set)
    """Paths of values that lack what a faulty file may have."""

    def fault(self, path: KeyPath, message: str, *, at_key: bool = False) -> Fault:
        """A fault at a value (or its key); if the file lacks it, at the nearest enclosing key."""
        first, second = (self.keys, self.values) if at_key else (self.values, self.keys)
        mark = first.get(path) or second.get(path)
        above = path
        while mark is None and above:
            above = above[:-1]
            mark = self.keys.get(above) or (self.values.get(above) if above else None)
        mark = mark or Mark(1, 1)
        return Fault(message, dotted(path), mark.line, mark.column, mark.file)


def dotted(path: KeyPath) -> str:
    """`sinks.qradar.events.include[0]`, the form that people are shown."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def in_order(faults: list[Fault]) -> list[Fault]:
    """Sorted by file (the main one first) and position in it, without repetitions."""
    return sorted(
        dict.fromkeys(faults),
        key=lambda fault: (fault.file or "", fault.line or 0, fault.column or 0),
    )


def parse(text: str) -> Document:
    """Parse one YAML document. Never raises: problems are in `faults`.

    After a syntax fault `value` is None; after a duplicate key it holds the first one.
    """
    try:
        node = _Loader(text).get_single_node()
        reading = _Reading(Document())
        if node is not None:
            reading.document.value = reading.value(node, ())
        return reading.document
    except yaml.reader.ReaderError as error:
        return Document(faults=[_unreadable(text, error)])
    except yaml.MarkedYAMLError as error:
        return Document(faults=[_syntax(error)])
    except RecursionError:
        return Document(faults=[Fault("nested too deeply to be a configuration", "", 1, 1)])


class _Loader(yaml.SafeLoader):
    """Resolves only null, yes and no, decimal numbers and merge keys; the rest stays text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own field)


# YAML 1.1 would read `0514` as 332 and `12:30` as 750. More than 18 digits is an identifier.
for _tag, _pattern, _first in (
    ("bool", r"(?i:yes|no|true|false|on|off)", "yYnNtTfFoO"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,17})", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]{1,18}\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?", "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):  # fmt: skip
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first)
    )


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


class _Reading:
    """One walk over the nodes of a document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._open: list[yaml.Node] = []
        self._seen = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._seen += 1
        if self._seen > _MAX_VALUES or node in self._open:
            what = "its aliases make a circle" if node in self._open else "too many values"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)
        self.document.values[path] = _mark(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                self._untagged(node, "map", path)
                return self._mapping(node, path)
            self._untagged(node, "seq", path)
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        finally:
            self._open.pop()

    def _untagged(self, node: yaml.Node, kind: str, path: KeyPath) -> None:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            self._fault(node, path, f"the tag `{node.tag}` is not supported; leave it out")

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        match kind:
            case "str" | "merge":
                return node.value
            case "null":
                return None
            case "bool" if node.value.lower() in _Loader.bool_values:
                return _Loader.bool_values[node.value.lower()]
            case "int" | "float":
                try:
                    return int(node.value) if kind == "int" else float(node.value)
                except ValueError:
                    pass
        self._fault(node, path, f"the tag `{node.tag}` is not supported; leave it out")
        return node.value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                merged += value_node.value if _is_list(value_node) else [value_node]
            elif not isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, path, "a key must be plain text, not a list or a mapping")
            elif key_node.value in result:
                first = self.document.keys[(*path, key_node.value)]
                message = f"duplicate key `{key_node.value}`; it is already in line {first.line}"
                self._fault(key_node, (*path, key_node.value), message)
            else:
                # A key is the text as written: a sink may be called `on` or `1`.
                self._pair(key_node, value_node, path, result)
        for key_node, value_node in self._merged(merged, path):
            if key_node.value not in result:
                self._pair(key_node, value_node, path, result)
        return result

    def _pair(
        self, key: yaml.ScalarNode, value: yaml.Node, path: KeyPath, result: dict[str, Any]
    ) -> None:
        below = (*path, key.value)
        self.document.keys[below] = _mark(key)
        result[key.value] = self.value(value, below)

    def _merged(
        self, nodes: list[yaml.Node], path: KeyPath
    ) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        for node in nodes:
            self._seen += 1
            if not isinstance(node, yaml.MappingNode) or node in self._open:
                self._fault(node, path, "`<<` takes a mapping, usually an alias like `*name`")
                continue
            own: list[tuple[yaml.ScalarNode, yaml.Node]] = []
            deeper: list[yaml.Node] = []
            for key, value in node.value:
                if key.tag == _MERGE_TAG:
                    deeper += value.value if _is_list(value) else [value]
                elif isinstance(key, yaml.ScalarNode):
                    own.append((key, value))
            yield from own
            if self._seen < _MAX_VALUES:
                self._open.append(node)
                yield from self._merged(deeper, path)
                self._open.pop()

    def _fault(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        mark = _mark(node)
        self.document.faults.append(Fault(message, dotted(path), mark.line, mark.column))


def _is_list(node: yaml.Node) -> bool:
    return isinstance(node, yaml.SequenceNode)


def _syntax(error: yaml.MarkedYAMLError) -> Fault:
    problem = (error.problem or "this is not YAML").removeprefix("but ")
    hint = next((hint for part, hint in _HINTS if part in problem), None)
    if "<document start>" in problem:  # lines of another format, such as INI
        problem, hint = "expected `key: value` lines", "this is another format than YAML"
    mark = error.problem_mark or error.context_mark
    message = f"{problem}; {hint}" if hint else problem
    if "close the" in message and error.context_mark is not None:
        message += f" that begins in line {error.context_mark.line + 1}"
    if mark is None:
        return Fault(message)
    return Fault(message, "", mark.line + 1, mark.column + 1)


def _unreadable(text: str, error: yaml.reader.ReaderError) -> Fault:
    before = text[: error.position]
    line, column = before.count("\n") + 1, error.position - before.rfind("\n")
    return Fault(
        f"the character {text[error.position]!a} is not allowed in YAML; take it out",
        "",
        line,
        column,
    )
