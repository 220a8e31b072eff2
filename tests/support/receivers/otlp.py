"""A stand-in for an OTLP/HTTP receiver of logs that reads with OpenTelemetry's own messages.

Anything that is no ExportLogsServiceRequest in JSON is refused with 400, unknown members too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tests.support.receivers.http import Answer, HttpReceiver, Request


class OtlpReceiver(HttpReceiver):
    """Keeps log records; those that `rejects` gives words for are rejected with them.

    `fault` is an answer to give instead, before anything is read.
    """

    def __init__(self, *, authorization: str | None = None, **more: Any) -> None:
        super().__init__(self._answer, **more)
        self.authorization = authorization
        self.records: list[LogRecord] = []
        self.resources: list[Resource] = []
        self.rejects: Callable[[LogRecord], str] = lambda record: ""
        self.fault: Answer | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def names(self) -> list[str]:
        """The events' own ids."""
        return [str(plain(record.attributes)["audit.id"]) for record in self.records]

    def _answer(self, request: Request) -> Answer:
        if self.fault is not None:
            return self.fault
        if self.authorization and request.headers.get("authorization") != self.authorization:
            return said(401, "unauthenticated")
        if request.target != "/v1/logs":
            return Answer(404, "404 page not found")
        if request.headers["content-type"] != "application/json":
            return Answer(415, "unsupported media type")
        try:
            export = json_format.Parse(request.content, ExportLogsServiceRequest())
        except json_format.ParseError as error:
            return said(400, str(error))
        words: list[str] = []
        for resource_logs in export.resource_logs:
            self.resources.append(resource_logs.resource)
            for scope_logs in resource_logs.scope_logs:
                for record in scope_logs.log_records:
                    why = self.rejects(record)
                    if why:
                        words.append(why)
                    else:
                        self.records.append(record)
        partial = {"rejectedLogRecords": str(len(words)), "errorMessage": words[0]} if words else {}
        found = {"partialSuccess": partial} if partial else {}
        return Answer(200, json.dumps(found), Content_Type="application/json")


def said(status: int, words: str) -> Answer:
    """google.rpc.Status, as the specification asks for."""
    return Answer(
        status, json.dumps({"code": 3, "message": words}), Content_Type="application/json"
    )


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes as a mapping."""
    pairs: list[KeyValue] = list(attributes)
    found = {pair.key: value_of(pair.value) for pair in pairs}
    assert len(found) == len(pairs), "attribute names are unique"
    return found


def value_of(value: AnyValue) -> Any:
    """A value as JSON would have it."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "kvlist_value":
        return plain(value.kvlist_value.values)
    if kind == "array_value":
        return [value_of(each) for each in value.array_value.values]
    return getattr(value, kind)
