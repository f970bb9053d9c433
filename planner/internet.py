"""What of a launch needs the internet, for those who have none. Pure but for looking whether a model lies here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from planner.errors import Finding
from planner.specfile import DataRef
from providers.s3_location import cloud_location, is_bucket, s3_location

#: Backends that may be in the same building.
_NEAR = frozenset({"local", "slurm", "ssh", "kubernetes", "vsphere"})
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def needs_internet(
    clouds: Iterable[str],
    model: DataRef,
    uris: Mapping[str, str | None],
    environ: Mapping[str, str],
    home: Path,
) -> Iterator[Finding]:
    """Everything at once; empty if the launch needs no network beyond this site.

    Args:
        clouds: Of all machines that may be asked for.
        model: What `model.id` points to.
        uris: Object stores by the spec's key.
        environ: Environment variables.
        home: Where the Hub's cache is, unless they say otherwise.
    """
    for cloud in sorted(set(clouds) - _NEAR):
        hint = "use `--infra local` or a cluster of your own, as in where.clouds: [slurm]"
        yield Finding(
            f"renting machines of {cloud} needs the internet",
            path="where.clouds",
            code="needs_internet",
            hint=hint,
        )
    if model.kind == "hub" and not _lies_here(model.value, environ, home):
        message = f"{model.value} must be loaded from the Hub: it is not in the cache of this machine"
        hint = "give a directory with the model, or load it once with a network"
        yield Finding(message, path="model.id", code="needs_internet", hint=hint)
    yield from _stores(uris.items(), environ)


def _stores(uris: Iterable[tuple[str, str | None]], environ: Mapping[str, str]) -> Iterator[Finding]:
    for key, uri in uris:
        if uri is None or not is_bucket(uri):
            continue
        server = _server(uri, environ)
        if server is None or urlsplit(server).hostname not in _LOCAL_HOSTS:
            hint = "keep it in a directory, or in a server of this machine: s3://bucket/prefix?endpoint=http://127.0.0.1:..."
            yield Finding(f"{key} is kept elsewhere", path=key, code="needs_internet", hint=hint)


def _server(uri: str, environ: Mapping[str, str]) -> str | None:
    """URL that a bucket is reached at, None if it is the cloud's own."""
    if not uri.startswith("s3://"):
        return cloud_location(uri).endpoint
    return s3_location(uri).endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")


def _lies_here(model_id: str, environ: Mapping[str, str], home: Path) -> bool:
    """Whether some snapshot of the model is in the Hub's cache, as its own tools lay it out."""
    root = Path(
        environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache", "huggingface")
    )
    cache = Path(environ.get("HF_HUB_CACHE") or root / "hub")
    snapshots = cache / f"models--{model_id.replace('/', '--')}" / "snapshots"
    return snapshots.is_dir() and any(snapshots.glob("*/config.json"))
