"""The options of `redact:` of a source or sink."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from siemrelay.core.options import Options, Secret, one_or_more
from siemrelay.core.patterns import Pattern
from siemrelay.transforms.event_paths import EventPath

# NIST SP 800-107, 5.3.4: a key of less than 112 bits protects little; 16 characters of text.
_LEAST_KEY_CHARACTERS: Final = 16

# What an event cannot be without, or has from a fixed choice.
_KEPT: Final = ("id", "time", "type", "category", "severity", "outcome")

Action = Literal["mask", "remove", "pseudonym"]
KindName = Literal["email", "card", "iban", "token", "password"]


def _redactable(path: str) -> str:
    if path in _KEPT:
        raise ValueError(f"an event needs its `{path}`; patterns and kinds are redacted in it, too")
    return path


def _long_form(value: Any) -> Any:
    return {"rules": value} if isinstance(value, list) else value


RedactedPath = Annotated[EventPath, AfterValidator(_redactable)]


class RedactRule(Options):
    """One rule: a whole field, or what looks like a secret in any text."""

    field: Annotated[
        list[RedactedPath],
        one_or_more(RedactedPath),
    ] = Field(
        default=[],
        description="fields of which the whole value is redacted; with `kind` or `pattern`, the "
        "only fields in which these are looked for",
    )
    kind: Annotated[list[KindName], one_or_more(KindName)] = Field(
        default=[],
        description="kinds that are looked for in every text: e-mail addresses, card numbers "
        "(Luhn), IBANs (check digits), bearer tokens, JWTs and keys of common services, passwords "
        "after their name",
    )
    pattern: Pattern | None = Field(
        None,
        description="a pattern (RE2) that is looked for in every text; if it has a group named "
        "`secret`, only the group is redacted",
    )
    action: Action = Field(
        "mask",
        description="`mask`: write `***`; `remove`: delete it; `pseudonym`: write a token made "
        "with `key`, the same for the same value everywhere",
    )

    @model_validator(mode="after")
    def _one_thing(self) -> RedactRule:
        if self.kind and self.pattern is not None:
            raise ValueError("`kind` and `pattern` are two rules: write two entries")
        if not (self.field or self.kind or self.pattern):
            raise ValueError("write what to redact: `field`, `kind` or `pattern`")
        return self


class RedactOptions(Options):
    """The rules of redaction. A list of them may be written without `rules`."""

    rules: list[RedactRule] = Field(default=[], description="the rules, in their order")
    key: Secret | None = Field(
        None,
        description="the key of pseudonyms, at least 16 characters; with another key the same "
        "value gets another token",
    )

    @model_validator(mode="after")
    def _keyed(self) -> RedactOptions:
        pseudonyms = any(rule.action == "pseudonym" for rule in self.rules)
        if pseudonyms and self.key is None:
            raise ValueError("`action: pseudonym` needs a `key`, like ${credential:pseudonym_key}")
        if self.key is not None and len(self.key) < _LEAST_KEY_CHARACTERS:
            raise ValueError(f"`key` must have at least {_LEAST_KEY_CHARACTERS} characters")
        return self


Redact = Annotated[
    RedactOptions,
    BeforeValidator(_long_form, json_schema_input_type=list[RedactRule] | RedactOptions),
]
"""`redact:`: a list of rules, or the block with them and the key."""


def key_id(key: str) -> str:
    """Eight digits that identify a key; the key cannot be computed from them."""
    import hmac  # as the rules: only redaction needs it

    return hmac.digest(key.encode(), b"siemrelay key id", "sha256").hex()[:8]
