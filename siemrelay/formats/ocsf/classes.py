"""The numbers of OCSF 1.5.0 for events: classes, activities, severities and statuses."""

from __future__ import annotations

from typing import Final, NamedTuple

from siemrelay.formats.classify import Action, Subject, classify
from siemrelay.formats.writing.address import is_ip

VERSION: Final = "1.5.0"

# The longest `ip_t` (OCSF, data types); a longer spelling of an address goes as a name.
IP_CHARACTERS: Final = 40


class Class(NamedTuple):
    """An event class, the category it is in, and one of its activities."""

    uid: int
    category_uid: int
    activity_id: int

    @property
    def type_uid(self) -> int:
        """100 times `class_uid` + `activity_id` (OCSF, `type_uid`)."""
        return self.uid * 100 + self.activity_id


OTHER: Final = 99
BASE_EVENT: Final = Class(0, 0, OTHER)
ACCOUNT_CHANGE: Final = 3001
AUTHENTICATION: Final = 3002
ENTITY_MANAGEMENT: Final = 3004
API_ACTIVITY: Final = 6003

_CLASSES: Final[dict[Subject, int]] = {
    "account": ACCOUNT_CHANGE, "session": AUTHENTICATION, "api": API_ACTIVITY,
    "group": ENTITY_MANAGEMENT, "configuration": ENTITY_MANAGEMENT, "entity": ENTITY_MANAGEMENT,
}  # fmt: skip

_ACTIVITIES: Final[dict[int, dict[Action, int]]] = {
    ACCOUNT_CHANGE: {
        "create": 1, "enable": 2, "change password": 3, "reset password": 4, "disable": 5,
        "delete": 6, "grant": 7, "revoke": 8, "lock": 9,
    },
    AUTHENTICATION: {"logon": 1, "logoff": 2},
    ENTITY_MANAGEMENT: {
        "create": 1, "read": 2, "update": 3, "delete": 4, "enable": 8, "disable": 9,
    },
    API_ACTIVITY: {"create": 1, "read": 2, "update": 3, "delete": 4},
}  # fmt: skip

# The event's 0 to 10 as 1 informational, 2 low, 3 medium, 4 high, 5 critical.
SEVERITIES: Final = (1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5)
STATUSES: Final = {"success": 1, "failure": 2}


def class_of(kind: str, category: str) -> Class:
    """The class that an event of that type and category belongs to, and what was done."""
    subject, action = classify(kind, category)
    uid = _CLASSES.get(subject)
    if uid is None:
        return BASE_EVENT
    return Class(uid, uid // 1000, _ACTIVITIES[uid].get(action, OTHER))


def fits_ip_type(address: str) -> bool:
    """Whether an endpoint's `ip` takes the address; if not, it goes as the endpoint's name."""
    return len(address) <= IP_CHARACTERS and is_ip(address)
