"""`plan pull`: a finished model or a checkpoint, verified, as a directory of this machine."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import click

from jobs.committed import fetch_files
from planner.cli.checkpoint_place import Entry, choose, committed_head, entries, open_place
from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option
from planner.runs import Run
from providers.errors import CorruptDataError, StorageError, UsageError
from providers.object_store import ObjectStore


@click.command("pull", epilog="\b\nExample:\n  plan pull my-run --to ./my-model")
@click.argument("place", metavar="RUN|URI", shell_complete=complete_run)
@click.option(
    "--step", type=click.IntRange(0), help="Default: the finished model, else the newest checkpoint."
)
@click.option("--to", "target", required=True, type=click.Path(path_type=Path), help="New directory.")
@output_option("table", "json")
@pass_app
def command(app: App, place: str, step: int | None, target: Path, output: str) -> None:
    """Download a finished model, or a checkpoint, and verify every file.

    The directory appears when it is complete, and loads in peft or transformers as it is.
    """
    target = target.absolute()
    _refuse_taken(target)
    store, run = open_place(app, place)
    entry = choose(store, entries(store, committed_head(store, run)), step)
    if not entry.is_output and step is None:
        echo_err(f"not finished yet: this is the checkpoint of step {entry.pointer.step}")
    fetch(store, entry, target)
    if run is not None:
        _name_base(run, target)
    if output == "json":
        emit_json("pull", {"uri": store.uri, **_facts(entry), "to": str(target)}, now=app.now())
    else:
        click.echo(str(target))


def fetch(store: ObjectStore, entry: Entry, target: Path) -> None:
    """Put verified files into a new directory; on an error there is none.

    Raises:
        CorruptDataError: A file is missing or damaged.
        StorageError: The store or the disk failed.
    """
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        if entry.manifest is None:
            raise CorruptDataError(f"{entry.damage}")
        fetch_files(store, entry.manifest, beside)
        if target.exists():
            target.rmdir()  # empty, or it is not ours to replace
        beside.rename(target)
    except CorruptDataError as error:
        hint = "see `plan checkpoints verify` for another step"
        raise CorruptDataError(error.message, hint=hint, path=error.path) from error
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _name_base(run: Run, model: Path) -> None:
    """Let an adapter on a base model of this machine name that, where it was trained elsewhere."""
    from jobs.adapter_config import is_brought, name_base
    from jobs.spec import JobSpec
    from planner.rented import sources

    job = JobSpec.from_json(run.terms.job_json)
    here = sources(run.terms.candidate_json).get(f"{job.model.path}/config.json")
    if is_brought(job) and here is not None:
        name_base(model, str(Path(here).parent))


def _refuse_taken(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise UsageError(f"{target} exists already", hint="name a directory that is new or empty")


def _facts(entry: Entry) -> dict[str, object]:
    manifest = entry.manifest
    return {
        "step": entry.pointer.step,
        "is_output": entry.is_output,
        "files": manifest and len(manifest.files),
        "bytes": manifest and manifest.total_bytes,
        "manifest_sha256": entry.pointer.sha256,
    }
