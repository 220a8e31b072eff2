"""A command that a message advises works as it stands."""

from __future__ import annotations

import pytest

from siemrelay.core.own_commands import DEFAULT_FILE, with_config


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`siemrelay resume siem` resumes it", "`siemrelay resume siem -c my.yaml` resumes it"),
        ("run `siemrelay reload`, then `siemrelay buffer check`",
         "run `siemrelay reload -c my.yaml`, then `siemrelay buffer check -c my.yaml`"),
        ("`siemrelay check -c other.yaml`", "`siemrelay check -c other.yaml`"),
        ("`siemrelay install --low-ports`", "`siemrelay install --low-ports`"),
        ("`keep: 24h` and siemrelay reload", "`keep: 24h` and siemrelay reload"),
    ],
)  # fmt: skip
def test_a_command_names_the_file_that_is_in_use(text: str, shown: str) -> None:
    assert with_config(text, "my.yaml") == shown


@pytest.mark.parametrize("file", ["", DEFAULT_FILE])
def test_the_service_s_own_file_is_not_named(file: str) -> None:
    assert with_config("`siemrelay reload`", file) == "`siemrelay reload`"


def test_a_file_is_quoted_for_the_shell() -> None:
    assert with_config("`siemrelay reload`", "/a b.yaml") == "`siemrelay reload -c '/a b.yaml'`"
