"""The subject and the action of an event, for formats that sort events into classes.

They follow from the category if it is one of those of the products' types. Otherwise they follow
from the type: by the catalogue if it is one of the relay's own, else by the words of its name.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal, NamedTuple

from siemrelay.core.event_types import Catalogue, separate_words

Subject = Literal["account", "group", "session", "api", "configuration", "entity", ""]
Action = Literal[
    "create", "read", "update", "delete", "enable", "disable", "lock", "logon", "logoff",
    "change password", "reset password", "grant", "revoke", "",
]  # fmt: skip


class Classification(NamedTuple):
    """The subject of an event and the action on it; both are empty if unknown."""

    subject: Subject
    action: Action


# The categories of the products' types; those of the relay's own have no subject. Checked by
# test_every_category_of_a_product_has_a_subject.
_BY_CATEGORY: Final[dict[str, Subject]] = {
    "account": "account", "user": "account", "user-management": "account", "group": "group",
    "session": "session", "runtime-access": "api", "integration": "api", "api": "api",
    "configuration": "configuration", "template": "configuration",
    "approval": "entity", "lifecycle": "entity", "provision": "entity", "request": "entity",
}  # fmt: skip

_BY_WORD: Final[tuple[tuple[Subject, frozenset[str]], ...]] = (
    ("session", frozenset({"login", "logon", "logout", "logoff", "logged", "signin", "session"})),
    ("group", frozenset({"group", "groups"})),
    ("account", frozenset({"account", "user", "password", "member"})),
    ("configuration", frozenset({"config", "configuration", "policy", "setting", "settings"})),
)

# The first row with one of a type's words counts: the more specific action comes first.
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


def classify(kind: str, category: str) -> Classification:
    """The subject and the action of an event of that type and category."""
    found = frozenset(separate_words(kind).split())
    known = None if category in _BY_CATEGORY else _built_in().find(kind)
    if category in _BY_CATEGORY or known:
        subject = _BY_CATEGORY.get(known.category if known else category, "")
    else:
        subject = next((subject for subject, known_words in _BY_WORD if known_words & found), "")
    if subject == "account" and "group" in found and "user" not in found:
        subject = "group"  # the categories for users have types about groups, too
    return Classification(
        subject, _session_action(found) if subject == "session" else _action(found)
    )


def _session_action(found: frozenset[str]) -> Action:
    if found & {"logout", "logoff", "signout", "out", "expired", "end", "ended", "off"}:
        return "logoff"
    return "logon" if found & {"login", "logon", "signin", "in", "on", "start", "started"} else ""


def _action(found: frozenset[str]) -> Action:
    if "password" in found:
        return "reset password" if found & {"reset", "forgot", "forgotten"} else "change password"
    return next((action for action, known_words in _ACTIONS if known_words & found), "")
