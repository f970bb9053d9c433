"""What the worker gets: a copy of `jobs`, the modules of `providers` it names, its requirements and its job.

The copy is taken from the imported packages, so an installed wheel bundles as well as a checkout does.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import jobs
import planner
from jobs.spec import JobSpec
from jobs.spec_rules import BITSANDBYTES
from planner.spec import FineTuneSpec
from providers.errors import StorageError
from providers.s3_location import is_bucket, s3_location

_DISTRIBUTION = "tuneplan"
#: Where a distribution's module has another name.
_MODULES = {"mlflow-skinny": "mlflow"}
#: Below `jobs`: brings the requirements onto the machine, into ENVIRONMENT.
INSTALL_SCRIPT = "install.sh"
ENVIRONMENT_PYTHON = "env/bin/python"
LOCK = "requirements.lock"
_DIGEST_FILE = "bundle.sha256"
_JOB_FILE = "job.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A directory that a worker can run with nothing else of ours.

    Attributes:
        path: Put it on PYTHONPATH (with PYTHONSAFEPATH=1) and run `python -m jobs.train PATH/job.json`.
        sha256: Of the code, hexadecimal: equal code, equal hash, whatever the job.
    """

    path: Path
    sha256: str


def build_bundle(target: Path, job: JobSpec) -> Bundle:
    """Write code, requirements and job document; the same bundle is left as it is, another is replaced.

    Args:
        target: Directory.
        job: What the worker does.

    Raises:
        StorageError: The directory cannot be written.
    """
    files = _sources()
    digest = _digest(files)
    if _is_complete(target, digest, job):
        return Bundle(target, digest)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        _write(beside, files, digest, job)
        _put_in_place(beside, target, lambda: _is_complete(target, digest, job))
    except OSError as error:
        raise StorageError(f"cannot write the bundle {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Bundle(target, digest)


def worker_extras(
    uris: Iterable[str], quantization: str = "none", track: str | None = None, optimizer: str = "adamw"
) -> tuple[str, ...]:
    """Our extras that a worker needs.

    Args:
        uris: What it writes to.
        quantization: Of its base model.
        track: Its tracker.
        optimizer: Some are of the same package as quantised weights.
    """
    buckets = [uri for uri in uris if is_bucket(uri)]
    s3 = ("s3",) if any(uri.startswith("s3://") for uri in buckets) else ()
    others = [uri for uri in buckets if not uri.startswith("s3://") or s3_location(uri).client == "obstore"]
    stores = (*s3, *(("objectstore",) if others else ()))
    return (
        "train",
        *stores,
        *(("quantised",) if quantization != "none" or optimizer in BITSANDBYTES else ()),
        *((track,) if track else ()),
    )


def spec_extras(spec: FineTuneSpec) -> tuple[str, ...]:
    """`worker_extras` of what a spec describes."""
    uris = (uri for uri in (spec.checkpoints.uri, spec.output.uri) if uri)
    track = None if spec.track == "none" else spec.track
    return worker_extras(uris, spec.effective_quantization(), track, spec.train.optimizer)


def worker_requirements(extras: Iterable[str] = ("train",)) -> list[str]:
    """Requirement lines of the worker, as this installation declares them in its extras."""
    lines = metadata.requires(_DISTRIBUTION) or []
    split = [line.partition(";") for line in lines]
    markers = {f"extra=='{extra}'" for extra in extras}
    return [
        requirement.strip()
        for requirement, _, marker in split
        if marker.replace('"', "'").replace(" ", "") in markers
    ]


def pinned_versions() -> str:
    """The lock that this version was tested with, as constraints of what a worker installs: `name==version` lines.

    Raises:
        StorageError: The installation lacks it.
    """
    package = Path(str(planner.__file__)).parent  # in a wheel it lies there, in a checkout beside it
    for path in (package / LOCK, package.parent / LOCK):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise StorageError(f"this installation of tuneplan has no {LOCK}", hint="install it again")


def install_script() -> str:
    """The script of the bundle that installs the requirements."""
    return Path(str(jobs.__file__)).with_name(INSTALL_SCRIPT).read_text(encoding="utf-8")


def missing_requirements(extras: Iterable[str] = ("train",)) -> list[str]:
    """Worker requirements that this Python cannot import; nothing is imported to find out."""
    names = [line.split(">")[0].split("=")[0].split("<")[0].strip() for line in worker_requirements(extras)]
    return [name for name in names if find_spec(_MODULES.get(name, name.replace("-", "_"))) is None]


def _sources() -> dict[str, bytes]:
    """Relative name -> content, sorted by name."""
    code = Path(str(jobs.__file__)).parent
    paths = (*code.rglob("*.py"), code / INSTALL_SCRIPT)
    files = {f"jobs/{path.relative_to(code).as_posix()}": path for path in paths}
    providers = find_spec("providers")
    root = Path(str(providers and providers.origin)).parent.parent
    files |= {name: root / name for name in jobs.BUNDLE_MODULES}
    return {name: files[name].read_bytes() for name in sorted(files)}


def _digest(files: dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, body in files.items():
        total.update(f"{name}\0{hashlib.sha256(body).hexdigest()}\n".encode())
    return total.hexdigest()


def _is_complete(target: Path, digest: str, job: JobSpec) -> bool:
    """Whether the very same bundle is there; its directory got its name when it was complete."""
    try:
        same_code = (target / _DIGEST_FILE).read_text(encoding="ascii").strip() == digest
        return same_code and (target / _JOB_FILE).read_text(encoding="utf-8") == job.to_json()
    except OSError:
        return False


def _write(directory: Path, files: dict[str, bytes], digest: str, job: JobSpec) -> None:
    directory.mkdir(parents=True, mode=0o700)
    for name, body in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(body)
    uris = (job.checkpoints.uri, job.output.uri or "")
    requirements = worker_requirements(worker_extras(uris, job.quantization, job.track, job.train.optimizer))
    (directory / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    (directory / "constraints.txt").write_text(pinned_versions(), encoding="utf-8")
    (directory / _DIGEST_FILE).write_text(digest + "\n", encoding="ascii")
    (directory / _JOB_FILE).write_text(job.to_json(), encoding="utf-8")


def _put_in_place(beside: Path, target: Path, is_there: Callable[[], bool]) -> None:
    """Give a complete bundle its name, in place of another one.

    Of processes that do this at once the first wins: the others find the same bundle there and leave it, as a worker
    may run from it already.
    """
    for last in (False, False, False, True):
        try:
            beside.rename(target)
        except OSError:
            if is_there():
                return
            if last:
                raise
            _take_away(target)
        else:
            return


def _take_away(target: Path) -> None:
    """Remove a directory whose name is free at once; nothing happens if somebody else was quicker."""
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        target.rename(old)
        shutil.rmtree(old)
