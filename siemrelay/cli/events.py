"""`siemrelay events`: the catalogue of event types."""

from __future__ import annotations

import json

import click
from msgspec.structs import asdict

from siemrelay.cli.options import config_option, json_option
from siemrelay.cli.tables import print_table
from siemrelay.core.event_types import Catalogue


@click.command()
@config_option(required=False)
@click.option("--product", metavar="NAME", help="Only the types of this product.")
@json_option()
def events(config: str | None, product: str | None, as_json: bool) -> None:
    """List every known event type, with its category, severity (0 to 10) and description.

    Use these names in a sink's `events`. With -c the list is that of one configuration: the types
    of the products that its sources name, and those that it declares under `event_types`.

    \b
    Examples:
      siemrelay events
      siemrelay events --product okta
      siemrelay events -c /etc/siemrelay/siemrelay.yaml --json
    """
    types = _catalogue(config).types
    if product is not None:
        types = tuple(known for known in types if known.product == product)
        if not types:
            raise click.UsageError(f"no product {product} is known here, or it has no types")
    if as_json:
        click.echo(json.dumps([asdict(known) for known in types], indent=2))
        return
    rows = [(t.name, t.category, str(t.severity), t.description) for t in types]
    print_table("", ("type", "category", "severity", "description"), rows)


def _catalogue(config: str | None) -> Catalogue:
    if config is None:
        from siemrelay.products.product import BUILT_IN

        return BUILT_IN.catalogue(BUILT_IN)
    # Imported here: without a file the command needs neither models nor registry.
    from siemrelay.cli.config_faults import exit_with_faults
    from siemrelay.config.load import load
    from siemrelay.core.errors import ConfigurationRefused

    try:
        return load(config, need_credentials=False).config.catalogue()
    except ConfigurationRefused as refused:
        exit_with_faults(refused, "nothing is shown")
