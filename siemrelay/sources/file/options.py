"""The options of the file source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from siemrelay.core.options import Duration, absolute
from siemrelay.sources.file.links import FollowLinks
from siemrelay.sources.framing import FramingOptions

Pattern = Annotated[str, StringConstraints(min_length=1), AfterValidator(absolute)]


class FileOptions(FramingOptions):
    """Settings of `type: file`."""

    path: Annotated[
        Annotated[Pattern, Tag("one")]
        | Annotated[list[Pattern], Field(min_length=1), Tag("several")],
        # Chosen before it is judged, so that a fault in a list is not said to be the list itself.
        Discriminator(lambda value: "several" if isinstance(value, list) else "one"),
        Field(
            description="glob, or list of globs, of the files to follow. Match the rotated names "
            "too (`audit.log*`) and nothing is missed, however often a file is rotated while the "
            "relay is stopped: the copy of a log that was read, made by `copytruncate` "
            "(`audit.log.1`) or by compression (`audit.log.1.gz`), is recognised by its content, "
            "and only its rest is read. Files compressed with gzip, zstd, xz or bzip2 are read "
            "whatever they are called. A copy under another log's name (`copy.log`) is read as a "
            "file of its own"
        ),
    ]
    start_at: Literal["beginning", "end"] = Field(
        "beginning",
        description="where to start in the files that are there at the very first start; files "
        "that appear later are always read from their beginning",
    )
    follow_links: FollowLinks = Field(
        "trusted",
        description="which symbolic links are followed, to the file itself or to a directory on "
        "the way to it. `trusted`: those of root, of the relay's user, and of the owner of what "
        "they lead to, because another user's could lead the relay to a secret. `always`: all. "
        "`never`: none (Kubernetes' `/var/log/containers` holds nothing else)",
    )
    poll: Annotated[Duration, Field(gt=0)] = Field(
        1.0,
        description="how often to look for changes that inotify did not report (network file "
        "systems, limits reached); five times less often while inotify reports everything. With "
        "thousands of files it is less often, too: looking takes no more than 1 % of a core, and "
        "no more than 1,000 files are looked at in a second",
    )

    @property
    def patterns(self) -> list[str]:
        """The globs."""
        return [self.path] if isinstance(self.path, str) else self.path
