"""Audit events for the benchmarks: the same bytes for the same number and seed."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from siemrelay.products.product import BUILT_IN

KEPT_TYPES: Final = sorted(kind.name for kind in BUILT_IN["alm"].types)
_OTHER: Final = sorted(kind.name for kind in BUILT_IN["lightrun"].types)
_PEOPLE: Final = ["Ada Adams", "Grace Hopper", "Alan Baker", "Zoë Müller", "Radia Perlman"]
# About one event in fifty has a text that needs escaping somewhere.
_ENDINGS: Final = ["; filter (a=b)", "; first line\nsecond line", "; path C:\\svc", *[""] * 147]


def write(path: Path, events: int, seed: int = 1) -> int:
    """Write so many NDJSON events of about 450 bytes; returns how many are of KEPT_TYPES (60 %)."""
    rng = random.Random(seed)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    kept = 0
    with path.open("w", encoding="utf-8") as out:
        for _ in range(events):
            now += timedelta(milliseconds=rng.randrange(1, 40))
            wanted = rng.random() < 0.6
            kept += wanted
            out.write(json.dumps(_event(rng, now, wanted), ensure_ascii=False) + "\n")
    return kept


def _event(rng: random.Random, now: datetime, wanted: bool) -> dict[str, object]:
    name = rng.choice(KEPT_TYPES if wanted else _OTHER)
    target = f"account-{rng.randrange(10_000):04d}.corp"
    return {
        "id": f"{rng.getrandbits(128):032x}",
        "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "type": name,
        "category": "audit",
        "severity": rng.randrange(11),
        "outcome": "failure" if rng.random() < 0.12 else "success",
        "actor": {
            "name": rng.choice(_PEOPLE),
            "id": f"u{rng.randrange(100_000):05d}",
            "ip": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}",
        },
        "target": {"type": "account", "name": target, "id": f"t{rng.randrange(10**6):06d}"},
        "message": f"{target} moved from PENDING to APPROVED, requested through the portal"
        + rng.choice(_ENDINGS),
        "attributes": {"region": "eu-west-1", "ticket": f"CHG{rng.randrange(10**6):06d}"},
    }
