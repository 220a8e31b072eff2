"""Stand-ins for the audit APIs of Okta, GitHub, GitLab, Entra and Google Workspace, on loopback.

From the vendors' documentation, and strict where they are: credentials, parameters and their forms,
page sizes, opaque links and tokens, rate limits that are not to be asked again before their reset.
A test says what has happened when, and what of it is visible by now.
"""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import Certificate

from siemrelay.core.times import epoch_ms, rfc3339
from tests.support.polled.api import Answered, Served
from tests.support.servers import free_port

Headers = dict[str, str]
Query = dict[str, str]

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Wrong(Exception):
    """What the API answers to a request that it does not take."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        super().__init__(status, body)
        self.answered: Answered = status, body, headers


class Event:
    """Something that happened at `at_ms`; the API shows it once `visible` is set."""

    def __init__(self, number: int, at_ms: int, *, visible: bool) -> None:
        self.number, self.at_ms, self.visible = number, at_ms, visible


class AuditApi(Served):
    """One vendor's API. `where` names the log of an event (an organization, an application)."""

    most_per_page: ClassVar[int] = 100
    throttle_status: ClassVar[int] = 429

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.problems: list[str] = []
        self.asked: list[tuple[str, Query]] = []
        self.cursors: dict[str, Any] = {}
        self._reset_s, self._throttles = 0, False
        self.throttled = 0
        self._lock = threading.Lock()
        self._server = _Server(self)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    def happened(self, where: str, number: int, at_ms: int, *, visible: bool = True) -> None:
        with self._lock:
            self.events.setdefault(where, []).append(Event(number, at_ms, visible=visible))

    def show_all(self) -> None:
        """What was late is visible from now on."""
        with self._lock:
            for each in self.events.values():
                for event in each:
                    event.visible = True

    def throttle_once(self) -> None:
        """The next request meets the rate limit."""
        with self._lock:
            self._throttles = True

    # -- requests ---------------------------------------------------------

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answered:
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        query = dict(pairs)
        with self._lock:
            try:
                if len(query) < len(pairs):
                    raise Wrong(400, {"message": "a parameter twice"})
                if method == "POST":
                    return self.posted(parts.path, headers, body)
                self.asked.append((parts.path, query))
                self.limit()
                return self.page(parts.path, query, headers)
            except Wrong as wrong:
                return wrong.answered

    def limit(self) -> None:
        """Refuse the request that meets the limit, and note one that comes before its reset."""
        now_s = time.time()
        if now_s < self._reset_s:
            self.problems.append(f"asked {self._reset_s - now_s:.2f} s before the reset")
        if self._throttles:
            self._reset_s, self._throttles = int(now_s) + 1, False
            self.throttled += 1
            raise Wrong(
                self.throttle_status, {"message": "API rate limit exceeded"},
                **self.limit_headers(self._reset_s),
            )  # fmt: skip

    def limit_headers(self, reset_s: int) -> Headers:
        """The headers of the answer at the rate limit, which ends at that time (seconds)."""
        return {"Retry-After": "1"}

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        raise NotImplementedError

    def posted(self, path: str, headers: Any, body: bytes) -> Answered:
        """The answer to a POST: most APIs have it at their token endpoint only."""
        return self.token(path, dict(parse_qsl(body.decode())))

    def token(self, path: str, form: Query) -> Answered:
        raise Wrong(404, {"message": "Not Found"})

    # -- what they share ----------------------------------------------------

    def known(self, query: Query, *names: str) -> None:
        if unknown := query.keys() - set(names):
            raise Wrong(400, {"message": f"unknown parameter {sorted(unknown)}"})

    def size(self, query: Query, name: str) -> int:
        text = query.get(name, str(self.most_per_page))
        if not text.isdecimal() or not 1 <= int(text) <= self.most_per_page:
            raise Wrong(400, {"message": f"{name} must be from 1 to {self.most_per_page}"})
        return int(text)

    def moment(self, text: str, form: str = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z") -> int:
        if not re.fullmatch(form, text):
            raise Wrong(400, {"message": f"{text} is no time"})
        return epoch_ms(text)

    def visible(self, where: str, since_ms: int, *, newest_first: bool) -> list[Event]:
        if where not in self.events:
            raise Wrong(404, {"message": "Not Found"})
        found = [e for e in self.events[where] if e.visible and e.at_ms >= since_ms]
        return sorted(found, key=lambda e: (e.at_ms, e.number), reverse=newest_first)

    def remember(self, state: Any) -> str:
        """An opaque cursor."""
        name = f"c{len(self.cursors)}=="
        self.cursors[name] = state
        return name

    def recall(self, name: str) -> Any:
        if name not in self.cursors:
            raise Wrong(400, {"message": "invalid cursor"})
        return self.cursors[name]

    def rest(self, query: Query, name: str, refused: Any) -> list[Event] | None:
        """What is left behind the cursor in parameter `name`, which is of one query; None without.

        `refused` is the body of the answer to a cursor of another query.
        """
        if name not in query:
            return None
        asked, left = self.recall(query[name])
        if asked != {**query, name: ""}:
            raise Wrong(400, refused)
        found: list[Event] = left
        return found

    def cursor_to(self, left: list[Event], query: Query, name: str) -> str:
        """The cursor for parameter `name`, if something is left; else the empty text."""
        return self.remember(({**query, name: ""}, left)) if left else ""


class SecretApi(AuditApi):
    """An API that takes one fixed secret: a bearer token, or what a client gets tokens for."""

    def __init__(self, secret: str) -> None:
        super().__init__()
        self.secret = secret


def expect_bearer(headers: Any, token: str, refused: Any) -> None:
    """Answer 401 with that body to a request without the token."""
    if headers.get("Authorization") != f"Bearer {token}":
        raise Wrong(401, refused)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: AuditApi) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                status, found, headers = api.answer(self.command, self.path, self.headers, body)
                data = json.dumps(found).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", free_port()), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A relay that is killed breaks off: part of the tests."""


# -- token endpoints ------------------------------------------------------------


class Tokens:
    """Checks a client's signed token (RFC 7523) and gives access tokens for it."""

    def __init__(self, key: rsa.RSAPrivateKey, url: Callable[[], str]) -> None:
        self.key, self._url = key, url
        self._met = set[str]()
        self.given: list[str] = []

    def checked(self, token: str, **expected: str) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            header, claims, signature = token.split(".")
            signed = f"{header}.{claims}".encode()
            self.key.public_key().verify(
                _decoded(signature), signed, padding.PKCS1v15(), hashes.SHA256()
            )
        except (ValueError, InvalidSignature):
            raise Wrong(
                401, {"error": "invalid_client", "error_description": "bad signature"}
            ) from None
        head, found = json.loads(_decoded(header)), json.loads(_decoded(claims))
        now_s = time.time()
        good = (
            head["alg"] == "RS256" and found["aud"] == self._url() and found["jti"] not in self._met
            and found["iat"] <= now_s < found["exp"] <= found["iat"] + 3600
            and all(found.get(name) == value for name, value in expected.items())
        )  # fmt: skip
        if not good:
            raise Wrong(401, {"error": "invalid_client", "error_description": "bad claims"})
        self._met.add(found["jti"])
        return head, found

    def give(self) -> Answered:
        self.given.append(f"access-{len(self.given)}")
        return 200, {"access_token": self.given[-1], "token_type": "Bearer", "expires_in": 3600}, {}

    def check(self, headers: Any, refused: Any) -> None:
        if headers.get("Authorization") not in {f"Bearer {token}" for token in self.given}:
            raise Wrong(401, refused)


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def expect_form(form: Query, **expected: str) -> None:
    for name, value in expected.items():
        if form.get(name) != value:
            raise Wrong(400, {"error": "invalid_request", "error_description": f"bad {name}"})


# -- the vendors ------------------------------------------------------------------


class Okta(AuditApi):
    """System Log: ascending by the time of storing, every answer names a next link."""

    most_per_page = 1000

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        super().__init__()
        self.tokens = Tokens(key, lambda: f"{self.origin}/oauth2/v1/token")

    def limit_headers(self, reset_s: int) -> Headers:
        return {"X-Rate-Limit-Limit": "60", "X-Rate-Limit-Remaining": "0",
                "X-Rate-Limit-Reset": str(reset_s)}  # fmt: skip

    def token(self, path: str, form: Query) -> Answered:
        if path != "/oauth2/v1/token":
            raise Wrong(404, {})
        expect_form(form, grant_type="client_credentials", client_assertion_type=_ASSERTION_TYPE,
                scope="okta.logs.read")  # fmt: skip
        head, _ = self.tokens.checked(form["client_assertion"], iss="okta-app", sub="okta-app")
        if head.get("kid") != "relay-2026":
            raise Wrong(401, {"error": "invalid_client", "error_description": "unknown kid"})
        return self.tokens.give()

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        self.tokens.check(headers, {"errorCode": "E0000011", "errorSummary": "Invalid token"})
        if path != "/api/v1/logs":
            raise Wrong(404, {"errorCode": "E0000007"})
        self.known(query, "since", "until", "after", "limit", "sortOrder", "filter", "q")
        size = self.size(query, "limit")
        if query.get("sortOrder") != "ASCENDING":
            raise Wrong(400, {"errorSummary": "polling requests are ascending"})
        stored = [e for e in self.events["okta"] if e.visible]
        if "after" in query:
            start = self.recall(query["after"])
        else:
            since_ms = self.moment(query["since"])
            start = next((i for i, e in enumerate(stored) if e.at_ms >= since_ms), len(stored))
        found = stored[start : start + size]
        following = query | {"after": self.remember(start + len(found))}
        following.pop("since", None)
        body = [{"uuid": f"okta-{e.number}", "published": rfc3339(e.at_ms / 1000),
                 "eventType": "user.session.start"} for e in found]  # fmt: skip
        link = f'<{self.origin}{path}?{urlencode(following)}>; rel="next"'
        return 200, body, {"Link": f'<{self.origin}{path}>; rel="self", {link}'}


class GitHub(SecretApi):
    """The audit log of organizations: `phrase`, cursors in links, a 403 as the limit."""

    throttle_status = 403

    def limit_headers(self, reset_s: int) -> Headers:
        return {"X-RateLimit-Limit": "1750", "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": str(reset_s)}  # fmt: skip

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        expect_bearer(headers, self.secret, {"message": "Bad credentials"})
        if not headers.get("User-Agent"):
            raise Wrong(403, {"message": "Request forbidden by administrative rules"})
        match = re.fullmatch(r"/orgs/([^/]+)/audit-log", path)
        if not match:
            raise Wrong(404, {"message": "Not Found"})
        self.known(query, "phrase", "include", "after", "before", "order", "per_page")
        size = self.size(query, "per_page")
        left = self.rest(query, "after", {"message": "the cursor is of another query"})
        if left is None:
            phrase = re.fullmatch("created:>=(.+)", query["phrase"])
            if not phrase:
                raise Wrong(400, {"message": "phrase not understood"})
            since_ms = self.moment(phrase[1], r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
            order = query.get("order", "desc")
            left = self.visible(match[1], since_ms, newest_first=order != "asc")
        found, left = left[:size], left[size:]
        body = [{"_document_id": f"github-{match[1]}-{e.number}", "@timestamp": e.at_ms,
                 "action": "repo.create"} for e in found]  # fmt: skip
        if not left:
            return 200, body, {}
        after = self.cursor_to(left, query, "after")
        link = f"<{self.origin}{path}?{urlencode(query | {'after': after})}>"
        return 200, body, {"Link": f'{link}; rel="next", <{self.origin}{path}>; rel="first"'}


_GITLAB_MOST_MS = 30 * 86_400_000
"""A query for audit events covers 30 days at most."""


class GitLab(SecretApi):
    """The audit events of groups: newest first, keyset pages, paths encoded in the address."""

    def limit_headers(self, reset_s: int) -> Headers:
        return {"RateLimit-Remaining": "0", "RateLimit-Reset": str(reset_s), "Retry-After": "1"}

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        expect_bearer(headers, self.secret, {"message": "401 Unauthorized"})
        match = re.fullmatch("/api/v4/groups/([^/]+)/audit_events", path)
        if not match:
            raise Wrong(404, {"message": "404 Group Not Found"})
        self.known(query, "created_after", "created_before", "pagination", "per_page", "cursor")
        size = self.size(query, "per_page")
        if query.get("pagination") != "keyset":
            raise Wrong(405, {"error": "Offset pagination is not supported"})
        exact = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
        since_ms = self.moment(query["created_after"], exact)
        before_ms = self.moment(query["created_before"], exact)
        if before_ms - since_ms > _GITLAB_MOST_MS:
            raise Wrong(400, {"message": "at most 30 days"})
        where = match[1].replace("%2F", "/")
        found = self.visible(where, since_ms, newest_first=True)
        found = [e for e in found if e.at_ms <= before_ms]
        if "cursor" in query:
            last = self.recall(query["cursor"])
            found = [e for e in found if (e.at_ms, e.number) < last]
        page, left = found[:size], found[size:]
        body = [{"id": e.number, "author_id": 1, "entity_path": where,
                 "created_at": rfc3339(e.at_ms / 1000)} for e in page]  # fmt: skip
        if not left:
            return 200, body, {}
        cursor = self.remember((page[-1].at_ms, page[-1].number))
        link = f'<{self.origin}{path}?{urlencode(query | {"cursor": cursor})}>; rel="next"'
        return 200, body, {"Link": link}


class Entra(AuditApi):
    """Sign-ins and directory audits of Microsoft Graph: OData, newest first, whole next links."""

    most_per_page = 1000
    _TIMES: ClassVar[Mapping[str, str]] = {
        "signIns": "createdDateTime", "directoryAudits": "activityDateTime"
    }  # fmt: skip

    def __init__(self, key: rsa.RSAPrivateKey, certificate: Certificate) -> None:
        super().__init__()
        self.tokens = Tokens(key, lambda: f"{self.origin}/tenant-1/oauth2/v2.0/token")
        self._thumbprint = certificate.fingerprint(hashes.SHA256())

    def token(self, path: str, form: Query) -> Answered:
        if path != "/tenant-1/oauth2/v2.0/token":
            raise Wrong(404, {})
        expect_form(form, grant_type="client_credentials", client_assertion_type=_ASSERTION_TYPE,
                client_id="entra-app", scope="https://graph.microsoft.com/.default")  # fmt: skip
        head, _ = self.tokens.checked(form["client_assertion"], iss="entra-app", sub="entra-app")
        if _decoded(head.get("x5t#S256", "")) != self._thumbprint:
            raise Wrong(401, {"error": "invalid_client", "error_description": "AADSTS700027"})
        return self.tokens.give()

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        self.tokens.check(headers, {"error": {"code": "InvalidAuthenticationToken"}})
        log = path.removeprefix("/v1.0/auditLogs/")
        if log not in self._TIMES:
            raise Wrong(404, {"error": {"code": "ResourceNotFound"}})
        self.known(query, "$filter", "$top", "$skiptoken")
        size = self.size(query, "$top")
        if "$skiptoken" in query:
            left = self.recall(query["$skiptoken"])
        else:
            match = re.fullmatch(rf"{self._TIMES[log]} ge (\S+)", query["$filter"])
            if not match:
                raise Wrong(400, {"error": {"code": "BadRequest", "message": "Invalid filter"}})
            left = self.visible(log, self.moment(match[1]), newest_first=True)
        found, left = left[:size], left[size:]
        value = [{"id": f"entra-{log}-{e.number}", self._TIMES[log]: rfc3339(e.at_ms / 1000)}
                 for e in found]  # fmt: skip
        body: dict[str, Any] = {"@odata.context": f"{self.origin}/v1.0/$metadata", "value": value}
        if left:
            following = query | {"$skiptoken": self.remember(left)}
            body["@odata.nextLink"] = f"{self.origin}{path}?{urlencode(following)}"
        return 200, body, {}


class GoogleWorkspace(AuditApi):
    """The Reports API: newest first, page tokens, no `items` where there are none."""

    most_per_page = 1000

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        super().__init__()
        self.tokens = Tokens(key, lambda: f"{self.origin}/token")

    def token(self, path: str, form: Query) -> Answered:
        expect_form(form, grant_type=_JWT_BEARER)
        self.tokens.checked(
            form["assertion"], iss="relay@example.iam.gserviceaccount.com",
            sub="auditor@example.com",
            scope="https://www.googleapis.com/auth/admin.reports.audit.readonly",
        )  # fmt: skip
        return self.tokens.give()

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        self.tokens.check(headers, {"error": {"code": 401, "status": "UNAUTHENTICATED"}})
        match = re.fullmatch("/admin/reports/v1/activity/users/all/applications/([a-z_]+)", path)
        if not match:
            raise Wrong(400, {"error": {"code": 400, "message": "Invalid application"}})
        self.known(query, "startTime", "endTime", "maxResults", "pageToken")
        size = self.size(query, "maxResults")
        refused = {"error": {"code": 400, "message": "Invalid page token"}}
        left = self.rest(query, "pageToken", refused)
        if left is None:
            left = self.visible(match[1], self.moment(query["startTime"]), newest_first=True)
        found, left = left[:size], left[size:]
        body: dict[str, Any] = {"kind": "admin#reports#activities"}
        if found:
            body["items"] = [
                {"id": {"time": rfc3339(e.at_ms / 1000), "uniqueQualifier": str(e.number),
                        "applicationName": match[1]}, "events": [{"name": "login_success"}]}
                for e in found
            ]  # fmt: skip
        if left:
            body["nextPageToken"] = self.cursor_to(left, query, "pageToken")
        return 200, body, {}
