"""The categories and types of ECS 8.11 for events, and the targets that are users.

The values of `event.kind`, `event.category` and `event.type` are those of "ECS Categorization
Fields", the types those that its category expects.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from siemrelay.core.event_types import UNPARSED
from siemrelay.formats.classify import Action, classify

VERSION: Final = "8.11.0"

_CHANGES: Final[dict[Action, str]] = {
    "create": "creation", "delete": "deletion", "": "info", "read": "info",
}  # fmt: skip
"""`event.type` by action; every other action is a change."""


class Categorization(NamedTuple):
    """`event.category` and `event.type`, both None if none fits, and the kind of the target."""

    category: list[str] | None = None
    type: list[str] | None = None
    of: Literal["user", "group", ""] = ""


def categorize(kind: str, category: str) -> Categorization:
    """The ECS categorization of events of that type and category."""
    subject, action = classify(kind, category)
    change = _CHANGES.get(action, "change")
    if subject == "account":
        return Categorization(["iam"], ["user", change], "user")
    if subject == "group":
        return Categorization(["iam"], ["group", change], "group")
    if subject == "entity":
        return Categorization(["iam"], ["admin", change])
    if subject == "session":
        if action == "logon":
            return Categorization(["authentication"], ["start"])
        if action == "logoff":
            return Categorization(["authentication", "session"], ["end"])
        return Categorization(["session"], ["info"])
    if subject in ("api", "configuration"):
        return Categorization([str(subject)], ["access" if action == "read" else change])
    return Categorization()


def event_kind(kind: str) -> str:
    """`event.kind` of events of that type."""
    return "pipeline_error" if kind == UNPARSED else "event"


# Types of targets that are users in events of any category.
USERS: Final = frozenset({"user", "User", "USER", "account", "Account", "ACCOUNT"})
