"""What a glob matches by its text is what it finds on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from siemrelay.sources.file.disk import Disk
from siemrelay.sources.file.finder import Finder, Globs


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.log", "**", "**/*.log", "*/*", "a/**", "a/**/b.log", ".h/*", ".*", "**/.*",
     "[a]/?.log", "**/b/**", "a", "a/b.log", "**/**", "*/**/*"],
)  # fmt: skip
def test_globs_match_by_their_text_just_what_they_find_on_the_disk(
    pattern: str, tmp_path: Path
) -> None:
    paths = [
        tmp_path / folder / name
        for folder in ("", "a", "b", "a/b", "a/b/c", ".h", "a/.h")
        for name in ("a.log", "b.log", ".c.log", "d")
    ]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    globs = Globs([f"{tmp_path}/{pattern}"])
    listing = Finder(globs, Disk()).find(changed=None)
    found = {file.path for file in listing.found.values()}
    assert {str(path) for path in paths if globs.matches(str(path))} == found
