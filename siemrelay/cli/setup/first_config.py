"""The text of a first configuration: one source, one sink, and comments on what to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from glob import has_magic
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from siemrelay.config.describe import field_names, is_secret
from siemrelay.config.load import load_text
from siemrelay.config.option_models import join_sink
from siemrelay.config.presets import PRESETS
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.core.own_commands import DEFAULT_FILE

LISTENERS: Final = ("udp", "tcp", "tls", "relp", "relp+tls", "unix", "unixgram")


_SCHEMAS: Final = (
    "/usr/local/share/siemrelay/siemrelay.schema.json",
    "/usr/share/siemrelay/siemrelay.schema.json",
)
"""Where `siemrelay install` and a package put it."""


class _Secret(NamedTuple):
    """Where a SIEM takes its secret: the sink's key and value, and where a person finds it."""

    key: str
    value: Any
    meaning: str


_SECRETS: Final[Mapping[str, tuple[_Secret, ...]]] = {
    "splunk": (
        _Secret("authorization", "Splunk ${credential:splunk_token}",
                "the token: Splunk, Settings, Data inputs, HTTP Event Collector"),
    ),
    "elastic": (
        _Secret("authorization", "ApiKey ${credential:elastic_key}",
                "the API key, `encoded`: Kibana, Stack Management, API keys"),
    ),
    "opensearch": (
        _Secret("basic", {"username": "siemrelay", "password": "${credential:opensearch_password}"},
                "the password of this OpenSearch user"),
    ),
    "sentinel": (
        _Secret("client_secret", "${credential:sentinel_secret}",
                "the app's secret: Entra ID, App registrations, Certificates & secrets"),
    ),
    "datadog": (
        _Secret("authorization", "${credential:datadog_key}",
                "the API key: Datadog, Organization settings, API keys"),
    ),
    "chronicle": (
        _Secret("authorization", "${credential:chronicle_feed_secret}",
                "the feed's secret key: Google SecOps, Settings, Feeds"),
        _Secret("headers", {"X-goog-api-key": "${credential:chronicle_api_key}"},
                "the API key: Google Cloud, APIs & services, Credentials"),
    ),
    "sumologic": (
        _Secret("url", "/${credential:sumologic_key}",
                "the last part of the address: Sumo Logic, Collection, Show URL"),
    ),
}  # fmt: skip
"""The value of `siem:` → its secrets; a value that begins with `/` goes to the end of the URL."""

_HOW_TO_AUTHORIZE: Final = '# authorization: "Bearer ${credential:NAME}"    # if it wants a token'


class Answers(NamedTuple):
    """The answers of a person. `keys` are the sink's, as the file writes them."""

    siem: str
    source: str
    product: str
    sink_name: str
    keys: Mapping[str, Any]


class Credential(NamedTuple):
    """A secret that the configuration refers to, and where a person finds it."""

    name: str
    meaning: str


def required_keys(siem: str, given: Mapping[str, Any]) -> list[str]:
    """The keys of that SIEM's sink that a person must still give; secrets are not asked for."""
    joined = join_sink({"siem": siem, **given})
    secrets = {secret.key for secret in _SECRETS.get(siem, ()) if secret.key != "url"}
    return [
        name
        for name, info in field_names(joined.model).items()
        if info.is_required() and name not in {*given, *joined.values, *secrets}
        and not is_secret(info.annotation)
    ]  # fmt: skip


def credentials(answers: Answers) -> list[Credential]:
    """The credentials that the text of `render` refers to."""
    found = [
        Credential(name, secret.meaning)
        for secret in _SECRETS.get(answers.siem, ())
        if secret.key == "url" or secret.key not in answers.keys
        for name in _named(str(secret.value))
    ]
    found += [
        Credential(name, f"the secret of `{key}`")
        for key, value in answers.keys.items()
        for name in _named(str(value))
    ]
    if answers.source.startswith(("http://", "https://")):
        found.append(Credential("hook_token", "a token that you choose; senders show it"))
    return found


def _named(text: str) -> Iterator[str]:
    for part in text.split("${credential:")[1:]:
        yield part.partition("}")[0]


def source_keys(source: str) -> dict[str, Any]:
    """The source's keys. Raises ValueError with what may be written."""
    scheme, sign, _ = source.partition("://")
    if source.startswith("/"):
        # A log that is rotated while the relay is stopped is read from the rotated file.
        return {"type": "file", "path": source if has_magic(source) else f"{source}*"}
    tls = {"certificate": "/etc/siemrelay/tls/server.pem", "key": "/etc/siemrelay/tls/server.key"}
    if sign and scheme in LISTENERS:
        keys: dict[str, Any] = {"type": "syslog", "listen": source}
        return {**keys, "tls": tls} if scheme.endswith("tls") else keys
    if scheme in ("http", "https"):
        keys = {"type": "http", "listen": source}
        return {
            **keys,
            "authorization": "Bearer ${credential:hook_token}",
            **({"tls": tls} if scheme == "https" else {}),
        }
    if source in ("journal", "stdin"):
        return {"type": source}
    raise ValueError(
        "write an absolute path, an address to listen on (udp://0.0.0.0:514, "
        "https://0.0.0.0:8443/events), or journal"
    )


def source_fault(source: str) -> str | None:
    """Why that cannot be a source; None if it can."""
    try:
        keys = source_keys(source)
    except ValueError as error:
        return str(error)
    return _fault({"sources": {"a": keys}, "sinks": {"s": {"protocol": "stdout"}}}, "sources.a")


def sink_fault(siem: str, keys: Mapping[str, Any], key: str, value: Any) -> str | None:
    """Why that cannot be the value of the sink's key beside its other `keys`; None if it can."""
    own = {} if siem == "generic" else {"siem": siem}
    sinks = {"s": {**own, **keys, key: value}}
    return _fault({"sources": {"a": {"type": "stdin"}}, "sinks": sinks}, f"sinks.s.{key}")


def _fault(config: Mapping[str, Any], key: str) -> str | None:
    """The first fault at that key or below it."""
    try:
        load_text(yaml.safe_dump(config), "", need_credentials=False, only_sinks=[])
    except ConfigurationRefused as refused:
        found = (f.message for f in refused.faults if f"{f.key}.".startswith(f"{key}."))
        return next(found, None)
    return None


def render(answers: Answers, file: str) -> str:
    """The file's text. Raises ValueError as `source_keys`."""
    return "".join(f"{line}\n" for line in _lines(answers, file))


def _lines(answers: Answers, file: str) -> Iterator[str]:
    siem = PRESETS[answers.siem]
    schema = next((path for path in _SCHEMAS if Path(path).exists()), _SCHEMAS[0])
    yield f"# yaml-language-server: $schema={schema}"
    yield f"# {file}"
    yield "#"
    yield "# `siemrelay check` shows the faults of this file, or what it sets; `siemrelay preview"
    yield "# FILE` shows what each sink would get. Editors that know YAML schemas offer every key."
    yield "# Keep secrets out of it: ${credential:NAME} is a systemd credential."
    yield ""
    if file == DEFAULT_FILE:
        yield "# Further sources and sinks may have files of their own there."
        yield "include: conf.d/*.yaml"
        yield ""
    elif file != "-":
        yield "# The disk buffer, positions and dead letters. The service has /var/lib/siemrelay."
        yield from (key.strip() for key in _keys({"state_dir": f"{Path(file).absolute()}.state"}))
        yield ""
    yield "# Where records come from. The name is yours; it appears in logs and metrics."
    yield "sources:"
    keys = source_keys(answers.source)
    yield f"  {answers.product if answers.product != 'generic' else 'audit'}:"
    yield from _keys(keys)
    if keys["type"] == "file" and keys["path"] != answers.source:
        yield "    # The `*` also finds the rotated files (.1, .gz)."
    if answers.product != "generic":
        yield from _keys({"product": answers.product})
    else:
        yield "    # product: alm          # knows its field names, event types and severities"
    if keys["type"] == "file":
        yield "    # start_at: end          # of files never seen before; `beginning` by default"
    yield ""
    yield f"# {siem.summary}." if answers.siem != "generic" else "# Where events go."
    yield "sinks:"
    yield f"  {answers.sink_name}:"
    yield from _keys({} if answers.siem == "generic" else {"siem": answers.siem})
    yield from _keys(_sink_keys(answers))
    if answers.siem not in _SECRETS and "url" in answers.keys:
        yield f"    {_HOW_TO_AUTHORIZE}"
    yield "    # events:               # all by default; `siemrelay events` lists the types"
    yield "    #   exclude: [User Logged In]"
    yield "    #   min_severity: 4     # 0 to 10"
    yield ""
    yield "# The disk buffer: a record is on disk before it is acknowledged."
    yield "buffer:"
    yield "  max_size: 10GiB"
    yield "  keep: 24h               # how long delivered records stay, for replay"


def _sink_keys(answers: Answers) -> dict[str, Any]:
    keys = dict(answers.keys)
    for secret in _SECRETS.get(answers.siem, ()):
        if secret.key == "url":
            keys["url"] = str(keys["url"]).rstrip("/") + secret.value
        else:
            keys.setdefault(secret.key, secret.value)
    return keys


def _keys(keys: Mapping[str, Any]) -> Iterator[str]:
    for key, value in keys.items():
        text = yaml.safe_dump(value, default_flow_style=True, width=1 << 16)
        yield f"    {key}: {text.removesuffix(chr(10)).removesuffix('...').rstrip()}"
