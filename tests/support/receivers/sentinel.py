"""Stand-ins for Entra's token endpoint and Azure Monitor's Logs Ingestion API.

From their documentation, with the words that the services are known to answer with.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.receivers.http import Answer, HttpReceiver, Request

TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
CLIENT, SECRET = "11111111-2222-3333-4444-555555555555", "x~very.secret-value"
RULE, STREAM = "dcr-000a00a000a00000a000000aa000a0aa", "Custom-AuditEvents_CL"
SCOPE = "https://monitor.azure.com/.default"
CALL_BYTES = 1_048_576


class Entra(HttpReceiver):
    """Gives tokens that are good for an hour; `tokens` are those in force."""

    def __init__(self, **more: Any) -> None:
        super().__init__(self._answer, **more)
        self.tokens: list[str] = []
        self.given = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def _answer(self, request: Request) -> Answer:
        if not (match := re.fullmatch(r"/([^/]+)/oauth2/v2\.0/token", request.target)):
            return Answer(404, "<html>not found</html>")
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        form = {name: value for name, (value,) in parse_qs(request.content.decode()).items()}
        if match[1] != TENANT:
            return _refusal("invalid_request", f"AADSTS90002: Tenant '{match[1]}' not found.", 400)
        if form.get("client_id") != CLIENT:
            said = f"AADSTS700016: Application '{form.get('client_id')}' was not found."
            return _refusal("unauthorized_client", said, 400)
        if form.get("client_secret") != SECRET:
            return _refusal("invalid_client", "AADSTS7000215: Invalid client secret provided.", 401)
        if form.get("grant_type") != "client_credentials" or form.get("scope") != SCOPE:
            return _refusal("invalid_scope", "AADSTS1002012: The scope is not valid.", 400)
        self.given += 1
        self.tokens.append(f"token-{self.given}")
        found = {"token_type": "Bearer", "expires_in": 3599, "access_token": self.tokens[-1]}
        return Answer(200, json.dumps(found), Content_Type="application/json")


class LogsIngestion(HttpReceiver):
    """One rule with one stream; `granted` is whether the app has its role on the rule."""

    def __init__(self, entra: Entra, **more: Any) -> None:
        super().__init__(self._answer, **more)
        self.entra = entra
        self.granted = True
        self.fault: Answer | None = None
        self.rows: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def _answer(self, request: Request) -> Answer:
        if self.fault is not None:
            return self.fault
        parts = urlsplit(request.target)
        match = re.fullmatch(r"/dataCollectionRules/([^/]+)/streams/([^/]+)", parts.path)
        if not match or parse_qs(parts.query) != {"api-version": ["2023-01-01"]}:
            return _error(404, "NotFound", "Not found.")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.entra.tokens:
            return _error(401, "InvalidToken", "The authentication token is invalid or expired.")
        if match[1] != RULE:
            said = f"Data collection rule with immutable Id '{match[1]}' not found."
            return _error(404, "NotFound", said)
        if not self.granted:
            return _error(
                403, "OperationFailed",
                "The authentication token provided does not have access to ingest data for the "
                f"data collection rule with immutable Id '{RULE}'.",
            )  # fmt: skip
        if match[2] != STREAM:
            return _error(
                400, "InvalidStream",
                f"The stream {match[2]} was not configured in the data collection rule with "
                f"immutable Id {RULE}.",
            )  # fmt: skip
        if request.headers["content-type"] != "application/json":
            return _error(415, "UnsupportedMediaType", "Content-Type must be application/json.")
        if len(request.content) > CALL_BYTES:
            said = f"Maximum allowed content length: {CALL_BYTES} bytes (1 MB)."
            return _error(413, "ContentLengthLimitExceeded", said)
        try:
            rows = json.loads(request.content)
            assert isinstance(rows, list)
            assert rows
            assert all(isinstance(row, dict) for row in rows)
        except (ValueError, AssertionError):
            return _error(400, "InvalidRequest", "The body must be a JSON array of objects.")
        self.rows += rows
        return Answer(204)


def _error(status: int, code: str, message: str) -> Answer:
    words = json.dumps({"error": {"code": code, "message": message}})
    return Answer(status, words, Content_Type="application/json")


def _refusal(error: str, description: str, status: int) -> Answer:
    words = json.dumps({"error": error, "error_description": description})
    return Answer(status, words, Content_Type="application/json")
