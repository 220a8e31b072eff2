"""Windows events as Snare writes them, and NXLog and others after it: `MSWinEventLog` and tabs.

The fields and their order are those of Snare's "Windows Event Output Format". They get the names
that Windows and NXLog have for them, which `products/windows.yaml` knows. Where the record has only
a text, accounts and addresses are read from its sections, as Windows lays them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from siemrelay.core.forgiving_json import forgiving_json

SNARE: Final = "MSWinEventLog"
BEGINNINGS: Final = (f"{SNARE}\t", f"{SNARE}#011")
"""The second is what rsyslog makes of it: by default it escapes tabs."""

_COLUMNS: Final = (
    "", "Criticality", "Channel", "SnareCounter", "EventTime", "EventID", "SourceName", "",
    "AccountType", "EventType", "Hostname", "Category",
)  # fmt: skip
_ACCOUNT: Final = 7
_NUMBERS: Final = (1, 3, 5)
_ABSENT: Final = frozenset({"", "-", "N/A", "Unknown User", "NULL SID"})

# What follows the text: the number in the log, or a checksum.
_NUMBER: Final = re.compile(r"\d{1,20}", re.ASCII)
_CHECKSUM: Final = re.compile(r"[0-9A-Fa-f]{32}|-\d{1,20}", re.ASCII)

_GAP: Final = re.compile(r"\s{2,}|[\t\r\n]")
_MOST_CHARACTERS: Final = 64 << 10
"""Texts of Windows are shorter; of a longer one nothing is taken."""

_Labels = Mapping[str, str]
_Sections = Mapping[str, _Labels]


def _account(whose: str, sid: str = "UserSid") -> _Labels:
    return {
        "Security ID": f"{whose}{sid}", "Account Name": f"{whose}UserName",
        "Account Domain": f"{whose}DomainName", "Logon ID": f"{whose}LogonId",
        "Logon Type": "LogonType",
    }  # fmt: skip


_SUBJECT: Final[_Sections] = {"Subject": _account("Subject")}
_LOGON: Final[_Sections] = {
    **_SUBJECT, "Logon Information": {"Logon Type": "LogonType"},
    "Process Information": {"Caller Process Name": "ProcessName", "Process Name": "ProcessName"},
    "Network Information": {
        "Workstation Name": "WorkstationName", "Source Network Address": "IpAddress",
        "Source Port": "IpPort",
    },
    "Detailed Authentication Information": {
        "Logon Process": "LogonProcessName", "Authentication Package": "AuthenticationPackageName",
    },
}  # fmt: skip
_KERBEROS: Final[_Sections] = {
    "Account Information": {
        "Security ID": "TargetUserSid", "User ID": "TargetUserSid",
        "Account Name": "TargetUserName", "Account Domain": "TargetDomainName",
        "Supplied Realm Name": "TargetDomainName",
    },
    "Service Information": {"Service Name": "ServiceName", "Service ID": "ServiceSid"},
    "Network Information": {"Client Address": "IpAddress", "Client Port": "IpPort"},
    "Additional Information": {"Result Code": "Status", "Failure Code": "Status"},
}  # fmt: skip
_TARGET: Final = _account("Target", "Sid")
_USER: Final[_Sections] = {
    **_SUBJECT, "New Account": _TARGET, "Target Account": _TARGET,
    "Account That Was Locked Out": _TARGET, "New Computer Account": _TARGET,
    "Target Computer": _TARGET, "Computer Account That Was Changed": _TARGET,
}  # fmt: skip
_GROUP: Final[_Sections] = {
    **_SUBJECT, "Member": {"Security ID": "MemberSid", "Account Name": "MemberName"},
    "Group": {
        "Security ID": "TargetSid", "Group Name": "TargetUserName",
        "Account Name": "TargetUserName", "Group Domain": "TargetDomainName",
        "Account Domain": "TargetDomainName",
    },
}  # fmt: skip
_OBJECT: Final[_Sections] = {
    **_SUBJECT, "Object": {"Object Type": "ObjectType", "Object Name": "ObjectName"},
    "Process Information": {"Process Name": "ProcessName"},
}  # fmt: skip
_TASK: Final[_Sections] = {**_SUBJECT, "Task Information": {"Task Name": "TaskName"}}
_SESSION: Final[_Sections] = {
    **_SUBJECT, "Additional Information": {"Client Address": "ClientAddress"},
}  # fmt: skip


def _of(numbers: str, sections: _Sections) -> Mapping[str, _Sections]:
    return dict.fromkeys(numbers.split(), sections)


_SECTIONS: Final[Mapping[str, _Sections]] = {
    **_of("1102 4616 4657 4672 4673 4719 4739 4794 4946 4950 5136", _SUBJECT),
    "4624": {**_LOGON, "New Logon": _account("Target")},
    "4625": {
        **_LOGON, "Account For Which Logon Failed": _account("Target"),
        "Failure Information": {
            "Failure Reason": "FailureReason", "Status": "Status", "Sub Status": "SubStatus",
        },
    },
    **_of("4634 4647", {"Subject": _account("Target")}),
    "4648": {
        **_SUBJECT, "Account Whose Credentials Were Used": _account("Target"),
        "Target Server": {"Target Server Name": "TargetServerName"},
        "Network Information": {"Network Address": "IpAddress", "Port": "IpPort"},
    },
    **_of("4656 4663 4670", _OBJECT),
    "4688": {
        **_SUBJECT, "Creator Subject": _account("Subject"), "Target Subject": _account("Target"),
        "Process Information": {
            "New Process Name": "NewProcessName", "Process Command Line": "CommandLine",
            "Creator Process Name": "ParentProcessName",
        },
    },
    "4697": {
        **_SUBJECT,
        "Service Information": {
            "Service Name": "ServiceName", "Service File Name": "ServiceFileName",
        },
    },
    **_of("4698 4699 4702", _TASK),
    **_of("4720 4722 4723 4724 4725 4726 4738 4740 4741 4742 4743 4767", _USER),
    **_of("4728 4729 4732 4733 4735 4737 4755 4756 4757", _GROUP),
    **_of("4768 4769 4771", _KERBEROS),
    "4776": {
        "": {"Logon Account": "TargetUserName", "Source Workstation": "Workstation",
             "Error Code": "Status"},
    },
    **_of("4778 4779", _SESSION),
    "5140": {
        **_SUBJECT, "Share Information": {"Share Name": "ShareName"},
        "Network Information": {"Source Address": "IpAddress", "Source Port": "IpPort"},
    },
}  # fmt: skip
"""The sections of the Security log's events by their number, and what their labels stand for."""


def snare_fields(text: str) -> dict[str, Any] | None:
    """The fields of a message that begins as one of `BEGINNINGS`; None in another form."""
    if text.startswith(BEGINNINGS[1]):
        text = text.replace("#011", "\t").replace("#012", "\n").replace("#015", "\r")
    values = text.split("\t")
    if len(values) > 2 and values[2].startswith("{") and values[1].isdecimal():
        return _document(text.split("\t", 2)[2])
    if len(values) <= len(_COLUMNS) or not all(values[i].isdecimal() for i in _NUMBERS):
        return None
    fields: dict[str, Any] = {
        name: value for name, value in zip(_COLUMNS, values, strict=False)
        if name and value not in _ABSENT
    }  # fmt: skip
    domain, _, account = values[_ACCOUNT].rpartition("\\")
    if account not in _ABSENT:
        fields["AccountName"] = account
        if domain:
            fields["Domain"] = domain
    rest = values[len(_COLUMNS) :]
    if len(rest) > 1 and rest[-1].startswith("EventSourceId="):
        rest.pop()
    if len(rest) > 1 and _NUMBER.fullmatch(rest[-1]):
        number = rest.pop().lstrip("0")
        if number:
            fields["RecordNumber"] = number
    elif len(rest) > 1 and _CHECKSUM.fullmatch(rest[-1]):
        rest.pop()
    message = "\t".join(rest).strip()
    if fields.get("Channel") == "Security" and len(message) <= _MOST_CHARACTERS:
        fields |= _in_sections(message, _SECTIONS.get(fields["EventID"], {}))
    return {**fields, "Message": message} if message else fields


def _document(text: str) -> dict[str, Any] | None:
    """NXLog's other form: all fields as one JSON object."""
    try:
        found = forgiving_json(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _in_sections(message: str, sections: _Sections) -> dict[str, str]:
    """The values in a message's sections.

    Anybody who tries to sign in chooses some of them, and may write further labels into them. Then
    a section or a label comes twice, and neither is taken.
    """
    if not sections:
        return {}
    found, met = dict[str, str](), set[str]()
    for section, label, value in _labelled(message, sections):
        if not label:
            if section in met:
                return {}
            met.add(section)
            continue
        name = sections[section][label]
        if name in met:
            return {}
        met.add(name)
        if value not in _ABSENT:
            found[name] = value
    return found


def _labelled(message: str, sections: _Sections) -> Iterator[tuple[str, str, str]]:
    """Section, label and value; a section's own line comes with an empty label."""
    pieces = [piece for piece in map(str.strip, _GAP.split(message)) if piece]
    section, known = "", sections.get("", {})
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=True):
        label, colon, value = piece.partition(":")
        if not colon:
            continue
        if label in known:
            value = value.strip() or ("" if _is_label(following, known) else following)
            yield section, label, value
        elif not value:
            if label in sections:
                section, known = label, sections[label]
                yield section, "", ""
            elif _is_label(following, ()):  # a section of which nothing is wanted
                section, known = "", {}


def _is_label(piece: str, known: Iterable[str]) -> bool:
    """Whether no value stands here: a label alone, or one that is known with its value."""
    return piece.endswith(":") or piece.partition(":")[0] in known
