"""Secrets inside URLs are found by their form, and names are left alone."""

from __future__ import annotations

import pytest

from siemrelay.config.url_secrets import url_secrets, without_url_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://hooks.slack.com/services/T000/B000/SECRET",
            "https://hooks.slack.com/services/T000/B000/***",
        ),
        (
            "https://discord.com/api/webhooks/123456789012345678/abcDEFghi_JKL-mnopqrstu0123456789",
            "https://discord.com/api/webhooks/123456789012345678/***",
        ),
        (
            "https://x.webhook.office.com/webhookb2/11111111-2222-3333-4444-555555555555@1/"
            "IncomingWebhook/abcdef0123456789abcdef0123456789/abc",
            "https://x.webhook.office.com/webhookb2/***/IncomingWebhook/***/***",
        ),
        (
            "https://a.blob.core.windows.net/c?sv=2022&sig=abc%3D&se=2025",
            "https://a.blob.core.windows.net/c?sv=2022&sig=***&se=2025",
        ),
        ("https://h/in?x=0123456789abcdef0123", "https://h/in?x=***"),
        ("https://TOKEN@host/", "https://***@host/"),
        ("https://user:pass@host/x", "https://user:***@host/x"),
        ("https://hooks.example.com/audit", "https://hooks.example.com/***"),
        (
            "https://login.microsoftonline.com.example.com/11111111-2222-3333-4444-555555555555/",
            "https://login.microsoftonline.com.example.com/***/",
        ),
    ],
)
def test_the_secret_of_a_url_is_hidden_wherever_it_is(url: str, shown: str) -> None:
    assert without_url_secrets(url) == shown
    assert without_url_secrets(f"cannot reach `{url}`: refused") == (
        f"cannot reach `{shown}`: refused"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://siem.example.com:8088/services/collector",
        "https://es.example.com:9200/siem-audit-2024.01/_bulk",
        "https://events.example.com/api/v2/projects/my-project-2024-logs",
        "https://0.0.0.0:8443/hooks/okta",
        "http://127.0.0.1:8080/webhook/github-audit",
        "https://h/receiver/${credential:key}",
        "amqp://guest@broker/",
        "unix:///run/siemrelay/0123456789abcdef.sock",
        "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token",
        "https://manage.office.com/api/v1.0/11111111-2222-3333-4444-555555555555/activity/feed",
    ],
)
def test_names_in_a_url_are_shown(url: str) -> None:
    assert without_url_secrets(url) == url
    assert not list(url_secrets(url))


def test_an_end_that_may_be_a_word_is_not_redacted_elsewhere() -> None:
    assert not list(url_secrets("https://hooks.example.com/audit"))
    assert list(url_secrets("https://hooks.example.com/audit-hidden")) == ["audit-hidden"]
