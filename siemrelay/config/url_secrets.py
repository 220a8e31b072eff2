"""Secrets inside URLs: passwords, tokens in parameters, and paths of webhooks.

The URL of an incoming webhook (`https://hooks.slack.com/services/T000/B000/SECRET`), an address
with a shared access signature (`?sv=…&sig=…`) and a collector's address with its token are
credentials. Which part is the secret, its form tells: what no person would choose as a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from siemrelay.core.options import URL_PASSWORD

# One parameter of a URL; the endings of parameter names whose value is a secret.
_PARAMETER: Final = re.compile(r"(?P<start>[?&;](?P<name>[^=&;#\s]+)=)(?P<value>[^&;#\s]+)")
_SECRET_NAME: Final = re.compile(
    r".*(?:token|secret|password|passwd|pwd|signature|(?:api|access|auth|shared)[-_.]?key)"
    r"|key|sig|auth|authorization|code",
    re.IGNORECASE,
)

_URL: Final = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"`<>]+")
_USER_ALONE: Final = re.compile(r"(?<=://)[^/\s:@]+(?=@)")
_REFERENCE: Final = re.compile(r"\$\{[^}]*\}")

# `hooks.slack.com`, `webhook.site`; `/api/webhooks/`, `/webhookb2/`.
_HOOK_HOST: Final = re.compile(r"(?:.*\.)?(?:web)?hooks?\.[a-z0-9-]+(?:\.[a-z0-9-]+)*[a-z]$", re.I)
_HOOK_PATH: Final = re.compile(r"/(?:incoming)?-?web-?hook[a-z0-9]{0,3}/", re.IGNORECASE)

# Letters and digits mixed without a break for so long are no word; so are digests and UUIDs.
_RUN: Final = re.compile(r"[A-Za-z0-9]{16,}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# Hosts of Microsoft whose paths have the ids of tenants and subscriptions, which are no secrets.
_TENANTS: Final = re.compile(
    r"(?:login\.microsoftonline|graph\.microsoft|management\.azure|manage(?:-\w+)?\.office)"
    r"\.(?:com|us)",
    re.IGNORECASE,
)
_CASES: Final = re.compile(r"(?=.*[a-z])(?=.*[A-Z])[A-Za-z]{20,}")


# The end of a webhook's path that is shorter may be a word, which is not redacted elsewhere.
_NO_WORD: Final = 8


def url_secrets(text: str, *, also_words: bool = False) -> Iterator[str]:
    """Every secret in every URL of a text, as it is written there.

    `also_words`: also ends of a webhook's path that may be common words.
    """
    for found in _URL.finditer(text) if "://" in text else ():
        url = found[0]
        if password := URL_PASSWORD.search(url):
            yield password["password"]
        elif url.lower().startswith("http") and (user := _USER_ALONE.search(url)):
            yield user[0]
        for parameter in _PARAMETER.finditer(url):
            value = parameter["value"]
            if _SECRET_NAME.fullmatch(parameter["name"]) or _looks_random(value):
                yield value
        if url.lower().startswith("http"):
            yield from _in_path(url, also_words=also_words)


def without_url_secrets(text: str) -> str:
    """A text with `***` for the secrets in its URLs; a `${...}` stays."""
    if "://" not in text:
        return text

    def hidden(found: re.Match[str]) -> str:
        url = found[0]
        for secret in sorted(url_secrets(url, also_words=True), key=len, reverse=True):
            if not _REFERENCE.fullmatch(secret):
                url = re.sub(rf"(?<=[/=:?&]){re.escape(secret)}(?=[/&;#@]|$)", "***", url)
        return url

    return _URL.sub(hidden, text)


def last_segment(url: str) -> str:
    """The last part of a URL's path; empty if it has none."""
    return _path_of(url).rstrip("/").rpartition("/")[2]


def _in_path(url: str, *, also_words: bool) -> Iterator[str]:
    path = _path_of(url)
    host = re.sub(r"^[^:]+://(?:[^/@]*@)?", "", url)
    host = re.split(r"[:/?#]", host, maxsplit=1)[0]
    ids = _UUID if _TENANTS.fullmatch(host) else None
    for segment in path.split("/"):
        if _looks_random(segment) and not (ids and ids.fullmatch(segment)):
            yield segment
    if _HOOK_HOST.fullmatch(host) or (_HOOK_PATH.search(path) and _names_a_machine(host)):
        last = last_segment(url)
        if not _looks_random(last) and len(last) >= (1 if also_words else _NO_WORD):
            yield last


def _names_a_machine(host: str) -> bool:
    """Whether a host is a name in DNS: this relay's own addresses are written as numbers."""
    return "." in host and host[-1:].isalpha()


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _looks_random(text: str) -> bool:
    if "$" in text:
        return False  # a reference, which is shown
    if _UUID.search(text) or _CASES.search(text):
        return True
    return any(
        any(c.isdigit() for c in run[0]) and any(c.isalpha() for c in run[0])
        for run in _RUN.finditer(text)
    )
