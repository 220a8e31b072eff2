"""The report of `siemrelay verify` as a page: for a person, to be filed and printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from siemrelay import __version__
from siemrelay.cli.proof.verify_text import VERDICTS, tail_text
from siemrelay.proof.note import Verifier
from siemrelay.proof.report import Report

# A longer page is no use on paper; --json has all of them.
_MOST_FINDINGS: Final = 500

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
         border-bottom: 1px solid #8884; overflow-wrap: break-word; }
.good { color: #1a7f37; } .bad { color: #c00; font-weight: bold; } .open { color: #8a5a00; }
"""


def html_report(
    report: Report, *, exports: Sequence[str], keys: Iterable[Verifier], since: str, until: str,
    expected: Sequence[str], sink: str, added: Sequence[str], max_age_s: float | None, at: str,
) -> str:  # fmt: skip
    """The whole page, with every option that a verdict depends on; needs nothing from elsewhere."""
    verdicts = "".join(
        f'<li class="{"good" if good else "bad"}">{escape(text)}</li>'
        for name, yes, no in VERDICTS
        for good in (getattr(report, name),)
        for text in (f"{name.capitalize()}: {yes}." if good else f"Not {name}: {no}.",)
    )
    tails = [(stream.origin, stream.tail) for stream in report.streams if stream.tail is not None]
    verdicts += "".join(
        f'<li class="open">{escape(origin)}: {escape(tail_text(tail))}.</li>'
        for origin, tail in tails
    )
    streams = _table(
        ("stream", "messages", "seals", "under the last seal", "which is of", "repeats", "refused",
         "behind it, not proven", "existed before"),
        ((s.origin, s.messages, s.seals, s.sealed_messages, s.sealed_at or "never", s.repeats,
          s.absent, s.unsealed, f"{s.stamped.at} ({s.stamped.size:,})" if s.stamped else "")
         for s in report.streams),
    )  # fmt: skip
    notes = "".join(
        f"<li>{escape(' '.join(filter(None, (n.stream, _numbers(n.first, n.last)))))} "
        f"{escape(n.text)}</li>"
        for n in report.notes
    )
    found = _table(
        ("what", "stream", "numbers", "sent after", "and before", "why", "where"),
        (
            (
                f.kind,
                f.stream,
                _numbers(f.first, f.last),
                f.after,
                f.before,
                f.why,
                ", ".join(f.places),
            )
            for f in report.findings[:_MOST_FINDINGS]
        ),
    )
    rest = len(report.findings) - _MOST_FINDINGS + report.more
    more = f"<p>{rest:,} more are in the report of <code>--json</code>.</p>" if rest > 0 else ""
    asked = _table(("checked", ""), (
        ("exports", ", ".join(exports)), ("rows", f"{report.rows:,}"), ("since", since or "-"),
        ("until", until), ("expected", ", ".join(expected) or "-"), ("only of sink", sink or "-"),
        ("not compared, as added by the SIEM", ", ".join(added) or "-"),
        ("longest age of the last seal", "-" if max_age_s is None else f"{max_age_s:,g} s"),
        ("keys", ", ".join(map(str, keys))), ("at", at), ("by", f"siemrelay {__version__}"),
    ))  # fmt: skip
    findings = f"<h2>Findings</h2>{found}{more}" if report.findings else ""
    findings += f"<h2>Notes</h2><ul>{notes}</ul>" if notes else ""
    if report.elsewhere:
        findings += (f"<h2>Not in these exports</h2><p>Sealed by the relay: "
                     f"{escape(', '.join(report.elsewhere))}</p>")  # fmt: skip
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Verification of delivery</title>"
        f"<style>{_STYLE}</style><h1>Verification of delivery</h1><ul>{verdicts}</ul>{findings}"
        f"<h2>Streams</h2>{streams}<h2>What was checked</h2>{asked}</html>\n"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _numbers(first: int | None, last: int | None) -> str:
    if first is None:
        return ""
    return f"{first:,}" if last in (None, first) else f"{first:,} to {last:,}"
