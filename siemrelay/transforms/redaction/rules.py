"""The rules that are made of the options of `redact:`."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from siemrelay.core.memo import BoundedMemo
from siemrelay.core.patterns import LinearPattern
from siemrelay.transforms.redaction.hidden import blobs, may_hide, shown
from siemrelay.transforms.redaction.kinds import KINDS, Finder, Kind, SecretSpan
from siemrelay.transforms.redaction.options import RedactOptions

MASK: Final = "***"
PSEUDONYM: Final = "anon-"
"""The beginning of a pseudonym; 20 hexadecimal digits follow."""

# 80 bits: among a thousand million values two share one once in a million times.
_PSEUDONYM_DIGITS: Final = 20


class Pseudonyms:
    """Tokens of values: HMAC-SHA-256 with a key (RFC 2104), the same wherever the value occurs."""

    def __init__(self, key: str) -> None:
        self._keyed = hmac.new(key.encode(), digestmod=hashlib.sha256)
        self.token = BoundedMemo(self._token).__getitem__

    def _token(self, value: str) -> str:
        made = self._keyed.copy()
        made.update(value.encode("utf-8", "surrogatepass"))
        return PSEUDONYM + made.hexdigest()[:_PSEUDONYM_DIGITS]


Token = Callable[[str], str]
"""Makes the text that stands in place of a value."""


class TextRule:
    """A kind or pattern, and what is written in its place."""

    def __init__(
        self, find: Finder, hint: Callable[[str], object], token: Token,
        names: Callable[[str], object] | None = None, *, is_kind: bool = True,
    ) -> None:  # fmt: skip
        self._find, self.hint, self.token, self.names = find, hint, token, names
        self.is_kind = is_kind

    def apply(self, text: str, secrets: set[str]) -> str:
        """The text without what the rule finds, which is added to `secrets`."""
        parts, at = list[str](), 0
        for found in self._find(text):
            secret = text[found.start : found.end]
            token = self.token(found.value)
            if not secret or secret == token:
                continue
            secrets.add(secret)
            parts += (text[at : found.start], token)
            at = found.end
        return text if not parts else "".join([*parts, text[at:]])


_ESCAPED: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|/)")


def redacted_text(text: str, rules: Iterable[TextRule], secrets: set[str]) -> str:
    """The text without what the rules find, also where JSON's escapes hide it.

    JSON inside of a text (a syslog message, a field that holds a document) may have any character
    as `\\uXXXX`. Where the rules find something the escapes are undone, but for quotes. So are
    entities, %-encoding and unusual characters, if something is found only without them; base64
    in which something is found is a secret as a whole.
    """
    plain = _ESCAPED.sub(_character, text) if "\\" in text else text
    rules = tuple(rules)
    is_suspect = bool(rules) and may_hide(plain)
    clear = shown(plain) if is_suspect else plain
    if clear == plain:
        after = _with_rules(plain, rules, secrets)
    else:
        as_written, as_read = set[str](), set[str]()
        after = _with_rules(plain, rules, as_written)
        after_clear = _with_rules(clear, rules, as_read)
        if as_read != as_written:
            after, as_written = after_clear, as_read
        secrets |= as_written
    if is_suspect:
        after = _without_blobs(after, rules, secrets)
    return text if after == plain else after


def _with_rules(text: str, rules: Sequence[TextRule], secrets: set[str]) -> str:
    for rule in rules:
        if rule.hint(text):
            text = rule.apply(text, secrets)
    return text


def _without_blobs(text: str, rules: Sequence[TextRule], secrets: set[str]) -> str:
    parts, at = list[str](), 0
    for start, end, decoded in blobs(text):
        for rule in rules:
            if rule.hint(decoded) and rule.apply(decoded, set()) != decoded:
                secrets.add(text[start:end])
                parts += (text[at:start], rule.token(text[start:end]))
                at = end
                break
    return text if not parts else "".join([*parts, text[at:]])


def _character(escape: re.Match[str]) -> str:
    found = chr(int(escape[1], 16)) if escape[1] else "/"
    kept = found in '"\\' or not (found.isprintable() or found.isspace()) or found in "\r\n"
    return escape[0] if kept else found


class Rules:
    """The compiled rules of one part: by whole field, and in texts, everywhere or in some field."""

    def __init__(self, options: RedactOptions) -> None:
        tokens = _tokens(options.key)
        self.whole: dict[str, Token] = {}
        self.texts: list[TextRule] = []
        self.texts_of: dict[str, list[TextRule]] = {}
        for rule in options.rules:
            token = tokens[rule.action]
            rules = [_of_kind(KINDS[name], token) for name in rule.kind]
            if rule.pattern is not None:
                rules.append(_of_pattern(rule.pattern, token))
            if not rules:
                self.whole |= dict.fromkeys(rule.field, token)
            elif rule.field:
                for path in rule.field:
                    self.texts_of.setdefault(path, []).extend(rules)
            else:
                self.texts += rules

        self.token_of_names = next((rule.token for rule in self.texts if rule.names), None)
        """Writes the token of a secret that is one by its name."""
        every = [*self.texts, *(rule for some in self.texts_of.values() for rule in some)]
        # Kinds have no `"`, `\\` or `/`; of a pattern that somebody wrote nothing is known.
        self._escapes: tuple[str, ...] = ("\\u", "\\t") if every else ()
        if not all(rule.is_kind for rule in every):
            self._escapes = ("\\",)

    def hides(self, text: str) -> bool:
        """Whether escapes, encodings or odd characters may hide a secret from the hints."""
        if not self._escapes:
            return False
        return any(escape in text for escape in self._escapes) or may_hide(text)

    @property
    def paths(self) -> set[str]:
        """The fields that some rule names."""
        return {*self.whole, *self.texts_of}


def _tokens(key: str | None) -> Mapping[str, Token]:
    made: dict[str, Token] = {"mask": lambda value: MASK, "remove": lambda value: ""}
    return made if key is None else made | {"pseudonym": Pseudonyms(key).token}


def _of_kind(kind: Kind, token: Token) -> TextRule:
    return TextRule(kind.find, kind.hint, token, kind.names)


def _of_pattern(pattern: str, token: Token) -> TextRule:
    compiled = LinearPattern(pattern)

    def find(text: str) -> Iterator[SecretSpan]:
        for start, end in compiled.spans(text, "secret"):
            yield SecretSpan(start, end, text[start:end])

    return TextRule(find, compiled.is_in_text, token, is_kind=False)
