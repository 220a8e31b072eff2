"""From a line's write to its byte at a TCP sink, on an idle relay, beside the machine's fsync."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.bench import corpus
from tests.bench.daemon import Counter, daemon

_LINES = 200
# Long enough for everything to be idle again between two lines.
_GAP_S = 0.02
_PATIENCE_S = 30


def run() -> None:
    """Print medians and the 99th percentile, in milliseconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.write(folder / "corpus", _LINES)
        lines = (folder / "corpus").read_bytes().splitlines(keepends=True)
        path = folder / "live.ndjson"
        path.touch()
        fsyncs = _fsyncs(folder / "probe", lines)
        receiver = Counter(1, each=True)
        waits: list[float] = []
        with daemon(folder, receiver.port, "Any Audit Record"), path.open("ab", buffering=0) as out:
            out.write(lines[0])
            if not receiver.done.wait(_PATIENCE_S):
                raise SystemExit("the first event did not arrive")
            for number, line in enumerate(lines[1:], start=2):
                time.sleep(_GAP_S)
                receiver.done.clear()
                receiver.wanted = number
                written = time.monotonic()
                out.write(line)
                if not receiver.done.wait(_PATIENCE_S):
                    raise SystemExit(f"event {number} did not arrive")
                waits.append(receiver.arrivals[-1] - written)
    print(f"{len(waits)} single lines on an idle relay, from write to the byte at a TCP sink")
    for label, values in (("line to sink", waits), ("one fsync of this machine", fsyncs)):
        middle, late = (
            statistics.median(values) * 1e3,
            sorted(values)[len(values) * 99 // 100] * 1e3,
        )
        print(f"  {label:28} median {middle:6.2f} ms, 99 % {late:.2f} ms")


def _fsyncs(path: Path, lines: list[bytes]) -> list[float]:
    took = []
    with path.open("ab", buffering=0) as out:
        for line in lines:
            out.write(line)
            started = time.monotonic()
            os.fdatasync(out.fileno())
            took.append(time.monotonic() - started)
    return took
