"""What `siemrelay verify` costs for each row of an export, in CPU and in memory."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from siemrelay.proof.envelopes import sent_hashes
from siemrelay.proof.merkle import Tree
from siemrelay.proof.note import Signer
from siemrelay.proof.seal import SealTally, made_text

_STREAM: Final = "abcdefgh22"
_AT: Final = "2026-11-28T03:00:00.000Z"
_AT_ONCE: Final = 1_000
_EVENTS_PER_SEAL: Final = 50_000

_SPLUNK: Final = {"_time": _AT, "host": "relay", "index": "main", "sourcetype": "siemrelay"}
_BAR: Final = "bars: 150,000 rows/s, 600 MiB for 10,000,000"


def run(rows: int, shapes: Sequence[str] = ()) -> None:
    """Verify an export of so many rows in each of these shapes, given through a pipe; by default in
    all of them."""
    for name in shapes or _SHAPES:
        signer = Signer("relay.example", bytes(range(32)))
        process = subprocess.Popen(
            [sys.executable, "-m", "siemrelay", "verify", "--until", _AT, "-",
             "--key", str(signer.verifier)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdin is not None
        with process.stdin as pipe:
            for piece in _export(name, rows, signer):
                pipe.write(piece)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu_s = used.ru_utime + used.ru_stime
        print(
            f"{name}: {rows:,} rows in {cpu_s:.1f} s of CPU, {rows / cpu_s:,.0f} rows/s, "
            f"{used.ru_maxrss >> 10} MiB at most, exit code {process.returncode} ({_BAR})",
            flush=True,
        )


def _export(name: str, rows: int, signer: Signer) -> Iterator[bytes]:
    message, head, wrap = _SHAPES[name]
    yield head
    tree = Tree()
    for start in range(0, rows, _AT_ONCE):
        messages = [message(n, {}) for n in range(start, min(start + _AT_ONCE, rows))]
        if (start + _AT_ONCE) % _EVENTS_PER_SEAL == 0 or start + _AT_ONCE >= rows:
            # The last message of these is the seal of those before it.
            tree = tree.extended(sent_hashes(messages[:-1]))
            tally = SealTally(
                number=tree.size, at=_AT, reason="interval", every_s=60.0, next_sequence=1,
                counts={}, format="json", version="1", configuration="", cause="start",
            )  # fmt: skip
            text = made_text(f"relay.example/siem/{_STREAM}", tree, tally, [signer])
            messages[-1] = message(tree.size, {"message": text})
            tree = tree.extended(sent_hashes(messages[-1:]))
        else:
            tree = tree.extended(sent_hashes(messages))
        yield wrap(messages)


def _cef(n: int, instead: dict[str, str]) -> bytes:
    text = instead.get("message", f"account number {n} was provisioned by an operator")
    return (
        f"CEF:0|siemrelay|audit|1.0|Account Provisioned|Account Provisioned|3|siemrelayN={_STREAM}:"
        f"{n} rt=1772600767089 externalId=e{n} cat=x outcome=success suser=user{n % 99} suid=u-123 "
        f"src=10.1.2.3 duser=acc2 duid=t-7 msg={text}"
    ).encode()


def _json(n: int, instead: dict[str, str]) -> bytes:
    event = {
        "actor": {"address": "10.1.2.3", "id": "u-123", "name": f"user{n % 99}"},
        "category": "x", "id": f"e{n}",
        "message": f"account number {n} was provisioned by an operator of the tenant",
        "outcome": "success", "severity": 3,
        "siemrelay": {"n": f"{_STREAM}:{n}", "received": _AT, "sequence": n, "source": "log"},
        "time": _AT, "type": "Account Provisioned",
    }  # fmt: skip
    return _encoded(event | instead)


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _lines(wrapped: Callable[[bytes], dict[str, Any]]) -> Callable[[Sequence[bytes]], bytes]:
    return lambda messages: b"".join(_encoded(wrapped(each)) + b"\n" for each in messages)


def _hit(message: bytes) -> dict[str, Any]:
    return {"_index": "logs", "_id": "abc", "_score": 1.0, "_source": json.loads(message)}


def _page(messages: Sequence[bytes]) -> bytes:
    hits = {"total": {"value": 1, "relation": "gte"}, "hits": list(map(_hit, messages))}
    return _encoded({"_scroll_id": "DXF1ZXJ5QW5kRmV0Y2g=", "took": 1, "hits": hits}) + b"\n"


def _otlp(messages: Sequence[bytes]) -> bytes:
    records = [{"timeUnixNano": "1", "body": {"stringValue": each.decode()}} for each in messages]
    return _encoded({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}) + b"\n"


def _row(message: bytes) -> dict[str, str]:
    return {"_raw": message.decode(), **_SPLUNK}


def _row_with_fields(message: bytes) -> dict[str, str]:
    row = _row(message)
    for name, value in json.loads(message).items():
        inner = value if isinstance(value, dict) else {}
        row |= {f"{name}.{each}": str(value[each]) for each in inner} or {name: str(value)}
    return row


def _csv(row: Callable[[bytes], dict[str, str]]) -> Callable[[Sequence[bytes]], bytes]:
    def written(messages: Sequence[bytes]) -> bytes:
        out = io.StringIO()
        csv.writer(out).writerows(row(each).values() for each in messages)
        return out.getvalue().encode()

    return written


def _header(row: dict[str, str]) -> bytes:
    return ",".join(row).encode() + b"\n"


_SHAPES: Final[
    dict[
        str,
        tuple[Callable[[int, dict[str, str]], bytes], bytes, Callable[[Sequence[bytes]], bytes]],
    ]
] = {
    "CEF": (_cef, b"", lambda messages: b"\n".join([*messages, b""])),
    "JSON": (_json, b"", lambda messages: b"\n".join([*messages, b""])),
    "Elasticsearch, hits": (_json, b"", _lines(_hit)),
    "Elasticsearch, pages of a scroll": (_json, b"", _page),
    "OTLP": (_json, b"", _otlp),
    "Splunk, CSV": (_json, _header(_row(b"{}")), _csv(_row)),
    "Splunk, CSV with fields": (
        _json, _header(_row_with_fields(_json(0, {}))), _csv(_row_with_fields),
    ),
    "Splunk, JSON": (_json, b"", _lines(lambda x: {"preview": False, "result": _row(x)})),
    "Splunk, JSON with fields": (
        _json, b"", _lines(lambda x: {"preview": False, "result": _row_with_fields(x)}),
    ),
}  # fmt: skip
