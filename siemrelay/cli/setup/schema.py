"""`siemrelay schema`: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import click

from siemrelay.config.json_schema import render


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, by which editors complete and check.

    The editor finds it by the file's first line:
    # yaml-language-server: $schema=/PATH/siemrelay.schema.json

    \b
    Example:
      siemrelay schema > siemrelay.schema.json
    """
    click.echo(render(), nl=False)
