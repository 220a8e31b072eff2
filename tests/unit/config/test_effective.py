"""What a configuration comes to, and what is remarked on: values, origins, nothing secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from siemrelay.config.effective import (
    Setting,
    relay_settings,
    remarks,
    sink_settings,
    source_settings,
)
from siemrelay.config.load import load, load_text
from siemrelay.config.models import RelayConfig

STDIN = "sources: {a: {type: stdin}}\n"
SOURCE = "sources:\n  a: {type: file, path: /var/log/a.json}\n"


def settings_of(sink: str, **environment: str) -> dict[str, Setting]:
    loaded = load_text(f"{SOURCE}sinks:\n  s: {sink}\n", "f.yaml", environment)
    return {setting.key: setting for setting in sink_settings(loaded, "s")}


def test_each_setting_has_its_value_with_unit_and_its_origin() -> None:
    found = settings_of("{server: a, protocol: tcp, timeout: 90s, retry: {max: 5m}}")
    assert found["port"] == Setting("port", 514, "default")
    assert found["protocol"] == Setting("protocol", "tcp", "file")
    assert (found["timeout"].text, found["timeout"].origin) == ("90s", "file")
    assert (found["retry.max"].text, found["retry.max"].origin) == ("5m", "file")
    assert (found["retry.initial"].text, found["retry.initial"].origin) == ("1s", "default")
    assert found["max_message_size"].text == "-"
    assert found["enabled"].text == "yes"


def test_sink_without_a_choice_shows_the_buffers() -> None:
    text = f"{SOURCE}sinks:\n  s: {{server: a}}\nbuffer: {{when_full: drop_oldest}}\n"
    found = {s.key: s for s in sink_settings(load_text(text, "f"), "s")}
    assert found["when_full"].text == "drop_oldest"


def test_header_settings_are_shown_only_where_there_is_a_header() -> None:
    assert {"header", "facility"} <= settings_of("{server: a, format: cef}").keys()
    assert "facility" not in settings_of("{server: a, format: json}")
    found = settings_of("{server: a}").keys()
    assert "facility" in found
    assert "header" not in found


@pytest.mark.parametrize(
    "sink",
    [
        "{url: 'http://a/', authorization: 'Bearer ${S}'}",
        "{url: 'http://a/${S}'}",
        "{url: 'http://a/', headers: {X: '${S}'}}",
        "{server: '${S}', events: '${S} *'}",
        "{server: a, events: ['${S} *']}",
        "{server: a, events: {include: '${S} *', exclude: ['${S} *']}}",
        "{server: a, format: cef, map: {cs1: 'attributes.${S}'}}",
    ],
)
def test_what_came_from_a_reference_is_never_shown(sink: str) -> None:
    found = settings_of(sink, S="hunter2")
    assert "hunter2" not in repr(found)
    assert "hunter2" not in "".join(setting.text for setting in found.values())


def test_reference_is_shown_as_written_and_an_inline_secret_as_stars() -> None:
    found = settings_of("{url: 'http://a/', authorization: 'Bearer ${S}'}", S="x")
    assert found["authorization"].text == "Bearer ${S}"
    found = settings_of("{url: 'http://a/', authorization: Bearer abc}")
    assert found["authorization"] == Setting("authorization", "***", "file")


def test_a_header_that_is_no_credential_is_shown_and_every_other_one_is_not() -> None:
    sink = "{url: 'http://a/', headers: {X-Sumo-Category: audit, X-Key: hunter2}}"
    found = settings_of(sink)["headers"].text
    assert "audit" in found
    assert "hunter2" not in found
    text = f"sources: {{a: {{type: stdin}}}}\nsinks: {{s: {sink}}}\n"
    assert load_text(text, "f.yaml", {}).inline_secrets == (("sinks", "s", "headers", "X-Key"),)


URLS = [
    ("siem: sumologic, url: 'https://u.example.com/receiver/v1/http/SECRET=='",
     "https://u.example.com/receiver/v1/http/***"),
    ("siem: sumologic, url: 'https://u.example.com/v1/SECRET/'", "https://u.example.com/v1/***/"),
    ("url: 'https://u.example.com/in?env=live&token=SECRET&x=1'",
     "https://u.example.com/in?env=live&token=***&x=1"),
    ("url: 'https://u.example.com/in?API_KEY=SECRET&sig=S3'",
     "https://u.example.com/in?API_KEY=***&sig=***"),
    ("url: 'https://u.example.com/${P}?token=SECRET'", "https://u.example.com/${P}?token=***"),
    ("url: 'https://u.example.com/?token=${T}&page=one&keyboard=live'",
     "https://u.example.com/?token=${T}&page=one&keyboard=live"),
]  # fmt: skip


@pytest.mark.parametrize(("sink", "shown"), URLS)
def test_a_secret_within_an_address_is_hidden_and_the_rest_of_it_is_not(
    sink: str, shown: str
) -> None:
    text = f"sources: {{a: {{type: stdin}}}}\nsinks: {{s: {{{sink}}}}}\n"
    loaded = load_text(text, "f", {"P": "path", "T": "tttt"})
    found = {setting.key: setting for setting in sink_settings(loaded, "s")}
    assert found["url"].text == shown
    inline = "SECRET" in sink
    assert any(secret.startswith("SECRET") for secret in loaded.secrets) == inline
    assert loaded.inline_secrets == ((("sinks", "s", "url"),) if inline else ())


def test_every_secret_of_an_address_is_taken_out_of_what_is_logged() -> None:
    url = "https://a/?access_token=abcd%3D%3D&code=efgh"
    loaded = load_text(f"sources: {{a: {{type: stdin}}}}\nsinks: {{s: {{url: '{url}'}}}}\n", "f")
    assert loaded.secrets == {"abcd%3D%3D", "abcd==", "efgh"}


def test_relay_and_source_settings_are_flat() -> None:
    loaded = load_text(f"{SOURCE}sinks: {{s: {{server: a}}}}\nlog: {{level: debug}}\n", "f")
    relay = {s.key: s for s in relay_settings(loaded)}
    assert (relay["log.level"].text, relay["log.level"].origin) == ("debug", "file")
    assert relay["buffer.max_size"].text == "10GiB"
    source = {s.key: s for s in source_settings(loaded, "a")}
    assert source["decoder"] == Setting("decoder", "json", "default")
    assert source["max_record_size"].text == "1MiB"


def test_a_path_that_only_a_directory_matches_says_what_to_write(tmp_path: Path) -> None:
    logs, pipe = tmp_path / "logs", tmp_path / "pipe"
    (logs / "old").mkdir(parents=True)
    os.mkfifo(pipe)
    paths = {
        f"{logs}/": f"{logs} is a directory; write {logs}/* for the files in it",
        f"{logs}/*": f"{logs}/old is a directory; write {logs}/old/* for the files in it",
        str(pipe): f"{pipe} is not a regular file; only those are followed",
        f"{logs}/{{a,b}}.log": "there is no such file yet; it will be read as soon as it appears; "
        "braces are not a pattern, write a list instead",
    }
    for path, remark in paths.items():
        text = f"sources: {{a: {{type: file, path: '{path}'}}}}\nsinks: {{s: {{server: a}}}}\n"
        (found,) = [fault.message for fault in remarks(load_text(text, "f.yaml", {}))]
        assert found == remark
    (logs / "a.log").touch()
    text = f"sources: {{a: {{type: file, path: '{logs}/*'}}}}\nsinks: {{s: {{server: a}}}}\n"
    assert remarks(load_text(text, "f.yaml", {})) == []


def test_remarks_tell_of_empty_globs_disabled_sinks_and_useless_header_keys(tmp_path: Path) -> None:
    (tmp_path / "there.json").touch()
    text = (
        f"sources:\n  a: {{type: file, path: '{tmp_path}/*.json'}}\n"
        f"  b: {{type: file, path: ['{tmp_path}/*.json', '{tmp_path}/*.none']}}\n"
        "sinks:\n  s: {server: a, enabled: no, format: json, facility: local0}\n"
    )
    found = remarks(load_text(text, "f"))
    assert [(remark.key, remark.line) for remark in found] == [
        ("sources.b.path", 3),
        ("sinks.s.enabled", 5),
        ("sinks.s.facility", 5),
    ]


def test_every_setting_of_the_relay_is_shown_but_its_parts() -> None:
    text = (f"{STDIN}sinks: {{s: {{server: h}}}}\nself_audit: no\nworkers: 2\n"
            "event_types: [Door Opened]\n")  # fmt: skip
    shown = {setting.key: setting for setting in relay_settings(load_text(text, "f"))}
    keys = {key.partition(".")[0] for key in shown}
    assert keys == {*RelayConfig.model_fields} - {"sources", "sinks"}
    assert [shown[key].text for key in ("self_audit", "workers")] == ["no", "2"]
    assert shown["workers"].origin == "file"
    assert "Door Opened" in shown["event_types"].text


@pytest.mark.parametrize(
    ("mode", "authorization", "expected"),
    [
        (0o644, "S", 1),
        (0o644, "'${HOME}'", 0),
        (0o644, "abc", 1),
        (0o640, "abc", 0),
        (0o644, "'$${x} ${HOME}'", 0),
    ],
)
def test_readable_file_is_remarked_on_only_if_it_holds_a_secret(
    tmp_path: Path, mode: int, authorization: str, expected: int
) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        f"sources:\n  a: {{type: file, path: {file}}}\n"
        f"sinks:\n  s: {{url: 'https://a/', authorization: {authorization}}}\n"
    )
    file.chmod(mode)
    found = remarks(load(file))
    assert len(found) == expected
    assert all(remark.key == "sinks.s.authorization" for remark in found)


@pytest.mark.parametrize(
    ("sink", "key", "words"),
    [
        ("{siem: splunk, url: 'https://s:8088'}", "url", "without a token"),
        ("{protocol: splunk-hec, url: 'https://s:8088'}", "url", "without a token"),
        ("{siem: splunk, url: 'https://s:8088', authorization: abcd}", "authorization",
         '"Splunk TOKEN"'),
        ("{siem: splunk, url: 'https://s:8088', authorization: Splunk Splunk abcd}",
         "authorization", "twice"),
        ("{siem: splunk, url: 'https://s:8088', basic: {username: x, password: Splunk abcd}}",
         "basic", "without `Splunk`"),
        ("{siem: elastic, url: 'https://e:9200'}", "url", "without a credential"),
        ("{siem: elastic, url: 'https://e:9200', authorization: ApiKey abcd, format: cef}",
         "format", "`ecs`"),
        ("{siem: datadog}", "url", "API key"),
        ("{siem: chronicle, url: 'https://g/feed:importPushLogs'}", "url", "its secret"),
        ("{siem: sumologic, url: 'https://collectors.sumologic.com'}", "url", "key in its address"),
        ("{url: 'https://graylog:12201/gelf', format: gelf}", "format", "Enable Bulk Receiving"),
        ("{server: a, events: {include: [user logged in, Group Deleted], min_severity: 4}}",
         "events.min_severity", "`User Logged In`"),
    ],
)  # fmt: skip
def test_what_a_receiver_expects_otherwise_is_remarked_on(sink: str, key: str, words: str) -> None:
    (remark,) = remarks(load_text(f"{STDIN}sinks: {{s: {sink}}}\n", "f"))
    assert remark.key == f"sinks.s.{key}"
    assert words in remark.message


@pytest.mark.parametrize(
    ("listen", "mode", "expected"),
    [
        ("unixgram:///dev/log", "", ["sources.a.listen"]),
        ("['udp://127.0.0.1:514', 'unixgram:///dev/log']", ", mode: '0620'", ["sources.a.listen"]),
        ("unixgram:///dev/log", ", mode: '0666'", []),
        ("unixgram:///run/siemrelay/log.sock", "", []),
        ("udp://127.0.0.1:514", "", []),
    ],
)
def test_the_socket_of_syslog_is_remarked_on_if_not_every_program_may_write_to_it(
    listen: str, mode: str, expected: list[str]
) -> None:
    text = (
        f"sources: {{a: {{type: syslog, listen: {listen}{mode}}}}}\nsinks: {{s: {{server: h}}}}\n"
    )
    assert [remark.key for remark in remarks(load_text(text, "f"))] == expected


@pytest.mark.parametrize(
    "sink",
    [
        "{siem: splunk, url: 'https://s:8088', authorization: Splunk abcd}",
        "{siem: splunk, url: 'https://s:8088', authorization: '${credential:not_read_here}'}",
        "{siem: splunk, url: 'https://s:8088', basic: {username: x, password: abcd}}",
        "{siem: splunk, url: 'https://s:8088', authorization: abcd, authorization_header: X-Key}",
        "{siem: elastic, url: 'https://e:9200', basic: {username: a, password: abcd}}",
        "{siem: elastic, url: 'https://e:9200', tls: {certificate: /c.pem, key: /k.pem}}",
        "{siem: sumologic, url: 'https://s/receiver/v1/http/ZaVnC4dhaV2abcdefghijklmnop=='}",
        "{url: 'https://graylog:12201/gelf', format: gelf, batch: {max_events: 1}}",
        "{server: a, events: {include: [Any Audit Record, Group Deleted], min_severity: 4}}",
        "{server: a, events: {include: [user logged in], min_severity: 2}}",
    ],
)
def test_what_a_receiver_takes_is_not_remarked_on(sink: str) -> None:
    loaded = load_text(f"{STDIN}sinks: {{s: {sink}}}\n", "f", {}, need_credentials=False)
    assert remarks(loaded) == []


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("Splunk $SPLUNK_TOKEN", True),
        ("Splunk ${SPLUNK_TOKEN}", False),
        ("Splunk $${SPLUNK_TOKEN}", False),
        ("Splunk pa$WORD", False),
        ("Splunk cost$US_EUR", False),
    ],
)
def test_a_variable_without_braces_is_a_remark_that_does_not_tell_it(
    value: str, meant: bool
) -> None:
    sink = f"{{siem: splunk, url: 'https://a', authorization: '{value}'}}"
    loaded = load_text(f"{STDIN}sinks: {{s: {sink}}}\n", "f", {"SPLUNK_TOKEN": "abcdefgh"})
    found = [fault.message for fault in remarks(loaded) if "braces" in fault.message]
    expected = "`$NAME` is not replaced, only `${NAME}` is: put braces around the name"
    assert found == ([expected] if meant else [])
