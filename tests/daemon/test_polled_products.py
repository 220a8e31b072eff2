"""The examples that poll the APIs of products, against strict stand-ins."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, tcp, until
from tests.support.polled.products import (
    AuditApi,
    Entra,
    GitHub,
    GitLab,
    GoogleWorkspace,
    Okta,
)
from tests.support.polled.saas import (
    Atlassian,
    Auth0,
    Cloudflare,
    Microsoft365,
    OnePassword,
    Slack,
)
from tests.support.receivers.sockets import TcpReceiver

EXAMPLES = Path(__file__).parents[2] / "config" / "examples" / "products"

LOGS = {
    "okta": ["okta"], "github": ["example", "example-labs"],
    "gitlab": ["example", "example/platform"], "entra": ["signIns", "directoryAudits"],
    "google_workspace": ["admin", "login"], "slack": ["slack"], "auth0": ["auth0"],
    "onepassword": ["auditevents", "signinattempts"], "cloudflare": ["account-1", "account-2"],
    "atlassian": ["org-1"], "m365": ["Audit.Exchange"],
}  # fmt: skip
"""Product → the logs that its example reads here."""

IN_ORDER_OF_STORING = {"okta", "onepassword", "auth0", "atlassian"}
"""Products whose APIs lead on from what was stored last: a late event does not exist before."""

_ID = "11111111-2222-3333-4444-555555555555"

FIRST, LATE, LATER = 17, 4, 6
"""Events of each log: visible at once, late, and new after the second kill."""


class Vendors:
    """All stand-ins, and the sources of the examples that ask them instead of the vendors."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        made = trustme.CA().issue_cert("relay", key_type=trustme.KeyType.RSA)
        self.key_file, certificate = directory / "key.pem", directory / "certificate.pem"
        made.private_key_pem.write_to_path(str(self.key_file))
        made.cert_chain_pems[0].write_to_path(str(certificate))
        account = directory / "account.json"
        pem = self.key_file.read_text()
        account.write_text(json.dumps({"type": "service_account", "private_key": pem}))
        key = load_pem_private_key(pem.encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self.okta, self.google = Okta(key), GoogleWorkspace(key)
        self.github, self.gitlab = GitHub("hub-token"), GitLab("lab-token")
        self.entra = Entra(key, load_pem_x509_certificate(certificate.read_bytes()))
        self.by_name: dict[str, AuditApi] = {
            "okta": self.okta, "github": self.github, "gitlab": self.gitlab, "entra": self.entra,
            "google_workspace": self.google, "slack": Slack("slack-token"),
            "onepassword": OnePassword("1p-token"), "auth0": Auth0("auth0-secret"),
            "cloudflare": Cloudflare("cf-token"), "atlassian": Atlassian("at-token"),
            "m365": Microsoft365("m365-secret"),
        }  # fmt: skip
        for api in self.by_name.values():
            stack.enter_context(api)
        self._instead = {
            "https://example.okta.com": self.okta.origin, "0oa1b2c3d4e5f6g7h8i9": "okta-app",
            "${credential:okta_key}": f"${{file:{self.key_file}}}",
            "https://api.github.com": self.github.origin,
            "${credential:github_token}": "hub-token",
            "https://gitlab.com": self.gitlab.origin, "${credential:gitlab_token}": "lab-token",
            "https://graph.microsoft.com/v1.0": f"{self.entra.origin}/v1.0",
            "https://login.microsoftonline.com/example.onmicrosoft.com":
                f"{self.entra.origin}/tenant-1",
            _ID: "entra-app",
            "${credential:entra_key}": f"${{file:{self.key_file}}}",
            "${credential:entra_certificate}": f"${{file:{certificate}}}",
            "https://admin.googleapis.com": self.google.origin,
            "https://oauth2.googleapis.com": self.google.origin,
            "relay@example-project.": "relay@example.",
            "${credential:google_service_account}": f"${{file:{account}}}",
            "https://api.slack.com": self.by_name["slack"].origin,
            "${credential:slack_token}": "slack-token",
            "https://events.1password.com": self.by_name["onepassword"].origin,
            "${credential:onepassword_token}": "1p-token",
            "https://example.eu.auth0.com": self.by_name["auth0"].origin,
            "${credential:auth0_client_secret}": "auth0-secret",
            "aI61p8I8aFjmYRliLWgvM9ev97kCCNDB": "auth0-app",
            "https://api.cloudflare.com": self.by_name["cloudflare"].origin,
            "${credential:cloudflare_token}": "cf-token",
            "https://api.atlassian.com": self.by_name["atlassian"].origin,
            "${credential:atlassian_key}": "at-token",
            "https://manage.office.com/api": f"{self.by_name['m365'].origin}/api",
            "${credential:m365_secret}": "m365-secret",
        }  # fmt: skip

    def sources(self, product: str) -> dict[str, dict[str, Any]]:
        """The example's sources, in small pages and asking often."""
        text = (EXAMPLES / f"{product}-poll.yaml").read_text()
        instead = dict(self._instead)
        if product == "m365":
            # It has its token where Entra has its own, and its tenant's id in the address.
            m365 = self.by_name["m365"].origin
            instead["https://login.microsoftonline.com/example.onmicrosoft.com"] = (
                f"{m365}/tenant-2"
            )
            text = text.replace(f"client_id: {_ID}", "client_id: m365-app")
            instead[_ID] = "tenant-2"
        for vendors, ours in instead.items():
            text = text.replace(vendors, ours)
        found: dict[str, dict[str, Any]] = yaml.safe_load(text)["sources"]
        for source in found.values():
            source["every"] = "100ms"
            if "for_each" in source:
                source["for_each"] = LOGS[product]
            asked = source.get("parameters", {}), source.get("cursor", {}).get("first", {})
            for given in asked:
                sizes = given.keys() & {"limit", "per_page", "$top", "maxResults", "take"}
                given |= dict.fromkeys(sizes, 5)
        return found


def identity(line: bytes) -> str:
    """Which event a record is, by the id that its vendor gives it."""
    item = json.loads(line)
    named = item.get("uuid") or item.get("_document_id") or item.get("_id")
    named = named or item.get("Id") or item["id"]
    if isinstance(named, dict):
        return f"{named['applicationName']}-{named['uniqueQualifier']}"
    return str(named) if "entity_path" not in item else f"{item['entity_path']}-{named}"


def expected() -> Counter[str]:
    front = {"github": "github-", "entra": "entra-"}
    return Counter(
        f"{front.get(product, '')}{log}-{number}"
        for product, logs in LOGS.items()
        for log in logs
        for number in range(FIRST + LATE + LATER)
    )


@pytest.fixture
def vendors(tmp_path: Path) -> Iterator[Vendors]:
    with ExitStack() as stack:
        yield Vendors(stack, tmp_path)


def stored(daemon: Daemon) -> int:
    return int(daemon.rows("SELECT coalesce(sum(count), 0) FROM batches")[0][0])


def test_every_event_is_stored_once_through_kills_limits_and_late_events(
    make_daemon: MakeDaemon, vendors: Vendors
) -> None:
    logs = [(vendors.by_name[product], log) for product, some in LOGS.items() for log in some]
    stored_in_order = [vendors.by_name[product] for product in IN_ORDER_OF_STORING]
    began_ms = int(time.time() * 1000) - 300_000
    for api, log in logs:
        for number in range(FIRST):
            # Two of a millisecond, so that a time alone does not say what has come.
            api.happened(log, number, began_ms + number // 2 * 2000)
        for number in range(FIRST, FIRST + LATE):
            if api not in stored_in_order:
                api.happened(log, number, began_ms + number * 1000 % 9000, visible=False)
    with TcpReceiver() as receiver:
        daemon = make_daemon({"out": tcp(receiver.port, format="raw")})
        daemon.config["sources"] = {
            name: source for product in LOGS for name, source in vendors.sources(product).items()
        }
        daemon.start()
        until(lambda: stored(daemon) > FIRST * len(logs) // 3)
        daemon.kill()
        daemon.start()
        until(lambda: stored(daemon) == FIRST * len(logs))
        daemon.kill()
        for api, log in logs:
            if api in stored_in_order:
                for number in range(FIRST, FIRST + LATE):
                    api.happened(log, number, began_ms + number * 1000 % 9000)
            for number in range(FIRST + LATE, FIRST + LATE + LATER):
                api.happened(log, number, began_ms + number * 2000)
            api.show_all()
        # Two sources ask Graph, and neither knows the other's limit.
        limited = [api for api in vendors.by_name.values() if api is not vendors.entra]
        for api in limited:
            api.throttle_once()
        daemon.start()
        until(lambda: stored(daemon) >= expected().total())
        asked = [len(api.asked) for api in vendors.by_name.values()]
        until(lambda: all(len(api.asked) > before + 4 for api, before in
                          zip(vendors.by_name.values(), asked, strict=True)))  # fmt: skip
        assert len(daemon.said("poll throttled")) == len(limited)
        assert daemon.terminate() == 0
    assert stored(daemon) == expected().total()
    assert set(map(identity, receiver.arrived.messages)) == set(expected())
    assert [api.problems for api in vendors.by_name.values()] == [[]] * len(LOGS)
    assert [api.throttled for api in limited] == [1] * len(limited)


def test_a_link_that_has_expired_loses_and_repeats_nothing(
    make_daemon: MakeDaemon, vendors: Vendors
) -> None:
    began_ms = int(time.time() * 1000) - 300_000
    for number in range(12):
        vendors.okta.happened("okta", number, began_ms + number * 1000)
    with TcpReceiver() as receiver:
        daemon = make_daemon({"out": tcp(receiver.port, format="raw")})
        daemon.config["sources"] = vendors.sources("okta")
        daemon.start()
        until(lambda: stored(daemon) == 12)
        until(lambda: daemon.rows("SELECT 1 FROM positions WHERE value LIKE '%\"next\"%'"))
        daemon.kill()
        vendors.okta.cursors.clear()
        vendors.okta.happened("okta", 12, began_ms + 12_000)
        daemon.start()
        until(lambda: daemon.said("poll begins again"))
        until(lambda: stored(daemon) == 13)
        assert daemon.terminate() == 0
        assert len(daemon.said("poll begins again")) == 1
    assert stored(daemon) == 13


def test_wrong_credentials_are_refused_with_advice_and_never_shown(
    make_daemon: MakeDaemon, vendors: Vendors
) -> None:
    sources = {name: source for p in LOGS for name, source in vendors.sources(p).items()}
    other = trustme.CA().issue_cert("relay", key_type=trustme.KeyType.RSA)
    vendors.key_file.with_name("other.pem").write_bytes(other.private_key_pem.bytes())
    for source in sources.values():
        if "oauth" not in source:
            source["authorization"] = "Bearer wr0ng-token"
        elif "client_secret" in source["oauth"]:
            source["oauth"]["client_secret"] = "wr0ng-token"
        else:
            source["oauth"]["private_key"] = f"${{file:{vendors.key_file.with_name('other.pem')}}}"
    daemon = make_daemon({"out": tcp(1)})
    daemon.config["sources"] = sources
    daemon.start()
    until(lambda: {line["source"] for line in daemon.said("poll failed")} == set(sources))
    reasons = {line["source"]: line["reason"] for line in daemon.said("poll failed")}
    for name, reason in reasons.items():
        known = "check `oauth`" if "oauth" in sources[name] else "check `authorization`"
        assert "HTTP 401" in reason, name
        assert known in reason, name
    until(lambda: all(daemon.metric("source_failed", source=name) == 1 for name in sources))
    assert "source github failed: cannot poll for example http" in daemon.get("/readyz")[1]
    assert daemon.terminate() == 0
    assert stored(daemon) == 0
    assert "wr0ng" not in daemon.log_text
    assert "BEGIN" not in daemon.log_text
