"""`redact:`: no marked secret leaves the relay, in whatever format and however it was written."""

from __future__ import annotations

import json
import re
from collections import deque
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from siemrelay.cli.commands import main
from siemrelay.config.load import load_text
from siemrelay.core.event import AuditEvent, Batch, Selection, attributes_of, field_getter
from siemrelay.registry import FORMATS, build_format
from siemrelay.relay.assembly import Assembly
from siemrelay.relay.plan import plan
from siemrelay.sources.contract import Records
from siemrelay.transforms.redaction.kinds import KINDS, Finder
from siemrelay.transforms.redaction.options import Redact, key_id
from siemrelay.transforms.redaction.records import replace_texts, replace_values
from siemrelay.transforms.redaction.rules import Pseudonyms
from siemrelay.transforms.transform import EventTransform, TransformOptions, transform_of
from tests.support.events.formats import HOST, PLAIN
from tests.support.events.strategies import EVENTS, HOSTILE, selection_of
from tests.support.growth import grows_with_its_input
from tests.unit.config.test_example_files import environment

KEY = "k" * 16
READ = TypeAdapter(Redact).validate_python


def transform(redact: Any) -> EventTransform:
    made = transform_of(TransformOptions.model_validate({"redact": redact}))
    assert made is not None
    return made


SECRETS = {
    "email": "ada.lovelace+audit@mail.example.co.uk",
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl",
    "password": "password=Tr0ub4dor&3",
    "pattern": "ACME-123456",
}
"""What is written in a record, by the kind that finds it."""

LEAKS = {**SECRETS, "password": "Tr0ub4dor"}
"""What then may be nowhere."""


def rule_for(kind: str, action: str = "mask") -> dict[str, Any]:
    found = {"pattern": "ACME-[0-9]{6}"} if kind == "pattern" else {"kind": kind}
    return {"rules": [{**found, "action": action}], "key": KEY}


# -- kinds --


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("email", "mail ada@example.com, <bob.b@x-y.org>", ["ada@example.com", "bob.b@x-y.org"]),
        ("email", "Zoë@müller.example to user@host and a@b", ["Zoë@müller.example"]),
        ("card", "4111111111111111 4111-1111-1111-1111", ["4111111111111111",
                                                                 "4111-1111-1111-1111"]),
        ("card", "ref 1234 4111 1111 1111 1111 end", ["4111 1111 1111 1111"]),
        ("card", "4111111111111112 41111111111111111111111111 9999999999999995", []),
        ("card", "af620715466855361d9487773047f942 x4111111111111111", []),
        ("card", "2026-01-01 00:00:00.000 378282246310005", ["378282246310005"]),
        ("iban", "GB82WEST12345698765432, NO93 8601 1117 947.", ["GB82WEST12345698765432",
                                                               "NO93 8601 1117 947"]),
        ("iban", "DE89370400440532013001 XX89370400440532013000 DE89370400440532013000X", []),
        ("iban", "to DE89370400440532013000 FROM ADA", ["DE89370400440532013000"]),
        ("token", "Authorization: Bearer abc.def-123 Basic QWxhZGRpbg==",
         ["abc.def-123", "QWxhZGRpbg=="]),
        ("token", "key AKIAIOSFODNN7EXAMPLE and ghp_0123456789abcdefghijABCD",
         ["AKIAIOSFODNN7EXAMPLE", "ghp_0123456789abcdefghijABCD"]),
        ("token", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- x",
         ["-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"]),
        ("password", "user=ada password=x1 DB_PASSWORD: \"a b\" client_secret='q'",
         ["x1", "a b", "q"]),
        ("password", '{\\"apiKey\\":\\"s3\\"} userPassword=z the password is hunter2',
         ["s3", "z", "hunter2"]),
        ("password", "mysql --password hunter2 -x; psql postgres://ada:p@ss@db/x http://h:80/a@b",
         ["hunter2", "p@ss"]),
        ("email", "?to=ada%40example.com&x=%3Dbob%40example.com ada@example.com- <z@x.de_>",
         ["ada%40example.com", "%3Dbob%40example.com", "ada@example.com", "z@x.de"]),
        ("password", "bypass=1 compass: north passed: 3 secretary=Bob", []),
    ],
)  # fmt: skip
def test_a_kind_finds_what_is_real(kind: str, text: str, found: list[str]) -> None:
    assert [text[each.start : each.end] for each in KINDS[kind].find(text)] == found
    assert not found or KINDS[kind].hint(text)


@pytest.mark.parametrize("size", [100, 70_000, 200_000])
@pytest.mark.parametrize("kind", ["email", "token", "password"])
def test_in_long_texts_the_same_is_found_as_in_short_ones(kind: str, size: int) -> None:
    """Wherever the windows end in which it is looked for."""
    secret = {
        "email": "ada@example.com", "token": f"eyJ{'a' * 4000}.{'b' * 4000}.c",
        "password": f'password="{"x" * (size // 2)} y"',
    }[kind]  # fmt: skip
    for before in (0, 1, 500, 8_190, 57_340, 57_344, 57_350, 65_520, 65_536, 65_540):
        text = f"{'- ' * (before // 2)}{secret} {'. ' * (size // 2)}{secret} end"
        found = [text[each.start : each.end] for each in KINDS[kind].find(text)]
        one = secret.removeprefix('password="').removesuffix('"')
        assert found == [one, one], before


@pytest.mark.parametrize("group", ["0000 ", "00", "5 "])
def test_cards_in_a_very_long_run_of_digits_are_all_found(group: str) -> None:
    for before in (5, 3_960, 3_990, 4_000, 4_010, 7_950, 7_990, 8_000, 8_010, 120_000):
        text = group * (before // len(group)) + " 4111 1111 1111 1111 " + group * 40_000
        found = [text[each.start : each.end] for each in KINDS["card"].find(text)]
        assert "4111 1111 1111 1111" in found, before


@given(st.lists(st.sampled_from(["4111", "1111", " ", "-", "5", "x", "12", "0"]), max_size=40))
def test_cards_are_found_in_any_groups(pieces: list[str]) -> None:
    text = "".join(pieces)
    for found in KINDS["card"].find(text):
        assert text[found.start : found.end].replace(" ", "").replace("-", "") == found.value
        digits = [int(digit) for digit in reversed(found.value)]
        doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
        assert (sum(digits[::2]) + doubled) % 10 == 0
        assert 13 <= len(digits) <= 19


PIECES = [
    "a", "1", "1 ", "@", "a@", "a.", "AA00", "DE89 ", "4111 ", "password=", "pass_", '"', "\\",
    "eyJ", "eyJa.", "--", "--pass ", "://", "://a:", "%40", "%3D",
    "bearer ", "-----BEGIN PRIVATE KEY-----", "a.b-", "is ", "%+'",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_a_kind_takes_time_linear_in_the_text(piece: str) -> None:
    for kind in KINDS.values():

        def work(find: Finder, count: int) -> None:
            deque(find(piece * count), maxlen=0)

        grows_with_its_input(partial(work, kind.find, 500), partial(work, kind.find, 1000))


# -- every place and every format --


def places(secret: str) -> dict[str, dict[str, Any]]:
    """Records with the secret in one place each."""
    base = {"type": "User Logged In", "id": "e1", "user": "ada", "time": "2024-03-01T08:00:00Z"}
    return {
        "message": base | {"message": f"seen {secret} twice: {secret}"},
        "actor": base | {"user": secret},
        "target": base | {"target": {"name": secret, "id": f"({secret})"}},
        "type": base | {"type": f"Login {secret}"},
        "id": base | {"id": secret},
        "attribute": base | {"note": secret, "deep": {"list": [{"x": f"a {secret} b"}]}},
        "name": base | {"deep": {secret: "v"}},
    }


def written_as(record: dict[str, Any], how: str) -> tuple[str, bytes]:
    """The decoder, and the record as one of its senders writes it."""
    plain = json.dumps(record)
    escaped = (
        json.dumps(record).replace("@", "\\u0040").replace("1", "\\u0031").replace("o", "\\u006f")
    )
    text = " ".join(str(value) for value in record.values())
    head = "<13>1 2024-03-01T08:00:00Z host app 7 - - "
    match how:
        case "json":
            return "json", plain.encode()
        case "escaped json":
            return "json", escaped.encode()
        case "twice":  # the first is lost in decoding, and is in the bytes
            return "json", (plain[:-1] + ', "message": "x", "note": 1}').encode()
        case "syslog":
            return "syslog", (head + text).encode()
        case "json in syslog":
            return "syslog", (head + escaped).encode()
        case "cef":
            name = text.replace("\\", "\\\\").replace("|", "\\|").replace("=", "\\=")
            return "cef", f"CEF:0|v|p|1|{name}|{name}|5|msg={name} suser={name} cs1={name}".encode()
        case "key_value":
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            return "key_value", f'user="{quoted}" msg="{quoted}" other="{quoted}"'.encode()
    return "text", text.encode()


WAYS = ["json", "escaped json", "twice", "syslog", "json in syslog", "cef", "key_value", "text"]


def shown(message: bytes) -> str:
    """The message, and what it says once its escapes are undone."""
    text = message.decode()
    undone = re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)
    return f"{text}\n{undone}\n{text.replace(chr(92), '')}"


def assembled(decoder: str, redact: Any, *, at: str, format_name: str = "json") -> Assembly:
    return _assembled(decoder, json.dumps(redact), at, format_name)


@cache
def _assembled(decoder: str, redact: str, at: str, format_name: str) -> Assembly:
    source: dict[str, Any] = {"type": "stdin", "decoder": decoder}
    sink: dict[str, Any] = {"server": "192.0.2.1", "protocol": "tcp", "format": format_name}
    (source if at == "source" else sink)["redact"] = json.loads(redact)
    text = json.dumps({"sources": {"s": source}, "sinks": {"siem": sink}})
    return Assembly(load_text(text, "f.yaml", {}).config)


def messages(assembly: Assembly, *records: bytes) -> list[bytes]:
    parts = assembly.sink("siem")
    payload = b"".join(record + b"\n" for record in records)
    decoder = assembly.decoder("s", [parts])
    selection = Selection(decoder.decode(Batch(1, len(records), "s", 1.7e9, payload)))
    if parts.transform is not None:
        selection, _ = parts.transform.apply(selection)
    return list(parts.format.encode(selection))


@pytest.mark.parametrize("kind", SECRETS)
def test_no_secret_leaves_in_any_format(kind: str) -> None:
    for how in WAYS:
        written = [written_as(record, how) for record in places(SECRETS[kind]).values()]
        decoder = written[0][0]
        for name in FORMATS:
            made = assembled(decoder, rule_for(kind), at="sink", format_name=name)
            for message in messages(made, *(record for _, record in written)):
                assert LEAKS[kind] not in shown(message), (how, name)


EXAMPLES = sorted((Path(__file__).parents[3] / "config/examples").rglob("*.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_no_secret_leaves_in_what_a_receiver_wraps_around_messages(
    file: Path, tmp_path: Path
) -> None:
    text = file.read_text()
    variables = environment(text, tmp_path)
    config = yaml.safe_load(text)
    rules = [{"kind": [*KINDS]}, {"field": ["actor.name", "target.id", "attributes.note"]}]
    for sink in config["sinks"].values():
        sink["redact"] = rules
        sink.pop("sources", None)
    config = {"sources": {"s": {"type": "stdin"}}, "sinks": config["sinks"]}
    assembly = Assembly(load_text(json.dumps(config), str(file), variables).config)
    record = {"type": "User Logged In", "id": "e1", "user": "Zoe Muster", "time": 1_709_280_000,
              "target": {"id": "T-4711", "name": "db"}, "note": "N-0815",
              "message": " ".join(LEAKS[kind] for kind in KINDS if kind != "password")}  # fmt: skip
    written = json.dumps(record).encode() + b"\n"
    for name in config["sinks"]:
        parts = assembly.sink(name)
        decoded = assembly.decoder("s", [parts]).decode(Batch(1, 2, "s", 1.7e9, written * 2))
        assert parts.transform is not None
        for message in parts.format.encode(parts.transform.apply(Selection(decoded))[0]):
            for kind in KINDS:
                assert LEAKS[kind] not in shown(message), name
            for value in ("Zoe Muster", "T-4711", "N-0815"):
                assert value not in shown(message), name


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("how", WAYS)
def test_no_secret_reaches_the_disk_that_its_source_redacts(kind: str, how: str) -> None:
    for place, record in places(SECRETS[kind]).items():
        decoder, written = written_as(record, how)
        source_filter = assembled(decoder, rule_for(kind, "pseudonym"), at="source").source_filter(
            "s"
        )
        assert source_filter is not None
        stored, changed, *_ = source_filter.apply(Records(written + b"\n", 1))
        assert (stored.count, stored.payload.count(b"\n")) == (1, 1)
        assert LEAKS[kind] not in shown(stored.payload), place
        assert changed == 1
        clean = b'{"type":"x"}\n'
        untouched = Records(clean, 1)
        assert source_filter.apply(untouched)[0] is untouched


@given(
    st.sampled_from([*SECRETS]), st.text(max_size=20), st.text(max_size=20), st.booleans(),
    st.sampled_from([*FORMATS]),
)  # fmt: skip
@example("card", "1234 ", " 99", True, "raw")
def test_whatever_stands_around_a_secret_it_does_not_leave(
    kind: str, before: str, after: str, ascii_only: bool, name: str
) -> None:
    text = f"{before} \t{SECRETS[kind]} {after}".encode("utf-8", "replace").decode()
    record = {"type": "x", "message": text, "note": [text]}
    written = json.dumps(record, ensure_ascii=ascii_only).encode()
    if kind == "card" and any(c.isdigit() for c in before[-2:]):
        return  # digits and a blank before it: then it may be a longer number
    for redact in (rule_for(kind), rule_for(kind, "remove")):
        made = assembled("json", redact, at="sink", format_name=name)
        for message in messages(made, written):
            assert LEAKS[kind] not in shown(message)


@given(st.lists(EVENTS, min_size=1, max_size=3))
def test_any_event_can_be_redacted_and_formatted(events: list[AuditEvent]) -> None:
    for redact in (
        [{"kind": [*KINDS]}, {"pattern": "[a-z]"}],
        [{"field": ["actor.name", "message", "attributes.a"], "action": "remove"}],
    ):
        selection, _ = transform(redact).apply(selection_of(events))
        for name, kind in FORMATS.items():
            messages = build_format(name, "none", kind.options(), HOST).encode(selection)
            assert len(messages) == len(events)


@pytest.mark.parametrize("decoder", ["json", "syslog", "cef", "key_value", "text"])
def test_any_record_can_be_redacted(decoder: str) -> None:
    rules = [{"kind": [*KINDS]}, {"field": ["message", "actor.name", "attributes.a"]}]
    source_filter = assembled(decoder, rules, at="source").source_filter("s")
    assert source_filter is not None
    for name, record in HOSTILE.items():
        stored = source_filter.apply(Records(record + b"\n", 1)).records
        assert (stored.count, stored.payload.count(b"\n")) == (1, 1), name


# -- fields --


WHOLE = [
    {"field": "actor.name", "action": "pseudonym"}, {"field": "actor.address", "action": "remove"},
    {"field": ["target.id", "attributes.region", "attributes.deep.ssn"]},
]  # fmt: skip


@pytest.mark.parametrize("more", [[], [{"kind": "email"}]], ids=["fields", "fields and kinds"])
@pytest.mark.parametrize("raw", [False, True])
def test_whole_fields_are_redacted_each_in_its_way(more: list[Any], raw: bool) -> None:
    attributes: Any = {"region": "eu", "deep": {"ssn": 5}, "other": [1, "x"]}
    if raw:
        attributes = msgspec.Raw(msgspec.json.encode(attributes))
    event = msgspec.structs.replace(PLAIN, attributes=attributes)
    made = transform({"rules": [*WHOLE, *more], "key": KEY})
    selection, redacted = made.apply(selection_of([event, event]))
    assert redacted == list(selection.sequences)
    (found, _) = selection.events
    assert found.actor.name == Pseudonyms(KEY).token("Ada Lovelace")
    assert (found.actor.id, found.actor.address) == ("u1", None)
    assert (found.target.id, found.target.name) == ("***", "svc")
    assert attributes_of(found) == {"region": "***", "deep": {"ssn": "***"}, "other": [1, "x"]}
    assert event.actor.name == "Ada Lovelace", "the events are shared by all sinks"


@pytest.mark.parametrize("more", [[], [{"kind": "card"}]], ids=["fields", "fields and kinds"])
@pytest.mark.parametrize(
    ("body", "left"),
    [
        ('{"type":"t","user":"ada","session":"adage","mail":"zz"}', "adage"),
        ('{"type":"t","user":"a\\"b","ticket":"T-1"}', "T-1"),
        ("CEF:0|v|p|1|t|n|5|suser=ada cs1=adamant", "adamant"),
        ("user=ada action=t note=_ada", "_ada"),
        ("user=ada action=t mail=zz x=ada,ada;ada y=zzz", "y=zzz"),
        ('{"type":"t","mail":["zz","ada"],"message":"zz of ada: zzz"}', "zzz"),
        ('{"type":"t","mail":{"to":[{"box":"zz"}],"n":[{}]},"message":"to zz, n: 1"}', "n: 1"),
    ],
)
def test_a_redacted_field_does_not_stay_in_a_message_that_is_the_record(
    body: str, left: str, more: list[Any]
) -> None:
    rules = [{"field": ["actor.name", "attributes.mail"]}, *more]
    made = assembled("syslog", rules, at="sink", format_name="json")
    (message,) = messages(made, f"<13>1 2026-05-01T08:00:00Z h a - - - {body}".encode())
    text = json.loads(message)["message"]
    assert "***" in text
    assert left in text
    assert not re.search(r"(?<!\w)(?:ada|b|zz)(?!\w)", text)


_PIECES = st.lists(
    st.sampled_from(["ada", '"', "\\", ":", ",", "\n", "\u00e9", "\x7f", " ", "5", "b"]), max_size=5
).map("".join)


@given(
    st.recursive(
        st.one_of(_PIECES, st.integers(0, 9), st.booleans(), st.none()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(_PIECES, inner, max_size=4)
        ),
    ),
    st.lists(_PIECES.filter(lambda text: text[:1] not in ("", "5", ":", ",")), max_size=3),
)
def test_texts_are_replaced_in_written_json_as_in_what_it_says(tree: Any, values: Any) -> None:
    tokens: dict[str, Any] = {value: lambda value: f"<{len(value)}>" for value in values}
    found, wanted = set[str](), set[str]()
    written = replace_texts(msgspec.json.encode(tree), tokens, found)
    assert written == msgspec.json.encode(replace_values(tree, tokens, wanted))
    assert found == wanted


@pytest.mark.parametrize("rule", [{}, {"pattern": "x-[0-9]+"}], ids=["whole", "pattern"])
@pytest.mark.parametrize("format_name", ["json", "raw"])
@pytest.mark.parametrize(
    "record",
    [
        {"u": {"mail": "x-1"}}, {"u.mail": "x-1"}, {"u": [{"mail": "x-1"}, {"mail": ["x-2"]}]},
        {"u": [[{"mail": "x-1"}]], "u.mail": "x-2"},
        {"a": {"u.mail": "x-1"}, "a.u": {"mail": "x-2"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_is_redacted_wherever_its_path_may_lead(
    record: dict[str, Any], format_name: str, rule: dict[str, str]
) -> None:
    fields = ["attributes.u.mail", "attributes.a.u.mail"]
    made = assembled("json", [{"field": fields, **rule}], at="sink", format_name=format_name)
    (message,) = messages(made, json.dumps({"type": "t", "y": "y-1"} | record).encode())
    assert b"x-" not in message
    assert b"y-1" in message


@pytest.mark.parametrize("how", [way for way in WAYS if way != "twice"])
def test_a_field_is_redacted_in_records_too(how: str) -> None:
    record = {"type": "x", "user": "Zoë O'Brien=1", "message": "hello"}
    decoder, written = written_as(record, how)
    fields = ["actor.name", "message"]
    made = assembled(decoder, [{"field": fields}], at="sink", format_name="raw")
    decoded = made.decoder("s", [], everything=True).decode(
        Batch(1, 1, "s", 1.7e9, written + b"\n")
    )
    values = [field_getter(field)(decoded.events[0]) for field in fields]
    (message,) = messages(made, written)
    for value in filter(None, values):
        assert value not in shown(message)


def test_a_record_whose_secret_is_not_found_in_its_text_is_withheld() -> None:
    # The line break is an escape in the record, and one character in the event.
    made = assembled("cef", [{"field": "message"}], at="sink", format_name="raw")
    (message,) = messages(made, b"CEF:0|v|p|1|1|Login|5|msg=top\\nsecret cs1=kept")
    assert "secret" not in message.decode()
    assert json.loads(message)["attributes"]["cs1"] == "kept"
    assert json.loads(message)["message"] == "***"


def in_hex(text: str) -> str:
    return text.encode().hex().upper()


@pytest.mark.parametrize("at", ["source", "sink"])
@pytest.mark.parametrize("kind", ["email", "password"])
def test_a_secret_that_auditd_writes_in_hexadecimal_does_not_leave(kind: str, at: str) -> None:
    head, secret = "msg=audit(1709280000.100:10): ", SECRETS[kind]
    records = [
        f'type=EXECVE {head}argc=2 a0="x" a1={in_hex("x " + secret)}',
        # In one line as it is, in the other one not.
        f'type=EXECVE {head}argc=2 a0="x" a1="{secret}" '
        f"type=PROCTITLE {head}proctitle={in_hex('x' + chr(0) + secret)}",
        f"type=PROCTITLE {head}proctitle={in_hex(secret)}",
        f"type=USER_CMD {head}pid=1 msg='cwd=\"/\" cmd={in_hex('mail ' + secret)} res=success'",
    ]
    for name in FORMATS:
        made = assembled("auditd", rule_for(kind), at=at, format_name=name)
        source_filter = made.source_filter("s")
        for record in records:
            written = record.encode()
            if at == "source":
                assert source_filter is not None
                written = source_filter.apply(Records(written + b"\n", 1))[0].payload.rstrip()
            for message in messages(made, written):
                assert LEAKS[kind] not in shown(message), (name, record)
                assert in_hex(LEAKS[kind]) not in shown(message), (name, record)


def test_a_secret_known_by_the_name_of_its_column_is_not_in_the_record() -> None:
    load = {"type": "stdin", "decoder": "csv", "columns": ["type", "password"]}
    sink = {
        "server": "192.0.2.1", "protocol": "tcp", "format": "raw", "redact": [{"kind": "password"}],
    }  # fmt: skip
    text = json.dumps({"sources": {"s": load}, "sinks": {"siem": sink}})
    made = Assembly(load_text(text, "f.yaml", {}).config)
    for message in messages(made, b'Login,"hunter2,b"', b'Login,"hunter""2"', b"Login,hunter2"):
        assert b"hunter" not in message


@pytest.mark.parametrize(
    ("decoder", "record", "kept"),
    [
        ("auditd", 'type=EXECVE msg=audit(1709280000.100:1): argc=2 a0="x" '
         f"a1={in_hex('mail ada@example.com now')}", "EXECVE"),
        ("cef", "CEF:0|v|p|1|1|Login|5|cs1Label=password cs1=hunter2 x=1", "Login"),
    ],
)  # fmt: skip
def test_a_record_that_its_source_redacts_is_still_read_by_its_decoder(
    decoder: str, record: str, kept: str
) -> None:
    made = assembled(decoder, [{"kind": ["email", "password"]}], at="source")
    source_filter = made.source_filter("s")
    assert source_filter is not None
    stored = source_filter.apply(Records(record.encode() + b"\n", 1)).records
    (message,) = messages(made, stored.payload.rstrip())
    assert json.loads(message)["type"] == kept
    for secret in ("hunter2", "ada@example.com", in_hex("ada@example.com")):
        assert secret not in shown(stored.payload) + shown(message)


@pytest.mark.parametrize("name", FORMATS)
def test_a_field_that_every_event_has_is_masked_where_its_secret_is_removed(name: str) -> None:
    made = assembled("json", rule_for("email", "remove"), at="sink", format_name=name)
    secret = SECRETS["email"]
    record = {"type": secret, "id": secret, "category": secret, "message": secret}
    (message,) = messages(made, json.dumps(record).encode())
    assert secret not in shown(message)


@pytest.mark.parametrize("name", FORMATS)
def test_a_document_in_a_message_keeps_no_secret_that_is_named_apart_from_it(name: str) -> None:
    document = {
        "type": "x", "password": ["hunter2"], "old": {"password": {"was": "hunter2"}},
        "parameters": [{"name": "password", "value": "hunter2"}], "run": ["--password", "hunter2"],
    }  # fmt: skip
    made = assembled("syslog", [{"kind": "password"}], at="sink", format_name=name)
    for written in (
        f"<13>1 2024-03-01T08:00:00Z host app 7 - - {json.dumps(document)}",
        f"<13>1 2024-03-01T08:00:00Z host app 7 - - {json.dumps({'note': json.dumps(document)})}",
        '<13>1 2024-03-01T08:00:00Z host app 7 - - sent {"password":["hunter2"]} to it',
    ):
        (message,) = messages(made, written.encode())
        assert b"hunter2" not in message, written


def test_the_value_of_a_name_beside_it_and_of_an_option_before_it_is_redacted() -> None:
    attributes = {
        "parameters": [{"name": "password", "value": "x"}, {"name": "region", "value": "eu"}],
        "argv": ["mysql", "--password", "x", "-h", "db"], "cs1Label": "password", "cs1": "x",
    }  # fmt: skip
    event = msgspec.structs.replace(PLAIN, attributes=attributes)
    (found,) = transform([{"kind": "password"}]).apply(selection_of([event]))[0].events
    assert attributes_of(found) == {
        "parameters": [{"name": "password", "value": "***"}, {"name": "region", "value": "eu"}],
        "argv": ["mysql", "--password", "***", "-h", "db"], "cs1Label": "password", "cs1": "***",
    }  # fmt: skip


def test_a_rule_may_look_into_one_field_alone() -> None:
    event = msgspec.structs.replace(PLAIN, message="a@example.com", type="b@example.com")
    made = transform([{"kind": "email", "field": "message"}])
    (found,) = made.apply(selection_of([event]))[0].events
    assert (found.message, found.type) == ("***", "b@example.com")


def test_of_a_pattern_with_a_group_named_secret_only_that_is_redacted() -> None:
    event = msgspec.structs.replace(PLAIN, message="é pin: 1234, pin: 5678.")
    made = transform([{"pattern": r"pin: (?P<secret>\d+)"}])
    assert made.apply(selection_of([event]))[0].events[0].message == "é pin: ***, pin: ***."


def test_members_named_as_secrets_are_redacted_whatever_they_hold() -> None:
    attributes = {"password": "x", "db": {"client_secret": 5, "apiKey": ["k"]}, "passed": "3"}
    event = msgspec.structs.replace(PLAIN, attributes=attributes)
    (found,) = transform([{"kind": "password"}]).apply(selection_of([event]))[0].events
    assert attributes_of(found) == {
        "password": "***", "db": {"client_secret": "***", "apiKey": ["***"]}, "passed": "3",
    }  # fmt: skip


# -- pseudonyms --


def test_a_value_has_one_pseudonym_everywhere_and_another_with_another_key() -> None:
    made = transform({"rules": [{"kind": "email", "action": "pseudonym"}], "key": KEY})
    message = "Ada@example.com wrote to ada@EXAMPLE.com"
    event = msgspec.structs.replace(PLAIN, message=message, attributes={"to": "ada@example.com"})
    (found,) = made.apply(selection_of([event]))[0].events
    token = Pseudonyms(KEY).token("ada@example.com")
    assert found.message == f"{token} wrote to {token}"
    assert attributes_of(found) == {"to": token}
    assert token != Pseudonyms("l" * 16).token("ada@example.com")
    assert len(token) == 25
    assert key_id(KEY) != key_id("l" * 16)


def test_a_changed_key_is_reported_by_a_reload_and_shown_nowhere() -> None:
    text = (
        "sources: {s: {type: stdin}}\nsinks: {siem: {server: a, redact: {key: '${K}', rules: "
        "[{field: actor.name, action: pseudonym}]}}}\n"
    )
    old, new = (load_text(text, "f.yaml", {"K": letter * 16}).config for letter in "kl")
    (change,) = plan(old, new).changes
    told = f"pseudonyms differ from now on: key {key_id(KEY)} → {key_id('l' * 16)}"
    assert change.details == ("redact changed", told)
    assert KEY not in str(change)


def test_preview_shows_what_is_stored_and_sent(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        "sources: {s: {type: stdin, where: {severity: {min: 2}}, redact: [{kind: email}]}}\n"
        "sinks: {siem: {server: a, redact: [{field: actor.name}]}}\n"
    )
    records = (
        b'{"type":"x","user":"ada","message":"to a@example.com","severity":5}\n'
        b'{"type":"x","user":"bob","severity":1}\nnonsense a@example.com\n'
    )
    shown = CliRunner().invoke(main, ["preview", "-c", str(file)], input=records).output
    assert "a@example.com" not in shown
    assert 'actor.name="***"' in shown
    assert "not stored: where: severity '1' is below 2" in shown
    assert "to ***" in shown


@pytest.mark.parametrize(
    ("redact", "fault"),
    [
        ([{"field": "actor.name", "action": "pseudonym"}], "needs a `key`"),
        ({"rules": [{"kind": "email"}], "key": "short"}, "at least 16 characters"),
        ([{"field": "type"}], "an event needs its `type`"),
        ([{"action": "mask"}], "write what to redact"),
        ([{"kind": "email", "pattern": "x"}], "two rules"),
        ([{"pattern": r"(a)\1"}], "no back-references"),
        ([{"pattern": "(?=a)"}], "no look-around"),
        ([{"kind": "phone"}], "'email', 'card', 'iban', 'token' or 'password'"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_meant_are_faults(redact: Any, fault: str) -> None:
    with pytest.raises(ValidationError) as refused:
        READ(redact)
    assert fault in str(refused.value)
