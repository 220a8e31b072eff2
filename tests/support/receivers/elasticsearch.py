"""A stand-in for Elasticsearch's bulk API, strict about what the real one refuses.

From the documentation of the bulk API, data streams and `filter_path`. It keeps documents by
`_id`, knows the first type that each field was seen with, and can be made busy, closed or blind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.receivers.http import Answer, HttpReceiver, Request

KNOWN_PARAMETERS = {"filter_path", "pipeline", "refresh", "timeout", "wait_for_active_shards"}
MOST_ID_BYTES = 512


class Refused(Exception):
    """An error object with its status."""

    def __init__(self, status: int, kind: str, reason: str, caused_by: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.error: dict[str, Any] = {"type": kind, "reason": reason}
        if caused_by:
            self.error["caused_by"] = {"type": "illegal_argument_exception", "reason": caused_by}


class Elasticsearch(HttpReceiver):
    """One data stream called `index`, for those who show `authorization`.

    `busy` gives the status that a document is turned away with, or 0; it is asked once per item,
    before anything else about it, with the id of the event in it (its `_id`, where it has none).
    With a list in `failures`, that is the stream's failure store: what cannot be parsed goes there.
    """

    def __init__(
        self, index: str = "logs-siemrelay-default", *, authorization: str | None = None,
        most_bytes: int = 100 * 1024 * 1024, pipelines: tuple[str, ...] = (), **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(self._answer, **more)
        self.failures: list[dict[str, Any]] | None = None
        self.index, self.authorization, self.most_bytes = index, authorization, most_bytes
        self.pipelines = pipelines
        self.documents: dict[str, dict[str, Any]] = {}
        self.busy: Callable[[str], int] = lambda name: 0
        self.blocked = False
        self._types: dict[str, type] = {}

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        """The documents by the ids of their events."""
        found = {event_id(document) or name: document for name, document in self.documents.items()}
        assert len(found) == len(self.documents), "two events of one id: look at `documents`"
        return found

    def _answer(self, request: Request) -> Answer:
        parameters = parse_qs(urlsplit(request.target).query)
        try:
            items = self._bulk(request, parameters)
            found: dict[str, Any] = {
                "took": 1, "errors": any("error" in item["create"] for item in items),
                "items": items,
            }  # fmt: skip
            status = 200
        except Refused as refused:
            status = refused.status
            found = {
                "error": {"root_cause": [refused.error], **refused.error}, "status": status,
            }  # fmt: skip
        paths = [path.split(".") for given in parameters.get("filter_path", ()) for path in
                 given.split(",")]  # fmt: skip
        return Answer(
            status, json.dumps(filtered(found, paths) if paths else found),
            Content_Type="application/json",
        )  # fmt: skip

    def _bulk(self, request: Request, parameters: dict[str, list[str]]) -> list[dict[str, Any]]:
        if self.authorization and request.headers.get("authorization") != self.authorization:
            raise Refused(401, "security_exception", "missing authentication credentials")
        path = [unquote(part) for part in urlsplit(request.target).path.split("/")[1:]]
        index = path[0] if len(path) > 1 else ""
        if path[-1] != "_bulk" or len(path) > 2:
            raise Refused(405, "", f"Incorrect HTTP method for uri [{request.target}]")
        for name in parameters.keys() - KNOWN_PARAMETERS:
            reason = f"request [{'/'.join(path)}] contains unrecognized parameter: [{name}]"
            raise Refused(400, "illegal_argument_exception", reason)
        kind = request.headers.get("content-type", "")
        if kind not in ("application/x-ndjson", "application/json"):
            raise Refused(406, "", f"Content-Type header [{kind}] is not supported")
        body = request.content
        if len(body) > self.most_bytes:
            raise Refused(413, "", "")
        if not body.endswith(b"\n"):
            reason = "The bulk request must be terminated by a newline [\\n]"
            raise Refused(400, "illegal_argument_exception", reason)
        lines = body.split(b"\n")[:-1]
        actions = [self._action(number, line) for number, line in enumerate(lines[::2], 1)]
        if len(lines) % 2:
            reason = "the bulk request has an action without a source"
            raise Refused(400, "illegal_argument_exception", reason)
        pipeline = parameters.get("pipeline", [""])[0]
        return [
            self._item(action.get("_index", index), pipeline, action, line)
            for action, line in zip(actions, lines[1::2], strict=True)
        ]

    def _action(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
            ((name, action),) = found.items()
            assert name == "create", name
            assert not action.keys() - {"_id", "_index", "require_alias"}
        except (ValueError, AttributeError, AssertionError) as error:
            reason = f"Malformed action/metadata line [{2 * number - 1}]: {error}"
            raise Refused(400, "illegal_argument_exception", reason) from error
        return dict(action)

    def _item(
        self, index: str, pipeline: str, action: dict[str, Any], line: bytes
    ) -> dict[str, Any]:
        name = action.get("_id", f"made-up-{len(self.documents)}")
        item: dict[str, Any] = {"_index": index, "_id": name}
        try:
            self._create(index, pipeline, name, line)
            item |= {"result": "created", "status": 201}
        except Refused as refused:
            if self.failures is not None and refused.error["type"] == "document_parsing_exception":
                # Such an item has no `error`: it stands in the failure store's document.
                self.failures.append({"document": {"id": name}, "error": refused.error})
                item |= {"_index": f".fs-{index}", "result": "created", "status": 201,
                         "failure_store": "used"}  # fmt: skip
            else:
                item |= {"status": refused.status, "error": refused.error}
        return {"create": item}

    def _create(self, index: str, pipeline: str, name: str, line: bytes) -> None:
        if status := self.busy(event_id(line) or name):
            kind = {429: "es_rejected_execution_exception", 503: "unavailable_shards_exception"}
            raise Refused(status, kind.get(status, "exception"), "not now")
        if pipeline and pipeline not in self.pipelines:
            reason = f"pipeline with id [{pipeline}] does not exist"
            raise Refused(400, "illegal_argument_exception", reason)
        if index != self.index:
            reason = f"no such index [{index}] and [action.auto_create_index] is [false]"
            raise Refused(404, "index_not_found_exception", reason)
        if self.blocked:
            reason = f"index [{index}] blocked by: [FORBIDDEN/8/index write (api)];"
            raise Refused(403, "cluster_block_exception", reason)
        if not 0 < len(name.encode()) <= MOST_ID_BYTES:
            reason = f"id [{name}] is too long, must be no longer than 512 bytes"
            raise Refused(400, "illegal_argument_exception", reason)
        if name in self.documents:
            reason = f"[{name}]: version conflict, document already exists (current version [1])"
            raise Refused(409, "version_conflict_engine_exception", reason)
        self.documents[name] = self._parsed(line)

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            document = json.loads(line, object_pairs_hook=without_twins)
            assert isinstance(document, dict), "not an object"
        except (ValueError, AssertionError) as error:
            raise Refused(
                400, "document_parsing_exception", "failed to parse", str(error)
            ) from error
        if "@timestamp" not in document:
            reason = "data stream timestamp field [@timestamp] is missing"
            raise Refused(400, "document_parsing_exception", reason)
        try:
            datetime.fromisoformat(document["@timestamp"])
        except (ValueError, TypeError) as error:
            reason = "failed to parse field [@timestamp] of type [date]"
            raise Refused(400, "document_parsing_exception", reason, str(error)) from error
        for field, value in flattened("", document):
            if self._types.setdefault(field, type(value)) is not type(value):
                reason = f"failed to parse field [{field}] of type [{self._types[field].__name__}]"
                raise Refused(400, "document_parsing_exception", reason, f"For input: {value!r}")
        return document


def event_id(document: bytes | dict[str, Any]) -> str:
    """The event's own id, in ECS or the `json` format; empty where there is none."""
    try:
        found = json.loads(document) if isinstance(document, bytes) else document
        return str(found.get("id") or found["event"]["id"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("Duplicate field")
    return members


def flattened(above: str, document: dict[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in document.items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(each, dict) for each in values):
            found.append((above + name, {}))
            for each in values:
                found += flattened(f"{above}{name}.", each) if isinstance(each, dict) else []
        else:
            found += [(above + name, each) for each in values if each is not None]
    return found


def filtered(value: Any, paths: list[list[str]]) -> Any:
    """What `filter_path` leaves of an answer."""
    if any(not path for path in paths):
        return value
    if isinstance(value, list):
        return [filtered(each, paths) for each in value]
    kept = {}
    for name, inner in value.items() if isinstance(value, dict) else ():
        below = [path[1:] for path in paths if path[0] in ("*", name)]
        if below:
            kept[name] = filtered(inner, below)
    return kept
