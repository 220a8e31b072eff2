"""Stand-ins for the audit APIs of Slack, 1Password, Auth0 and others, on loopback.

As strict as those of `polled.products`: what the documentation does not name is refused.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import urlencode

from siemrelay.core.times import rfc3339
from tests.support.polled.api import Answered
from tests.support.polled.products import (
    Headers,
    Query,
    SecretApi,
    Wrong,
    expect_bearer,
    expect_form,
)


class Slack(SecretApi):
    """The Audit Logs API: newest first, seconds, an empty cursor on the last page."""

    most_per_page = 9999

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        expect_bearer(headers, self.secret, {"ok": False, "error": "invalid_auth"})
        if path != "/audit/v1/logs":
            raise Wrong(404, {})
        self.known(query, "oldest", "latest", "limit", "action", "actor", "entity", "cursor")
        size = self.size(query, "limit")
        if not re.fullmatch(r"\d{10}", query.get("oldest", "")):
            raise Wrong(400, {"ok": False, "error": "invalid_arguments"})
        left = self.rest(query, "cursor", {"ok": False, "error": "invalid_cursor"})
        if left is None:
            left = self.visible("slack", int(query["oldest"]) * 1000, newest_first=True)
        found, left = left[:size], left[size:]
        entries = [{"id": f"slack-{e.number}", "date_create": e.at_ms // 1000,
                    "action": "user_login"} for e in found]  # fmt: skip
        after = self.cursor_to(left, query, "cursor")
        return 200, {"entries": entries, "response_metadata": {"next_cursor": after}}, {}


class OnePassword(SecretApi):
    """The Events API: the body is either how to begin, or the cursor and nothing else."""

    def limit_headers(self, reset_s: int) -> Headers:
        return {"RateLimit-Limit": "600", "RateLimit-Remaining": "0", "RateLimit-Reset": "1"}

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        raise Wrong(405, {"Error": {"Message": "POST"}})

    def posted(self, path: str, headers: Any, body: bytes) -> Answered:
        self.asked.append((path, {}))
        self.limit()
        expect_bearer(headers, self.secret, {"Error": {"Message": "Unauthorized"}})
        log = path.removeprefix("/api/v2/")
        if log not in self.events or headers.get("Content-Type") != "application/json":
            raise Wrong(404, {})
        asked = json.loads(body)
        if asked.keys() == {"cursor"}:
            start, size = self.recall(asked["cursor"])
        elif asked.keys() == {"limit", "start_time"} and isinstance(asked["limit"], int):
            size, since_ms = asked["limit"], self.moment(asked["start_time"])
            stored = self.events[log]
            start = next((i for i, e in enumerate(stored) if e.at_ms >= since_ms), len(stored))
        else:
            raise Wrong(400, {"Error": {"Message": "a reset cursor or a cursor"}})
        found = self.events[log][start : start + size]
        items = [{"uuid": f"{log}-{e.number}", "timestamp": rfc3339(e.at_ms / 1000)} for e in found]
        cursor = self.remember((start + len(found), size))
        more = start + len(found) < len(self.events[log])
        return 200, {"cursor": cursor, "has_more": more, "items": items}, {}


class Auth0(SecretApi):
    """Tenant logs from an id on, in the order of storing; an empty page has no link."""

    def limit_headers(self, reset_s: int) -> Headers:
        return {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": str(reset_s)}  # fmt: skip

    def token(self, path: str, form: Query) -> Answered:
        if path != "/oauth/token" or form.get("client_secret") != self.secret:
            raise Wrong(401, {"error": "access_denied"})
        expect_form(form, grant_type="client_credentials", client_id="auth0-app",
                    audience=f"{self.origin}/api/v2/")  # fmt: skip
        return (
            200,
            {"access_token": "auth0-access", "token_type": "Bearer", "expires_in": 86400},
            {},
        )

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        expect_bearer(headers, "auth0-access", {"statusCode": 401, "error": "Unauthorized"})
        if path != "/api/v2/logs":
            raise Wrong(404, {})
        self.known(query, "from", "take")
        size = self.size(query, "take")
        if not re.fullmatch(r"900\d{53}", query.get("from", "")):
            raise Wrong(400, {"statusCode": 400, "errorCode": "invalid_query_string"})
        found = [
            event for event in enumerate(self.events["auth0"]) if _log_id(event[0]) > query["from"]
        ][:size]
        body = [{"_id": f"auth0-{e.number}", "log_id": _log_id(at), "type": "s",
                 "date": rfc3339(e.at_ms / 1000)} for at, e in found]  # fmt: skip
        if not body:
            return 200, body, {}
        after = urlencode({"from": body[-1]["log_id"], "take": size})
        return 200, body, {"Link": f'<{self.origin}{path}?{after}>; rel="next"'}


def _log_id(at: int) -> str:
    return f"90020991231235959{at:039d}"


class Cloudflare(SecretApi):
    """Audit logs, version 2: both ends of the time are required, the cursor is of one query."""

    most_per_page = 1000

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        refused = {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]}
        expect_bearer(headers, self.secret, refused)
        match = re.fullmatch("/client/v4/accounts/([^/]+)/logs/audit", path)
        if not match:
            raise Wrong(404, {"success": False})
        self.known(query, "since", "before", "direction", "limit", "cursor")
        size = self.size(query, "limit")
        since_ms, before_ms = self.moment(query["since"]), self.moment(query["before"])
        left = self.rest(query, "cursor", {"success": False})
        if left is None:
            newest_first = query.get("direction", "desc") != "asc"
            left = [e for e in self.visible(match[1], since_ms, newest_first=newest_first)
                    if e.at_ms < before_ms]  # fmt: skip
        found, left = left[:size], left[size:]
        result = [{"id": f"{match[1]}-{e.number}", "action": {"time": rfc3339(e.at_ms / 1000),
                   "result": "success", "type": "create"}} for e in found]  # fmt: skip
        cursor = self.cursor_to(left, query, "cursor")
        info = {"count": str(len(result)), "cursor": cursor}
        return 200, {"success": True, "errors": [], "result": result, "result_info": info}, {}


class Atlassian(SecretApi):
    """The stream of an organization's events: ascending, each page with something has a cursor."""

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        expect_bearer(headers, self.secret, {"code": 401, "message": "Unauthorized"})
        match = re.fullmatch("/admin/v1/orgs/([^/]+)/events-stream", path)
        if not match:
            raise Wrong(404, {"code": 404})
        stored = self.events[match[1]]
        if "cursor" in query:
            self.known(query, "cursor")
            start = self.recall(query["cursor"])
        else:
            self.known(query, "from", "sortOrder")
            if query.get("sortOrder") != "asc" or not query.get("from", "").isdecimal():
                raise Wrong(400, {"code": 400})
            since_ms = int(query["from"])
            start = next((i for i, e in enumerate(stored) if e.at_ms >= since_ms), len(stored))
        found = stored[start : start + 5]
        data = [{"type": "events", "id": f"{match[1]}-{e.number}", "attributes":
                 {"time": rfc3339(e.at_ms / 1000), "action": "user_login"}}
                for e in found]  # fmt: skip
        following = self.remember(start + len(found)) if found else None
        return 200, {"data": data, "meta": {"next": following, "page_size": len(data)}}, {}


class Microsoft365(SecretApi):
    """The Management Activity API: lists of contents, at most 24 hours of the last seven days."""

    def token(self, path: str, form: Query) -> Answered:
        if path != "/tenant-2/oauth2/v2.0/token" or form.get("client_secret") != self.secret:
            raise Wrong(401, {"error": "invalid_client"})
        expect_form(form, grant_type="client_credentials", client_id="m365-app",
                    scope="https://manage.office.com/.default")  # fmt: skip
        return 200, {"access_token": "m365-access", "token_type": "Bearer", "expires_in": 3599}, {}

    def page(self, path: str, query: Query, headers: Any) -> Answered:
        expect_bearer(headers, "m365-access", {"error": {"code": "AF10001"}})
        if content := re.fullmatch(r"/api/v1\.0/tenant-2/activity/feed/audit/([^/]+)/(\d+)", path):
            return 200, [{"Id": f"{content[1]}-{content[2]}", "Operation": "Send"}], {}
        if path != "/api/v1.0/tenant-2/activity/feed/subscriptions/content":
            raise Wrong(404, {"error": {"code": "AF20000"}})
        self.known(query, "contentType", "startTime", "endTime", "PublisherIdentifier", "nextPage")
        if "nextPage" in query:
            left = self.recall(query["nextPage"])
        else:
            exact = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
            start_ms = self.moment(query["startTime"], exact)
            end_ms = self.moment(query["endTime"], exact)
            if end_ms - start_ms > _DAY_MS or start_ms < time.time() * 1000 - 7 * _DAY_MS:
                raise Wrong(400, {"error": {"code": "AF20030"}})
            left = [e for e in self.visible(query["contentType"], start_ms, newest_first=False)
                    if e.at_ms < end_ms]  # fmt: skip
        found, left = left[:4], left[4:]
        log = query["contentType"]
        contents = [
            {"contentType": log, "contentId": f"{log}${e.number}", "contentCreated":
             rfc3339(e.at_ms / 1000), "contentUri":
             f"{self.origin}/api/v1.0/tenant-2/activity/feed/audit/{log}/{e.number}"}
            for e in found
        ]  # fmt: skip
        if not left:
            return 200, contents, {}
        following = urlencode({"contentType": log, "nextPage": self.remember(left)})
        return 200, contents, {"NextPageUri": f"{self.origin}{path}?{following}"}


_DAY_MS = 86_400_000
