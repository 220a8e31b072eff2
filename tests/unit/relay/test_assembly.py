"""Which sinks share their messages: those whose formats are made of the same options."""

from __future__ import annotations

import pytest

from siemrelay.config.load import load_text
from siemrelay.relay.assembly import Assembly

CONFIG = """\
state_dir: /nowhere
sources: {{a: {{type: stdin}}}}
sinks:
  one: {{protocol: tcp, server: 192.0.2.1, format: cef, events: [Any Audit Record]}}
  other: {other}
"""


@pytest.mark.parametrize(
    ("other", "group", "view"),
    [
        ("{protocol: tcp, server: 192.0.2.2, format: cef}", 0, 0),
        ("{protocol: tcp, server: 192.0.2.2, format: cef, framing: nul, port: 99}", 0, 0),
        ("{protocol: relp, server: 192.0.2.2, format: cef}", 0, 0),
        ("{protocol: tcp, server: 192.0.2.2, format: cef, events: category:relay}", 0, 1),
        ("{protocol: tcp, server: 192.0.2.2, format: cef, header: none}", 1, 0),
        ("{protocol: tcp, server: 192.0.2.2, format: cef, hostname: b}", 1, 0),
        ("{protocol: tcp, server: 192.0.2.2, format: cef, map: {suid: null}}", 1, 0),
        ("{protocol: tcp, server: 192.0.2.2, format: cef, max_message_size: 1KiB}", 1, 0),
        ("{protocol: tcp, server: 192.0.2.2, format: leef}", 1, 0),
    ],
)
def test_sinks_whose_messages_are_made_alike_are_one_group(
    other: str, group: int, view: int
) -> None:
    assembly = Assembly(load_text(CONFIG.format(other=other), "f").config)
    formatter = assembly.formatter({n: assembly.sink_format(n) for n in ("one", "other")})
    assert formatter.places == {"one": (0, 0), "other": (group, view)}


@pytest.mark.parametrize(
    ("changed", "shared"),
    [("url: 'https://192.0.2.2/'", True), ("index: other", False), ("sourcetype: s", False)],
)
def test_an_envelope_is_shared_if_everything_in_it_is_equal(changed: str, shared: bool) -> None:
    hec = "{protocol: splunk-hec, url: 'https://192.0.2.1/', authorization: Splunk a%s}"
    text = CONFIG.format(other=hec % "").replace("  one: ", "  unused: ")
    text += f"  one: {hec % (', ' + changed)}\n"
    if "url" in changed:
        text = text.replace("url: 'https://192.0.2.1/', authorization: Splunk a, ",
                            "authorization: Splunk b, ")  # fmt: skip
    assembly = Assembly(load_text(text, "f").config)
    places = assembly.formatter({n: assembly.sink_format(n) for n in ("one", "other")}).places
    assert (places["one"] == places["other"]) is shared
