"""What `check` warns of: everything that a security engineer would ask about, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from siemrelay.config.checks.security import security_remarks
from siemrelay.config.load import load_text

SOURCE = "s: {type: stdin}"
SINK = "k: {server: siem.example.com}"


def warned(*, sources: str = SOURCE, sinks: str = SINK, rest: str = "") -> list[tuple[str, str]]:
    text = f"sources:\n  {sources}\nsinks:\n  {sinks}\n{rest}\n"
    return [(fault.key, fault.message) for fault in security_remarks(load_text(text, "f.yaml"))]


@pytest.mark.parametrize("listen", ["0.0.0.0:9614", "'[::]:9614'"])
def test_an_endpoint_on_all_addresses(listen: str) -> None:
    ((key, message),) = warned(rest=f"endpoint: {{listen: {listen}}}")
    assert key == "endpoint.listen"
    assert "127.0.0.1" in message


@pytest.mark.parametrize(
    ("hook", "open_to_all"),
    [
        ("listen: 'http://0.0.0.0:8080/e'", True),
        ("listen: 'http://[::]:8080/e'", True),
        ("listen: 'http://10.1.2.3:8080/e', allow: [10.0.0.0/8]", True),
        ("listen: 'http://127.0.0.1:8080/e'", False),
        ("listen: 'http://[::1]:8080/e'", False),
        ("listen: 'http://localhost:8080/e'", False),
        ("listen: 'http://0.0.0.0:8080/e', authorization: Bearer abc", False),
        ("listen: 'http://0.0.0.0:8080/e', signature: {secret: abc}", False),
    ],
)
def test_a_hook_to_which_everybody_may_write(hook: str, open_to_all: bool) -> None:
    found = warned(sources=f"h: {{type: http, {hook}}}")
    assert [key for key, _ in found] == (["sources.h.listen"] if open_to_all else [])


@pytest.mark.parametrize(
    ("hook", "key"),
    [
        ("authorization: abc", "sources.h.authorization"),
        ("authorization_header: authorization, authorization: abc", "sources.h.authorization"),
        ("authorization: Bearer abc", None),
        ("authorization: abc, product: okta", None),
        ("authorization_header: X-Gitlab-Token, authorization: abc", None),
    ],
)
def test_a_secret_without_the_scheme_that_most_senders_write(hook: str, key: str | None) -> None:
    found = warned(sources=f"h: {{type: http, listen: 'http://127.0.0.1:1', {hook}}}")
    assert [at for at, _ in found] == ([key] if key else [])


@pytest.mark.parametrize(
    ("sink", "key"),
    [
        ("{url: 'http://siem/', authorization: Bearer abcdef}", "sinks.k.url"),
        ("{url: 'http://siem/', headers: {X-Key: abcdef}}", "sinks.k.url"),
        ("{url: 'http://siem/in?token=abcdef'}", "sinks.k.url"),
        ("{siem: splunk, url: 'http://siem:8088', authorization: Splunk abcde}", "sinks.k.url"),
        ("{url: 'https://siem/', authorization: Bearer abcdef}", None),
        ("{url: 'http://127.0.0.1:8080/', authorization: Bearer abcdef}", None),
        ("{url: 'http://localhost/', authorization: Bearer abcdef}", None),
        ("{url: 'http://[::1]/', authorization: Bearer abcdef}", None),
        ("{url: 'http://siem/'}", None),
    ],
)
def test_a_credential_over_plain_http(sink: str, key: str | None) -> None:
    assert [found for found, _ in warned(sinks=f"k: {sink}")] == ([key] if key else [])


@pytest.mark.parametrize(
    "sink",
    [
        "{server: siem, protocol: tls, tls: {verify: no}}",
        "{url: 'https://siem/', tls: {verify: no}}",
    ],
)
def test_a_certificate_that_is_not_verified(sink: str) -> None:
    ((key, message),) = warned(sinks=f"k: {sink}")
    assert key == "sinks.k.tls.verify"
    assert "`ca`" in message


@pytest.mark.parametrize(("mode", "count"), [(0o644, 1), (0o640, 0), (0o600, 0)])
def test_a_file_of_a_secret_that_others_can_read(tmp_path: Path, mode: int, count: int) -> None:
    secret, key = tmp_path / "token", tmp_path / "key.pem"
    secret.write_text("abcdef")
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    for file in (secret, key):
        file.chmod(mode)
    found = warned(
        sinks=f"k: {{url: 'https://a/', authorization: 'Bearer ${{file:{secret}}}', "
        f"tls: {{certificate: {key}, key: {key}}}}}"
    )
    assert sum(str(secret) in message for _, message in found) == count
    assert sum(str(key) in message for _, message in found) == 2 * count
