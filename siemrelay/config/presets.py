"""Presets (`siem:` on a sink): one row of defaults for each SIEM.

A preset fills in what the sink does not set; the file always wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec


class Preset(msgspec.Struct, frozen=True):
    """`defaults` are sink keys with their values as the file writes them.

    `also` lists other protocols over which this SIEM takes the same format: if the file chooses one
    of them, the preset's format and header still apply.
    """

    summary: str
    defaults: Mapping[str, Any] = msgspec.field(default_factory=dict)
    also: tuple[str, ...] = ()


_SYSLOG_TCP: Final = {"protocol": "tcp", "port": 514, "framing": "newline"}
_OTHER_SYSLOG: Final = ("udp", "tls")

PRESETS: Final[Mapping[str, Preset]] = {
    "generic": Preset("no SIEM in particular"),
    "splunk": Preset(
        "Splunk, Enterprise and Cloud: HTTP Event Collector",
        {"protocol": "splunk-hec", "format": "json", "compression": "gzip"},
    ),
    "elastic": Preset(
        "Elasticsearch and Elastic Security: a data stream of ECS documents",
        {"protocol": "elasticsearch", "format": "ecs", "compression": "gzip"},
    ),
    "opensearch": Preset(
        "OpenSearch: a data stream of ECS documents",
        {"protocol": "elasticsearch", "format": "ecs", "compression": "gzip"},
    ),
    "sentinel": Preset(
        "Microsoft Sentinel: Logs Ingestion API", {"protocol": "sentinel", "format": "json"}
    ),
    "qradar": Preset(
        "IBM QRadar: LEEF 2.0 behind a syslog header",
        {**_SYSLOG_TCP, "format": "leef", "header": "rfc3164"},
        _OTHER_SYSLOG,
    ),
    "arcsight": Preset(
        "ArcSight SmartConnector (syslog daemon): CEF behind a syslog header",
        {**_SYSLOG_TCP, "format": "cef", "header": "rfc3164"},
        _OTHER_SYSLOG,
    ),
    "graylog": Preset(
        "Graylog: a GELF input, over TCP, UDP or TLS",
        {"protocol": "tcp", "port": 12201, "framing": "nul", "format": "gelf"},
        ("udp", "tls"),
    ),
    "logrhythm": Preset(
        "LogRhythm System Monitor: CEF behind a syslog header",
        {**_SYSLOG_TCP, "format": "cef", "header": "rfc3164"},
        _OTHER_SYSLOG,
    ),
    "sumologic": Preset(
        "Sumo Logic: an HTTP source, whose `url` holds the key",
        {"protocol": "http", "format": "json", "compression": "gzip"},
    ),
    "datadog": Preset(
        "Datadog logs intake; `authorization` is the API key itself",
        {
            "protocol": "http",
            "url": "https://http-intake.logs.datadoghq.com/api/v2/logs",
            "authorization_header": "DD-API-KEY",
            "format": "json",
            "compression": "gzip",
            "batch": {"encoding": "array", "max_events": 1000, "max_bytes": "4MiB"},
        },
    ),
    "chronicle": Preset(
        "Google SecOps (Chronicle): an HTTPS push feed; `authorization` is the feed's secret key",
        {
            "protocol": "http",
            "authorization_header": "X-Webhook-Access-Key",
            "format": "json",
            "batch": {"encoding": "ndjson", "max_bytes": "4MiB"},
        },
    ),
    "otlp": Preset(
        "any OpenTelemetry collector: OTLP over HTTP", {"protocol": "otlp", "format": "json"}
    ),
    "rsyslog": Preset(
        "rsyslog with imrelp: RFC 5424 over RELP, each message acknowledged",
        {"protocol": "relp", "port": 2514, "format": "syslog"},
        ("tcp", "udp", "tls"),
    ),
}
"""The value of `siem:` → its row."""
