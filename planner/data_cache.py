"""Data of a spec that is somewhere else: fetched once, kept by its content, used from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from planner.errors import Finding
from planner.spec import FineTuneSpec
from planner.specfile import data_ref
from providers.errors import CorruptDataError, TuneplanError
from providers.price_table import replace_file

if TYPE_CHECKING:
    from providers.data_files import Source
    from providers.hub import HubAccess


#: By use of the data, the keys of the spec that name it and that pin its content.
WHERE = {"train": "data.train", "eval": "data.eval", "guard": "evaluate.guard.data"}
_PINS = {"train": "data.sha256", "eval": "data.eval_sha256", "guard": "evaluate.guard.sha256"}


class Kept(NamedTuple):
    """Data that was fetched.

    Attributes:
        key: train, eval or guard.
        source: As the spec names it.
        path: Where it is: `<sha256><suffix>`.
        sha256: Of its content.
        bytes: Its size.
        version: What the source calls it: a commit, a version id, an ETag; else empty.
        fetched_at: RFC 3339 UTC.
    """

    key: str
    source: str
    path: Path
    sha256: str
    bytes: int
    version: str
    fetched_at: str

    def pin(self) -> str:
        """The line of the spec that allows this content alone."""
        return f"{_PINS[self.key]}: {self.sha256}"

    @property
    def where(self) -> str:
        """Key of the spec that names the data."""
        return WHERE[self.key]


class DataPin(NamedTuple):
    """Data that a plan was made for, and what its source called it then.

    Attributes:
        key: train, eval or guard.
        kind: s3, gs or https.
        place: The whole URI.
        version: A version id, a generation, an ETag or the time of the last change.
        sha256: Of its content.
    """

    key: str
    kind: str
    place: str
    version: str
    sha256: str


class Wanted(NamedTuple):
    """One reference of a spec to data that is somewhere else."""

    key: str
    text: str
    source: Source
    sha256: str | None


@dataclass(frozen=True, slots=True)
class DataCache:
    """Fetched data below one directory, which may be deleted at any time."""

    folder: Path

    def fetch(self, wanted: Wanted, access: HubAccess, now: datetime) -> Kept:
        """Bring the data here, again if it is here already: a branch or an address may have other content now.

        Raises:
            CorruptDataError: It is not what the spec pins.
            UsageError, CredentialsError, MissingExtraError, StorageError: As `providers.data_files.fetch`.
        """
        from providers.data_files import fetch

        found = fetch(wanted.source, self.folder, access)
        if wanted.sha256 not in (None, found.sha256):
            raise CorruptDataError(
                f"{wanted.source.shown} has other content than pinned: sha256 {found.sha256}",
                hint="if that is right, correct the pin in the spec",
                path=WHERE[wanted.key],
            )
        at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        kept = Kept(wanted.key, wanted.text, found.path, found.sha256, found.bytes, found.version, at)
        entry = {"name": found.path.name, "sha256": kept.sha256, "bytes": kept.bytes, "version": kept.version}
        replace_file(self._entry(wanted), json.dumps({**entry, "fetched_at": at}).encode())
        return kept

    def find(self, wanted: Wanted) -> Kept | None:
        """The data as it was fetched last, None if it was not, or is not what the spec pins."""
        try:
            entry = json.loads(self._entry(wanted).read_bytes())
            path = self.folder / Path(str(entry["name"])).name
            if path.stat().st_size != entry["bytes"] or wanted.sha256 not in (None, entry["sha256"]):
                return None
            return Kept(
                wanted.key,
                wanted.text,
                path,
                entry["sha256"],
                entry["bytes"],
                entry["version"],
                entry["fetched_at"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def localised(self, spec: FineTuneSpec, base_dir: Path) -> FineTuneSpec:
        """The spec with what was fetched named by its path, whose name is its content's hash."""
        changes = {key: str(kept.path) for key, kept in self._kept(spec, base_dir).items()}
        guard = changes.pop("guard", None)
        if guard is not None and spec.evaluate.guard is not None:
            local = spec.evaluate.guard.model_copy(update={"data": guard})
            spec = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"guard": local})})
        return spec.model_copy(update={"data": spec.data.model_copy(update=changes)}) if changes else spec

    def pins(self, spec: FineTuneSpec, base_dir: Path) -> tuple[DataPin, ...]:
        """What the fetched data of a spec was at its source, where that may have other content by now.

        Content that the spec pins itself is wanted whatever the source has, and a commit of the Hub stays.
        """
        return tuple(
            DataPin(wanted.key, wanted.source.kind, wanted.source.place, kept.version, kept.sha256)
            for wanted in remote_data(spec, base_dir)
            if wanted.sha256 is None and wanted.source.revision is None and wanted.source.kind != "hub"
            if (kept := self.find(wanted)) is not None and kept.version
        )

    def _kept(self, spec: FineTuneSpec, base_dir: Path) -> dict[str, Kept]:
        found = ((wanted.key, self.find(wanted)) for wanted in remote_data(spec, base_dir))
        return {key: kept for key, kept in found if kept is not None}

    def _entry(self, wanted: Wanted) -> Path:
        name = hashlib.sha256(repr(wanted.source).encode()).hexdigest()[:32]
        return self.folder / "known" / f"{name}.json"


def remote_data(spec: FineTuneSpec, base_dir: Path) -> Iterator[Wanted]:
    """The spec's references to data that is not on this machine.

    Raises:
        SpecError: A scheme is not understood.
    """
    for key, text in _named(spec):
        reference = data_ref(base_dir, text)
        if reference.kind != "path":
            yield Wanted(key, text, _source(spec, key, reference.kind, reference.value), _pinned(spec, key))


def changed_sources(pins: Iterable[DataPin], told: Callable[[str], None]) -> Iterator[Finding]:
    """Pinned data that its source has other content for now.

    Args:
        pins: As `DataCache.pins` gave when the plan was made.
        told: Of a source that could not be asked; the content that was fetched is used all the same.
    """
    from providers.data_files import Source, version_of

    for pin in pins:
        source = Source(pin.kind, pin.place)
        bare = source.shown
        try:
            now = version_of(source)
        except TuneplanError as error:
            told(f"nobody can tell whether {bare} has changed: {error.message}")
            continue
        if now != pin.version:
            message = (
                f"{bare} has changed since it was fetched: it was {pin.version}, now it is {now or 'unknown'}"
            )
            hint = "`plan data fetch SPEC` and plan again; or pin what was fetched: "
            hint += f"{_PINS[pin.key]}: {pin.sha256}"
            yield Finding(message, path=WHERE[pin.key], code="data_changed", hint=hint)


def check_local(spec: FineTuneSpec, base_dir: Path) -> None:
    """Refuse a local file that is not what the spec pins.

    Raises:
        CorruptDataError: Its hash is another.
    """
    for key, text in _named(spec):
        pinned = _pinned(spec, key)
        reference = data_ref(base_dir, text)
        if pinned is None or not Path(reference.value).exists():
            continue
        found = content_sha256(Path(reference.value))
        if found != pinned:
            raise CorruptDataError(
                f"{text} has other content than pinned: sha256 {found}",
                hint="restore it, or correct the pin in the spec",
                path=WHERE[key],
            )


def content_sha256(path: Path) -> str:
    """Hash of a file; of a directory that of the lines which `sha256sum` writes for its data files, in order.

    Raises:
        UsageError: A directory holds no data.
    """
    if not path.is_dir():
        return _file_sha256(path)
    from jobs.data_files import files_of

    lines = (f"{_file_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files_of(path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named(spec: FineTuneSpec) -> Iterator[tuple[str, str]]:
    """What the spec names as data, by use."""
    guard = spec.evaluate.guard
    uses = {
        "train": spec.data.train,
        "eval": spec.data.eval,
        "guard": None if guard is None else guard.data,
    }
    return ((key, text) for key, text in uses.items() if text is not None)


def _source(spec: FineTuneSpec, key: str, kind: str, place: str) -> Source:
    from providers.data_files import Source

    data, guard = spec.data, spec.evaluate.guard
    revision, split = data.revision, data.split if key == "train" else data.eval_split
    if key == "guard" and guard is not None:
        revision, split = guard.revision, guard.split
    if kind != "hub":
        return Source(kind, place, revision if kind == "s3" and key != "eval" else None)
    return Source(kind, place, revision, split)


def _pinned(spec: FineTuneSpec, key: str) -> str | None:
    guard = spec.evaluate.guard
    if key == "guard":
        return None if guard is None else guard.sha256
    return spec.data.sha256 if key == "train" else spec.data.eval_sha256
