"""Palo Alto's firewalls and Panorama: the CSV that PAN-OS writes over syslog.

The names and their order are those of "Syslog Field Descriptions" (PAN-OS 9.1 to 12.1, the format
that is not customised). Newer versions append columns: those without a name here are `columnN`.
A row whose sequence number and action flags do not stand where its log type has them is of a
custom format, or a value in it has shifted the others: it is no row.
"""

from __future__ import annotations

import re
from typing import Any, Final

from siemrelay.wire.framing.csv_rows import Dialect, named

_COMMON: Final = "future_use receive_time serial type subtype config_version time_generated"
_GROUPS: Final = "dg_hier_level_1 dg_hier_level_2 dg_hier_level_3 dg_hier_level_4"
_DEVICE: Final = f"seqno actionflags {_GROUPS} vsys_name device_name"
_SESSION: Final = (
    "src dst natsrc natdst rule srcuser dstuser app vsys from to inbound_if outbound_if logset - "
    "sessionid repeatcnt sport dport natsport natdport flags proto action"
)
_CHANGE: Final = "host vsys cmd admin client result path"

_COLUMNS: Final = {
    log_type: tuple(f"{_COMMON} {names}".split())
    for log_type, names in {
        "TRAFFIC": f"{_SESSION} bytes bytes_sent bytes_received packets start elapsed category - "
        "seqno actionflags srcloc dstloc - pkts_sent pkts_received session_end_reason "
        f"{_GROUPS} vsys_name device_name action_source src_uuid dst_uuid tunnelid monitortag "
        "parent_session_id parent_start_time tunnel assoc_id chunks chunks_sent chunks_received "
        "rule_uuid http2_connection",
        "THREAT": f"{_SESSION} misc threatid category severity direction seqno actionflags srcloc "
        "dstloc - contenttype pcap_id filedigest cloud url_idx user_agent filetype xff referer "
        f"sender subject recipient reportid {_GROUPS} vsys_name device_name - src_uuid dst_uuid "
        "http_method tunnelid monitortag parent_session_id parent_start_time tunnel thr_category "
        "contentver - assoc_id ppid http_headers url_category_list rule_uuid http2_connection",
        "SYSTEM": f"vsys eventid object - - module severity opaque {_DEVICE} - - "
        "high_res_timestamp",
        "CONFIG": f"{_CHANGE} {_DEVICE} dg_id comment - high_res_timestamp",
        "GLOBALPROTECT": "vsys eventid stage auth_method tunnel_type srcuser srcregion machinename "
        "public_ip public_ipv6 private_ip private_ipv6 hostid serialnumber client_ver client_os "
        "client_os_ver repeatcnt reason error opaque status location login_duration "
        "connect_method error_code portal seqno actionflags high_res_timestamp selection_type "
        f"response_time priority attempted_gateways gateway {_GROUPS} vsys_name device_name "
        "vsys_id",
        "AUTHENTICATION": "vsys ip user normalize_user object authpolicy repeatcnt authid vendor "
        f"logset serverprofile desc clienttype event factorno {_DEVICE} vsys_id authproto "
        "rule_uuid high_res_timestamp",
        "USERID": "vsys ip user datasourcename eventid repeatcnt timeout beginport endport "
        f"datasource datasourcetype {_DEVICE} vsys_id factortype factorcompletiontime factorno "
        "ugflags userbysource tag_name high_res_timestamp",
        "HIPMATCH": "srcuser vsys machinename os src matchname repeatcnt matchtype - - "
        f"{_DEVICE} vsys_id srcipv6 hostid serialnumber mac high_res_timestamp",
        "IPTAG": "vsys ip tag_name event_id repeatcnt timeout datasourcename datasource_type "
        f"datasource_subtype {_DEVICE} vsys_id high_res_timestamp",
    }.items()
}  # fmt: skip
# Versions that write what a change replaces put it before the sequence number.
_DETAILED: Final = tuple(
    f"{_COMMON} {_CHANGE} before_change_detail after_change_detail {_DEVICE} dg_id comment - "
    "high_res_timestamp".split()
)
_OTHERS: Final = dict.fromkeys(
    ("CORRELATION", "DECRYPTION", "GTP", "SCTP", "TUNNEL", "AUDIT"), tuple(_COMMON.split())
)
"""Of these only what is common to all is known by name."""
_KNOWN: Final = _COLUMNS | _OTHERS

_TIME: Final = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d"
# A firewall without a licence has the serial number `unknown`; some have letters in it.
_BEGINNING: Final = re.compile(rf"[01],{_TIME},[0-9A-Za-z]{{1,32}},({'|'.join(_KNOWN)}),", re.ASCII)
_HIGH_RESOLUTION: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII
)
_KIND: Final = re.compile(r"[A-Za-z][\w-]{0,63}", re.ASCII)
_ABSENT: Final = frozenset({"", "-", "0.0.0.0", "::", "N/A"})
_CSV: Final = Dialect()

# Where a log type has the subtype `0`, one of these says what happened.
_KINDS: Final = ("subtype", "eventid", "cmd")
_FIELDS: Final = {
    "severity": ("severity",),
    "actor.name": ("srcuser", "admin", "user"),
    "actor.address": ("src", "ip", "public_ip", "public_ipv6", "host", "srcipv6"),
    "target.name": ("dstuser", "dst", "object", "path", "portal"),
    "message": ("opaque", "desc"),
}
"""Event field → columns that may have it, in order."""

_SAYS_OUTCOME: Final = ("action", "result", "status", "eventid", "event")
_OUTCOMES: Final = {
    **dict.fromkeys(("allow", "alert", "succeeded", "success", "auth-success"), "success"),
    **dict.fromkeys(
        ("deny", "drop", "drop-all-packets", "drop icmp", "reset both", "reset client",
         "reset server", "reset-both", "reset-client", "reset-server", "block-url", "block-ip",
         "random-drop", "sinkhole", "failed", "failure", "unauthorized", "auth-fail"), "failure"),
}  # fmt: skip


def pan_os_fields(text: str) -> dict[str, Any] | None:
    """The fields of a PAN-OS log under the event's names, the others as they are; None if none.

    The type is the log type and its subtype, event or command: `SYSTEM auth`, `CONFIG commit`.
    """
    begun = _BEGINNING.match(text)
    values = None if begun is None else _CSV.values(text)
    if begun is None or values is None:
        return None
    log_type = begun[1]
    columns = _named(_KNOWN[log_type], values)
    if columns is None and log_type == "CONFIG":
        columns = _named(_DETAILED, values)
    if columns is None:
        return None
    kinds = (columns[name] for name in _KINDS if name in columns)
    kind = next((kind for kind in kinds if kind not in ("", "0")), "")
    fields = {"type": f"{log_type} {kind}" if _KIND.fullmatch(kind) else log_type}
    number, generated = columns.get("seqno", "0"), columns["time_generated"]
    if number.strip("0"):
        # A number may begin anew after a reset.
        fields["id"] = f"{columns['serial']}/{log_type}/{number}/{generated}"
    exact = columns.get("high_res_timestamp", "")
    # It has a zone; firewalls that do not keep it write one of 1969.
    is_exact = exact[:4] == generated[:4] and _HIGH_RESOLUTION.fullmatch(exact)
    fields["time"] = columns.pop("high_res_timestamp") if is_exact else generated
    said = (_OUTCOMES.get(columns.get(name, "").casefold()) for name in _SAYS_OUTCOME)
    fields["outcome"] = next(filter(None, said), "unknown")
    for field, names in _FIELDS.items():
        name = next((name for name in names if columns.get(name, "") not in _ABSENT), None)
        if name is not None:
            fields[field] = columns.pop(name)
    kept = {name: value for name, value in columns.items() if value}
    return {**fields, "attributes": kept}


def _named(names: tuple[str, ...], values: list[str]) -> dict[str, str] | None:
    """The values by their columns' names; None if they are not these columns."""
    columns = named(names, values)
    if columns is None or "time_generated" not in columns:
        return None
    columns.pop("-", None)
    columns.pop("future_use", None)
    if "seqno" in names and not (
        columns.get("seqno", "").isdecimal() and columns.get("actionflags", "").startswith("0x")
    ):
        return None
    return columns
