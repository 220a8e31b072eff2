"""Where ECS 8.11 has events and what is in them: categories, types, users.

The values of `event.kind`, `event.category` and `event.type` are those of "ECS Categorization
Fields", the types those that its category expects.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from siemrelay.core.event_types import UNPARSED
from siemrelay.formats.classify import Action, meaning

VERSION: Final = "8.11.0"

_CHANGES: Final[dict[Action, str]] = {
    "create": "creation", "delete": "deletion", "": "info", "read": "info",
}  # fmt: skip
"""The event type of what was done; whatever is not here is a change."""


class Sorted(NamedTuple):
    """`event.category` and `event.type`, both None where none fits, and what the target is."""

    category: list[str] | None = None
    type: list[str] | None = None
    of: Literal["user", "group", ""] = ""


def categorised(kind: str, category: str) -> Sorted:
    """Where ECS has events of that type and category."""
    subject, action = meaning(kind, category)
    change = _CHANGES.get(action, "change")
    if subject == "account":
        return Sorted(["iam"], ["user", change], "user")
    if subject == "group":
        return Sorted(["iam"], ["group", change], "group")
    if subject == "entity":
        return Sorted(["iam"], ["admin", change])
    if subject == "session":
        if action == "logon":
            return Sorted(["authentication"], ["start"])
        if action == "logoff":
            return Sorted(["authentication", "session"], ["end"])
        return Sorted(["session"], ["info"])
    if subject in ("api", "configuration"):
        return Sorted([str(subject)], ["access" if action == "read" else change])
    return Sorted()


def event_kind(kind: str) -> str:
    """`event.kind` of events of that type."""
    return "pipeline_error" if kind == UNPARSED else "event"


# Target types that are users wherever they are met.
USERS: Final = frozenset({"user", "User", "USER", "account", "Account", "ACCOUNT"})
