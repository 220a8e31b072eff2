"""`siemrelay verify` on files that it cannot read or write: one sentence, and exit 2."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from zstandard import ZstdCompressor

from siemrelay.cli.proof.verify import verify
from siemrelay.proof.leaf import hash_of
from siemrelay.proof.note import Signer
from tests.support.seals.stream import SIGNER, sealed

KEY = str(SIGNER.verifier)


def damaged(packed: bytes) -> bytes:
    return packed[:2000] + bytes(byte ^ 0x55 for byte in packed[2000:2300]) + packed[2300:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (damaged(gzip.compress(b"\n".join(sealed(30).lines))), "damaged gzip file: "),
        (lzma.compress(b"\n".join(sealed(30).lines))[:-9], "damaged xz file: ends in the middle"),
        (b"\x04\x22\x4d\x18 of a program", "lz4: expand the file first"),
    ],
)
def test_an_export_that_cannot_be_expanded_is_named(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    export = tmp_path / "export.json"
    export.write_bytes(content)
    result = CliRunner().invoke(verify, ["--key", KEY, str(export)])
    assert result.exit_code == 2
    assert f"cannot read {export}: {reason}" in result.output


@pytest.mark.parametrize(
    "compress", [gzip.compress, lzma.compress, bz2.compress, ZstdCompressor().compress]
)
def test_a_compressed_export_is_judged_as_the_plain_one(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    lines = sealed().lines
    plain = shown(tmp_path, lines)
    assert plain[0] == 0
    two_members = compress(b"\n".join(lines[:10]) + b"\n") + compress(b"\n".join(lines[10:]))
    assert shown(tmp_path, [two_members]) == plain


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    export, page = tmp_path / "export.json", tmp_path / "no-folder" / "page.html"
    export.write_bytes(b"\n".join(sealed().lines))
    result = CliRunner().invoke(verify, ["--key", KEY, "--html", str(page), str(export)])
    assert result.exit_code == 2
    assert f"cannot write {page}" in result.output


def shown(tmp_path: Path, lines: list[bytes], *options: str) -> tuple[int, str]:
    """Exit code and output for an export of these lines, which ends with the last seal."""
    export = tmp_path / "export.json"
    export.write_bytes(b"\n".join(lines))
    until = sealed().now.isoformat()
    done = CliRunner().invoke(verify, ["--key", KEY, "--until", until, *options, str(export)])
    return done.exit_code, done.output


def test_what_is_behind_the_last_seal_is_part_of_the_verdict(tmp_path: Path) -> None:
    stream, page = sealed(), tmp_path / "page.html"
    stream.send()
    code, text = shown(tmp_path, stream.lines, "--html", str(page))
    assert code == 0
    assert (
        "1 message behind the last seal not proven yet: n=33, between 2026-11-28T03:03:00" in text
    )
    assert text.endswith("not proven yet: 1 message behind the last seal\n")
    assert "1 message behind the last seal not proven yet" in page.read_text()
    code, text = shown(tmp_path, stream.lines, "--json")
    assert json.loads(text)["streams"][0]["tail"]["state"] == "pending"


def test_a_sink_that_is_expected_and_missing_is_named(tmp_path: Path) -> None:
    code, text = shown(tmp_path, sealed().lines, "--expect", "splunk", "--expect", "elastic")
    assert code == 1
    assert "missing: no sealed message of elastic is in the export" in text
    # An export without any number is not "unreadable" then: what is expected is missing.
    assert shown(tmp_path, [b"hello"], "--expect", "splunk")[0] == 1
    assert shown(tmp_path, [b"hello"])[0] == 2


def test_damaged_hashes_are_named(tmp_path: Path) -> None:
    stream, tile = sealed(), tmp_path / "hashes/abcdefgh22/tile/0/000.p/33"
    tile.parent.mkdir(parents=True)
    tile.write_bytes(b"".join(map(hash_of, stream.lines))[:-1])
    lines = [line.replace(b"user3", b"eve") for line in stream.lines]
    code, text = shown(tmp_path, lines, "--tiles", str(tmp_path / "hashes"))
    assert code == 1
    assert "the hashes in abcdefgh22/tile/0/000.p/33 (--tiles) are damaged: 1,055 bytes" in text


def test_counts_are_plain_english(tmp_path: Path) -> None:
    _, text = shown(tmp_path, [*sealed(1).lines[:-2], b"hello"])
    assert "10 messages" not in text
    assert "9 messages in the export, with 0 seals" in text
    assert "1 row without a number" in text


def test_a_folder_without_hashes_is_named(tmp_path: Path) -> None:
    (tmp_path / "hashes").mkdir()
    code, text = shown(tmp_path, sealed().lines, "--tiles", str(tmp_path / "hashes"))
    assert (code, f"there are no hashes in {tmp_path}/hashes (--tiles)" in text) == (0, True)


def test_keys_may_come_as_lines_as_seal_key_prints_them_after_a_rotation(tmp_path: Path) -> None:
    old, stream = Signer.generate("relay.example"), sealed()
    (export := tmp_path / "export.json").write_bytes(b"\n".join(stream.lines))
    options = ["--until", stream.now.isoformat(), str(export)]
    for keys in (f"{old.verifier}\n{KEY}", f"{KEY}\n{old.verifier}\n", KEY):
        assert CliRunner().invoke(verify, ["--key", keys, *options]).exit_code == 0
    for keys in ("", f"{KEY}\nrelay.vkey"):
        done = CliRunner().invoke(verify, ["--key", keys, *options])
        assert (done.exit_code, "not a verifier key" in done.output) == (2, True)


def test_a_time_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    code, text = shown(tmp_path, sealed().lines, "--since", "2026-11-29T00:00:00Z")
    assert (code, "--since is not before --until" in text) == (2, True)


def test_hashes_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    tile = tmp_path / "hashes/abcdefgh22/tile/0/000.p/33"
    tile.parent.mkdir(parents=True)
    tile.symlink_to("/proc/self/mem")  # a file that gives an error to all readers
    code, text = shown(tmp_path, sealed().lines, "--tiles", str(tmp_path / "hashes"))
    assert code == 2
    assert f"cannot read {tmp_path / 'hashes'}" in text


def test_a_finding_has_its_place_in_the_export_in_every_report(tmp_path: Path) -> None:
    """Also in a document over many lines, where the place is the line of the message's number."""
    stream, page = sealed(), tmp_path / "page.html"
    tile = tmp_path / "hashes/abcdefgh22/tile/0/000.p/33"
    tile.parent.mkdir(parents=True)
    tile.write_bytes(b"".join(map(hash_of, stream.lines)))
    rows = [line.replace(b'user3"', b'eve"') for line in stream.lines]
    options = "--tiles", str(tmp_path / "hashes")
    hits = [{"_index": "logs", "_source": json.loads(row)} for row in rows]
    documents = {
        4: b"\n".join(rows),
        1: json.dumps({"hits": {"hits": hits}}).encode(),
    }
    pretty = json.dumps({"took": 1, "hits": {"hits": hits}}, indent=2)
    line = 1 + pretty[: pretty.index('"abcdefgh22:3"')].count("\n")
    for at, export in {**documents, line: pretty.encode()}.items():
        place = f"{tmp_path}/export.json:{at}"
        code, text = shown(tmp_path, [export], *options, "--html", str(page))
        assert (code, f"not as it was sent ({place})" in text) == (1, True)
        assert f"<td>{place}</td>" in page.read_text()
        (finding,) = json.loads(shown(tmp_path, [export], *options, "--json")[1])["findings"]
        assert (finding["kind"], finding["places"]) == ("changed", [place])
    twice = json.dumps([json.loads(row) for row in (*sealed().lines, rows[3])], indent=2)
    last = 1 + twice[: twice.rindex('"abcdefgh22:3"')].count("\n")
    assert f"export.json:{last}" in shown(tmp_path, [twice.encode()], *options)[1]
    splunk = json.dumps({"results": [{"_raw": row.decode()} for row in rows]}, indent=1)
    text = shown(tmp_path, [splunk.encode()], *options)[1]
    assert f"export.json:{1 + splunk[: splunk.index('abcdefgh22:3')].count(chr(10))})" in text


def test_a_page_names_every_option_that_its_verdict_depends_on(tmp_path: Path) -> None:
    """Else somebody files a good one that compares nothing."""
    page = tmp_path / "page.html"
    given = {"--added": "actor.name", "--sink": "splunk", "--max-age": "90m", "--expect": "elastic",
             "--since": "2026-11-28T03:00:00.000Z"}  # fmt: skip
    options = [word for option in given.items() for word in option]
    shown(tmp_path, sealed().lines, "--html", str(page), *options)
    text = page.read_text()
    for value in ("5,400 s", KEY, str(tmp_path / "export.json"), *({*given.values()} - {"90m"})):
        assert f"<td>{value}</td>" in text


def test_a_row_without_a_number_is_found_in_a_document_over_many_lines(tmp_path: Path) -> None:
    events = [json.loads(line) for line in sealed().lines]
    events.insert(5, {"count": 3, "user": 'mallory \N{SNOWMAN} "'})
    pretty = json.dumps(events, indent=2, ensure_ascii=False)
    line = 1 + pretty[: pretty.index("mallory")].count("\n")
    text = shown(tmp_path, [pretty.encode()])[1]
    assert "1 row without a number of a sealed stream, the first at " in text
    assert f"export.json:{line}: " in text
    events.insert(0, {"no text": 1})
    assert "export.json:3: " in shown(tmp_path, [json.dumps(events, indent=2).encode()])[1]
