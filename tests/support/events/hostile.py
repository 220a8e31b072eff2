"""Events as hostile senders write them, through the decoder that reads them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from siemrelay.core.event import FIELDS, AuditEvent
from siemrelay.core.forgiving_json import forgiving_json
from siemrelay.registry import DECODERS
from tests.support.daemon import event
from tests.support.events.products import CATALOGUE, GENERIC
from tests.support.events.strategies import batch_of

NAMES = [
    *FIELDS, *(field.replace(".", "_") for field in FIELDS), "attributes", "attributes.outcome",
    "attributes_outcome", "sequence", "siemrelay", "siemrelay.sequence", "event", "event.outcome",
    # CEF and LEEF
    "act", "src", "suser", "suid", "duser", "duid", "externalId", "cat", "rt", "msg", "cs1",
    "cs1Label", "c6a2Label", "devTime", "devTimeFormat", "sev", "usrName", "identHostName",
    # GELF, ECS, OCSF, OTLP, Elasticsearch, Splunk, Sentinel
    "version", "host", "short_message", "full_message", "timestamp", "level", "_id", "event_id",
    "@timestamp", "labels", "user", "source", "ecs", "target_type", "target_type_2", "unmapped",
    "metadata", "class_uid", "severityText", "body", "index", "sourcetype", "fields", "create",
    "TimeGenerated", "__proto__",
]  # fmt: skip
"""Names that mean something to a receiver."""

FORGERIES = [
    'x" outcome="FORGED', '"] [event@32473 outcome="FORGED"]', "x suser=FORGED cs1=FORGED",
    "x\\ suser\\=FORGED", "x\tusrName=FORGED", "x|y|9|src=6.6.6.6", '","outcome":"FORGED',
    '"},"outcome":"FORGED","x":{"y":"', "a\nCEF:0|FORGED|x|1|y|z|9|", "\r\n<13>1 - - FORGED - - -",
    'x (id="FORGED" outcome="FORGED")', 'x" (outcome="FORGED")', "\0", "\x1b[2J", "\x7f", "\x85",
    "\u2028", "\u2029", "\u202eDEGROF", "\ufeff", "\ud800", "\udfff", "\\", "a\\", '\\"', "]", "=",
    "|", "^", "`", "%s%n", "{0}", "${x}", "NULL", " ", "-", "x" * 20_000, "é" * 9_000,
]  # fmt: skip
"""Texts that end a value, a record or a screen's line somewhere, and go on with a field."""


def forged_events() -> list[dict[str, Any]]:
    """For each of these texts that fits into a datagram twice: an event, as a source writes it."""
    texts = [text.encode("utf-8", "replace").decode() for text in FORGERIES if len(text) < 1000]
    return [
        event(
            100 + number, message=f"m{text}", type=f"t{text}", actor={"name": f"a{text}"},
            attributes={text: text},
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip


TEXTS = st.one_of(
    st.sampled_from(FORGERIES),
    st.lists(st.sampled_from(FORGERIES), min_size=2, max_size=3).map("".join),
    st.text(st.sampled_from("".join(FORGERIES)), max_size=20),
)
_NAMES = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NAMES).map(lambda name: name.replace("_", " ").replace(".", "_")),
    TEXTS.map(lambda text: text.encode("utf-8", "replace").decode()[:60]),
)
_VALUES = st.recursive(
    TEXTS | st.integers(-(2**70), 2**70) | st.sampled_from([None, True, 0.5, 1e300]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_NAMES, inner, max_size=2),
    max_leaves=3,
)
ATTRIBUTES = st.lists(st.tuples(_NAMES, _VALUES), max_size=5)
"""Members of a JSON object; a name may come twice."""


def written(value: Any) -> str:
    """JSON; a list of pairs is an object that has each of them, even one of a name twice."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return "{" + ",".join(f"{json.dumps(n)}:{json.dumps(v)}" for n, v in value) + "}"
    return json.dumps(value)


ATTRIBUTE_DICTS = ATTRIBUTES.map(
    lambda pairs: forgiving_json(written(pairs).encode()) if pairs else {}
)
"""Attributes as a decoder gives them."""


@st.composite
def _records(draw: st.DrawFn) -> list[bytes]:
    """Records of one make: all of the same fields, so that the decoder learns their shape."""
    fields = [field for field in FIELDS if field not in ("time", "severity", "outcome")]
    there = draw(st.sets(st.sampled_from(fields))) | {"id", "type", "message"}
    records = []
    for _ in range(draw(st.integers(1, 3))):
        record: dict[str, Any] = {"time": "2024-03-01T08:00:00.123Z", "severity": 5}
        record["outcome"] = "failure"
        for field in fields:
            if field in there:
                whole, _, part = field.partition(".")
                text = draw(TEXTS)
                if part:
                    record.setdefault(whole, {})[part] = text
                else:
                    record[field] = f"m{text}" if field in ("message", "type") else text
        members = [f"{json.dumps(name)}:{written(value)}" for name, value in record.items()]
        attributes = draw(ATTRIBUTES)
        if attributes:
            members.append(f'"attributes":{written(attributes)}')
        records.append(f"{{{','.join(members)}}}".encode())
    return records


def decoded(records: list[bytes]) -> list[AuditEvent]:
    """The events of the records, decoded for somebody who wants every field."""
    decoder = DECODERS["json"].build(GENERIC, frozenset({*FIELDS, "attributes"}), CATALOGUE)
    return decoder.decode(batch_of(records)).events


RECORDS = _records()
EVENTS = RECORDS.map(decoded)
"""One to three events of one hostile sender."""
