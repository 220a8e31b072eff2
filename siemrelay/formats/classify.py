"""What an event is about and what happened there, for formats that sort events into classes.

The category decides where it is one of the catalogue's; a record with a category of its own is
sorted by what the catalogue says of its type, and a type that nobody knows by its words.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal, NamedTuple

from siemrelay.core.event_types import Catalogue, words

Subject = Literal["account", "group", "session", "api", "configuration", "entity", ""]
Action = Literal[
    "create", "read", "update", "delete", "enable", "disable", "lock", "logon", "logoff",
    "change password", "reset password", "grant", "revoke", "",
]  # fmt: skip


class Meaning(NamedTuple):
    """Both are empty where nothing is known."""

    subject: Subject
    action: Action


# The categories of the built-in types; the relay's own have no subject.
_BY_CATEGORY: Final[dict[str, Subject]] = {
    "account": "account", "user": "account", "user-management": "account", "group": "group",
    "session": "session", "runtime-access": "api", "integration": "api",
    "configuration": "configuration", "template": "configuration",
    "approval": "entity", "lifecycle": "entity", "provision": "entity", "request": "entity",
}  # fmt: skip

_BY_WORD: Final[tuple[tuple[Subject, frozenset[str]], ...]] = (
    ("session", frozenset({"login", "logon", "logout", "logoff", "logged", "signin", "session"})),
    ("group", frozenset({"group", "groups"})),
    ("account", frozenset({"account", "user", "password", "member"})),
    ("configuration", frozenset({"config", "configuration", "policy", "setting", "settings"})),
)

# The first row that has one of a type's words: what is more telling stands before.
_ACTIONS: Final[tuple[tuple[Action, frozenset[str]], ...]] = (
    ("grant", frozenset({"grant", "granted", "assign", "assigned"})),
    ("revoke", frozenset({"revoke", "revoked", "unassign", "unassigned"})),
    ("delete", frozenset({"delete", "deleted", "remove", "removed", "deprovisioned"})),
    ("disable", frozenset({"disable", "disabled", "deactivated", "suspended", "expired"})),
    ("enable", frozenset({"enable", "enabled", "activated", "unlocked", "unlock"})),
    ("lock", frozenset({"lock", "locked"})),
    ("update", frozenset({
        "update", "updated", "change", "changed", "edit", "edited", "modify", "modified",
        "rename", "renamed",
    })),
    ("create", frozenset({
        "create", "created", "new", "add", "added", "provisioned", "registered", "invited",
    })),
    ("read", frozenset({"read", "view", "viewed", "downloaded", "exported"})),
)  # fmt: skip


_built_in: Final = cache(Catalogue)


def meaning(kind: str, category: str) -> Meaning:
    """The meaning of an event of that type and category."""
    heard = frozenset(words(kind).split())
    known = None if category in _BY_CATEGORY else _built_in().find(kind)
    if category in _BY_CATEGORY or known:
        subject = _BY_CATEGORY.get(known.category if known else category, "")
    else:
        subject = next((subject for subject, said in _BY_WORD if said & heard), "")
    if subject == "account" and "group" in heard and "user" not in heard:
        subject = "group"  # who manages users manages their groups
    return Meaning(subject, _of_session(heard) if subject == "session" else _action(heard))


def _of_session(heard: frozenset[str]) -> Action:
    if heard & {"logout", "logoff", "signout", "out", "expired", "ended", "off"}:
        return "logoff"
    return "logon" if heard & {"login", "logon", "signin", "in", "on", "started"} else ""


def _action(heard: frozenset[str]) -> Action:
    if "password" in heard:
        return "reset password" if heard & {"reset", "forgot", "forgotten"} else "change password"
    return next((action for action, said in _ACTIONS if said & heard), "")
