"""Where a relay is, from a file that it could not start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from siemrelay.config.endpoint_address import endpoint_address, state_dir
from siemrelay.core.errors import ConfigurationRefused

BROKEN = "sinks:\n  a: [\n"


@pytest.mark.parametrize(
    ("text", "where", "address"),
    [
        ("state_dir: /a\nendpoint: {listen: 127.0.0.1:9}\n", "/a", ("127.0.0.1", 9)),
        (f"state_dir: /a\nendpoint:\n  listen: 127.0.0.1:9\n\n{BROKEN}", "/a", ("127.0.0.1", 9)),
        (f"{BROKEN}state_dir: /a\nendpoint:\n# below\n  listen: 127.0.0.1:9\n", "/a",
         ("127.0.0.1", 9)),
        (BROKEN, "/var/lib/siemrelay", ("127.0.0.1", 9614)),
        ("", "/var/lib/siemrelay", ("127.0.0.1", 9614)),
    ],
)  # fmt: skip
def test_a_relay_is_found_though_its_file_is_no_yaml_any_more(
    text: str, where: str, address: tuple[str, int], tmp_path: Path
) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    assert (state_dir(file), endpoint_address(file)) == (Path(where), address)


def test_a_place_that_is_broken_itself_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("state_dir: [\n")
    with pytest.raises(ConfigurationRefused):
        state_dir(file)
