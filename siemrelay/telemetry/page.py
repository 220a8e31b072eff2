"""The status page: one HTML file that fetches `/overview` and `/history` from its relay.

It loads nothing from elsewhere, and its content security policy allows just its own style and
script, by their digests: a name or a message from outside cannot become markup or code.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec

from siemrelay.net.http_application import HttpAnswer
from siemrelay.telemetry.attention import Attention
from siemrelay.telemetry.status import RelayReport

_INLINE: Final = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


class RecentEvent(msgspec.Struct, frozen=True):
    """One of the newest stored events; the last three only with `endpoint.show_events`."""

    received_at: float
    source: str
    sequence: int
    type: str
    outcome: str
    actor: str = ""
    target: str = ""
    message: str = ""


class RecentReport(msgspec.Struct, frozen=True):
    """The newest events, the latest first; `contents`: with actor, target and message."""

    contents: bool
    events: list[RecentEvent]


class OverviewReport(msgspec.Struct, frozen=True):
    """All that the page shows and that changes every second."""

    status: RelayReport
    attention: list[Attention]
    recent: RecentReport


@cache
def page() -> HttpAnswer:
    """The page with its headers."""
    html = (files("siemrelay.telemetry") / "page.html").read_text(encoding="utf-8")
    digests: dict[str, list[str]] = {"style": [], "script": []}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        digests[kind].append(f"'sha256-{digest}'")
    policy = (
        f"default-src 'none'; style-src {' '.join(digests['style'])}; "
        f"script-src {' '.join(digests['script'])}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    fields = (
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept"),
    )
    return HttpAnswer(200, html.encode(), fields, content_type="text/html; charset=utf-8")
