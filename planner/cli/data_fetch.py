"""`plan data fetch`: brings a spec's data here, so that it is counted, pinned and sent along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.data_cache import Kept


@click.command("fetch", epilog="\b\nExample:\n  plan data fetch spec.yaml")
@click.argument("spec_file", metavar="SPEC", type=click.Path(path_type=Path))
@output_option("table", "json")
@pass_app
def command(app: App, spec_file: Path, output: str) -> None:
    """Fetch the data of SPEC that is on the Hub, in s3://, gs:// or at https://, up to 1 GiB.

    It is kept by its content: estimates count it, a launch takes exactly it, and what is sent to a rented machine is
    sent from here. Give data.sha256 (told here) and data.revision to allow no other content.
    """
    from planner.data_cache import WHERE, remote_data
    from planner.placing import placed_in
    from planner.specfile import load_spec
    from providers.hub import HubAccess
    from providers.web import shown_address

    loaded = load_spec(spec_file)
    access = HubAccess.of(os.environ, Path.home())
    kept = []
    with placed_in(loaded):
        for wanted in remote_data(loaded.spec, loaded.base_dir):
            if access.offline and wanted.source.kind == "hub":
                raise UsageError(
                    "the Hub is not asked, because HF_HUB_OFFLINE is set", path=WHERE[wanted.key]
                )
            echo_err(f"fetching {WHERE[wanted.key]}: {wanted.source.shown}")
            kept.append(app.data_cache().fetch(wanted, access, app.now()))
    if output == "json":
        emit_json("data_fetch", {"files": [_document(one) for one in kept]}, now=app.now())
        return
    for one in kept:
        version = f" at {one.version[:12]}" if one.version else ""
        click.echo(f"{shown_address(one.source)}{version}: {one.bytes:,} bytes\n{one.pin()}")
    if not kept:
        click.echo("all data of the spec is on this machine")


def _document(kept: Kept) -> dict[str, object]:
    from providers.web import shown_address

    return {
        "key": kept.where,
        "source": shown_address(kept.source),
        "path": str(kept.path),
        "sha256": kept.sha256,
        "bytes": kept.bytes,
        "version": kept.version or None,
        "fetched_at": kept.fetched_at,
    }
