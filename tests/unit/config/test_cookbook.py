"""Every configuration of the cook-book is accepted, and does with its records what stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from siemrelay.cli.commands import main
from siemrelay.config.load import load_text
from tests.unit.config.test_json_schema import errors

BOOK = Path(__file__).parents[3] / "config/cookbook.md"
RECIPES = re.split(r"^## (?=\d)", BOOK.read_text(), flags=re.MULTILINE)[1:]
_FLAGS = re.MULTILINE | re.DOTALL
_CONFIG = re.compile(r"^```yaml\n(.*?)^```", _FLAGS)
_RECORDS = re.compile(r"^Records of `([^`\n]*)`[^\n]*:\n\n```json\n(.*?)^```", _FLAGS)
_MESSAGES = re.compile(r"^`([^`\n]+)` gets(?: nothing\.|:\n\n```\n(.*?)^```)", _FLAGS)


def test_the_cookbook_has_its_ten_recipes_in_order() -> None:
    assert [recipe.partition(".")[0] for recipe in RECIPES] == [str(n) for n in range(1, 11)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.partition("\n")[0])
def test_a_recipe_is_accepted_and_does_what_it_says(recipe: str, tmp_path: Path) -> None:
    (config,) = _CONFIG.findall(recipe)
    assert errors(config) == [], "the JSON Schema refuses it"
    file = tmp_path / "siemrelay.yaml"
    file.write_text(config)
    with_files = re.sub(r"/etc/siemrelay/tls/\w+\.\w+", str(certificate(tmp_path)), config)
    checked = CliRunner().invoke(main, ["check", "-c", str(file)])
    if with_files == config:
        assert checked.exit_code == 0, checked.output
    else:  # the one whose certificate is not on this machine
        assert "2 faults" in checked.output
        assert load_text(with_files, "f.yaml", {}).config
    for source, records in _RECORDS.findall(recipe):
        command = ["preview", "-c", str(file), "--source", source, "--json"]
        shown = CliRunner().invoke(main, command, input=records)
        assert shown.exit_code == 0, shown.output
        results = [json.loads(line) for line in shown.stdout.splitlines()]
        promised = dict(_MESSAGES.findall(recipe))
        assert (
            promised.keys()
            == load_text(config, "f.yaml", {}, need_credentials=False).config.sinks.keys()
        )
        for sink, messages in promised.items():
            sent = [found["message"] for found in of_sink(results, sink) if found["kept"]]
            expected = messages.splitlines()
            assert len(sent) == len(expected), (sink, sent)
            for message, line in zip(sent, expected, strict=True):
                pattern = ".*".join(map(re.escape, line.split("…")))
                assert re.fullmatch(pattern, message), (sink, message)


def of_sink(results: list[dict[str, Any]], sink: str) -> list[dict[str, Any]]:
    return [result["sinks"][sink] for result in results if sink in result["sinks"]]


def certificate(folder: Path) -> Path:
    """A file that is there."""
    file = folder / "server.pem"
    file.write_text("")
    return file
