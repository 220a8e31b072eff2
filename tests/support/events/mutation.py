"""Inputs for parsers made from good ones by small damage, the same ones for the same seed."""

from __future__ import annotations

import random
from ast import literal_eval
from collections.abc import Sequence
from pathlib import Path

CORPUS = Path(__file__).parents[2] / "corpus"


def corpus(name: str) -> list[bytes]:
    """The inputs in `tests/corpus/NAME.txt`: a literal of bytes or a text file's line each."""
    lines = (CORPUS / f"{name}.txt").read_text().splitlines()
    return [literal_eval(line) for line in lines if line and not line.startswith("#")]


def mutated(rng: random.Random, inputs: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """One of the inputs, with up to eight pieces cut out, repeated, replaced or spliced."""
    data = rng.choice(inputs)
    for _ in range(rng.choice((0, 1, 1, 2, 4, 8))):
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.choice((0, 1, 2, 8, 40)))
        other = rng.choice(inputs)
        data = rng.choice((
            data[:at] + rng.choice(tokens) + data[end:],
            data[:at] + data[end:],
            data[:end] + data[at:],
            data[:at],
            data[:at] + other[rng.randint(0, len(other)) :],
            data[:at] + bytes([rng.randrange(256)]) + data[end:],
        ))  # fmt: skip
    return data


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """The data as a network may cut it."""
    found = []
    while data:
        cut = rng.choice((1, 1, 2, 7, 100, len(data)))
        found.append(data[:cut])
        data = data[cut:]
    return found
