"""A worker formats every example of the configuration as the relay does, and holds no secret."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from siemrelay.config.load import load, load_text
from siemrelay.core.event import Batch
from siemrelay.formats.envelopes.keyed import keys_of
from siemrelay.pipeline.formatting.messages import FormattedBatch
from siemrelay.pipeline.workers.frames import (
    HEADER_BYTES,
    NO_SLOT,
    Done,
    Job,
    answer,
    answered,
    asked,
    frame,
    header_of,
    question,
)
from siemrelay.registry import FORMATS, PROTOCOLS
from siemrelay.relay.assembly import Assembly

EXAMPLES = sorted(Path("config/examples").glob("*.yaml"))
RECORDS = (
    b'{"id":"1","type":"Login","time":"2026-01-01T00:00:00Z","actor":{"name":"\xc3\xa4"}}\n'
    b'<134>1 2026-01-01T00:00:00.000Z host app 7 ID1 [a@32473 b="c"] hello\n'
    b'{"type":"b","severity":"high","x":{"y":[1,2.5,null]}}\nno JSON \xff\n{"a":1}\n'
)


def through(message: Any, data: list[bytes], decode: Any) -> Any:
    """The message as it comes out at the other end of the pipe."""
    sent = bytes(frame(message, data)) + b"".join(data)
    size, data_size, slot = header_of(sent[:HEADER_BYTES])
    assert (HEADER_BYTES + size + data_size, slot) == (len(sent), NO_SLOT)
    return decode(sent[HEADER_BYTES:][:size], sent[HEADER_BYTES + size :])


def made_alike(config: Any, sinks: list[str]) -> None:
    """Compare what the relay makes of records with what a worker makes of them."""
    assembly = Assembly(config)
    own = assembly.formatter({name: assembly.sink_format(name) for name in sinks})
    theirs = pickle.loads(assembly.formatter_recipe(sinks).pickled())()
    assert theirs.places == own.places
    wanted: dict[int, list[int]] = {}
    for group, view in set(own.places.values()):
        wanted.setdefault(group, []).append(view)
    for source in (*config.sources, "gone"):
        batch = Batch(7, RECORDS.count(b"\n"), source, 1.7e9, RECORDS)
        job = through(*asked(Job(batch, wanted), slot=0), question)
        result = through(*answered(theirs.formatted(job.batch, job.wanted)), answer)
        assert isinstance(result, Done)
        expected = own.formatted(batch, wanted)
        assert compared(result.formatted) == compared(expected)


def compared(formatted: FormattedBatch) -> Any:
    keys = {group: keys_of(made.messages) for group, made in formatted.groups.items()}
    for made in formatted.groups.values():
        made.messages, made.sequences = list(made.messages), list(made.sequences)
    return formatted, keys


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_worker_formats_an_example_as_the_relay_does(path: Path) -> None:
    config = load(path, need_credentials=False).config
    made_alike(config, [*config.sinks])


def test_a_worker_formats_in_every_format_and_envelope_as_the_relay_does() -> None:
    """Envelopes that the examples do not have in each form."""
    tcp = {"protocol": "tcp", "server": "192.0.2.1"}
    http, hec = ({"url": "https://192.0.2.1/"} for _ in range(2))
    kafka = {"protocol": "kafka", "brokers": "192.0.2.1:9092", "topic": "a"}
    sinks: dict[str, dict[str, Any]] = {form: tcp | {"format": form} for form in FORMATS}
    sinks |= {"with-header": tcp | {"format": "json", "header": "rfc3164"}}
    sinks |= {f"kafka-{key}": kafka | {"key": key} for key in ("none", "source", "actor")}
    sinks["array"] = http | {"batch": {"encoding": "array"}}
    sinks["events"] = hec | {"protocol": "splunk-hec", "authorization": "Splunk secret"}
    sinks["shaped"] = tcp | {"add": {"attributes.env": "prod"}, "where": {"type": "b*"}}
    sinks["sampled"] = tcp | {"sample": [{"events": "Any Audit Record", "one_in": 2}]}
    rules = [{"field": "actor.name", "action": "pseudonym"}, {"kind": "email"}]
    redact = {"key": "a key of pseudonyms", "rules": rules}
    sinks["redacted"] = tcp | {"format": "json", "redact": redact}
    sinks["sealed"] = tcp | {"format": "json", "seal": {"every": "1m"}}
    sinks["short"] = kafka | {"key": "actor", "max_message_size": "480B"}
    made_alike(load_text(yaml_of(sinks), "f", {}).config, [*sinks])


def test_every_protocol_has_an_example() -> None:
    configs = [load(path, need_credentials=False).config for path in EXAMPLES]
    assert {s.protocol for config in configs for s in config.sinks.values()} == {*PROTOCOLS}


def yaml_of(sinks: dict[str, Any], top: str = "") -> str:
    import yaml

    sources = {"a": {"type": "stdin"}, "b": {"type": "file", "path": "/b", "decoder": "syslog"}}
    settings = {"state_dir": "/nowhere", "sinks": sinks, "sources": sources}
    return f"{yaml.safe_dump(settings)}{top}"


def test_the_tables_of_a_worker_have_no_secret() -> None:
    sink = {"protocol": "splunk-hec", "url": "https://192.0.2.1/",
            "authorization": "Splunk secret-of-the-sink"}  # fmt: skip
    config = load_text(yaml_of({"a": sink}), "f").config
    assert b"secret-of-the-sink" not in Assembly(config).formatter_recipe(["a"]).pickled()


def test_a_worker_imports_only_what_it_formats_with() -> None:
    """Each other module costs every worker its time and memory."""
    configs = [load(path, need_credentials=False).config for path in EXAMPLES]
    tables = [Assembly(each).formatter_recipe([*each.sinks]).pickled() for each in configs]
    code = (
        "import pickle, sys, siemrelay.pipeline.workers.process\n"
        "while sys.stdin.buffer.peek(1): pickle.load(sys.stdin.buffer)()\n"
        "print(*sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], input=b"".join(tables), capture_output=True, check=True
    )
    modules = found.stdout.decode().split()
    assert {"siemrelay.formats.cef", "siemrelay.formats.envelopes.otlp"} <= {*modules}
    for of_the_relay in ("trio", "structlog", "ssl", "sqlite3", "yaml", "siemrelay.config.models"):
        assert of_the_relay not in modules
    sinks = {name for name in modules if name.startswith("siemrelay.sinks.")}
    assert sinks <= {"siemrelay.sinks.contract"}
