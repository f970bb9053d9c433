"""The two documents of the commit protocol: a manifest for each checkpoint, and HEAD, which names the newest.

Both are read from storage that others may have written to, so every field is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from jobs import codec
from providers.errors import CorruptDataError, StorageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VERSION = 1
HEAD_KEY = "HEAD"
MANIFESTS = "manifests/"
BLOBS = "blobs/"

_CHECK = "sha256"  # key of a document's own checksum
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MANIFEST_KEY = re.compile(r"manifests/(?:output-)?\d{12}-\d{6}\.json")

# What a checkpoint or a finished model may hold. Anything else, above all a pickle under an unknown name, is
# neither uploaded nor restored; `.pt` and `.pth` are only ever loaded with weights_only.
_KNOWN_FILES = re.compile(
    r"adapter_model\.safetensors|adapter_config\.json"
    r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|config\.json|generation_config\.json"
    r"|optimizer\.pt|scheduler\.pt|scaler\.pt|rng_state(_\d+)?\.pth|trainer_state\.json|counters\.json|history\.json"
    r"|shards\.json|shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|tokenizer\.model"
    r"|preprocessor_config\.json|processor_config\.json|video_preprocessor_config\.json"
    r"|vocab\.json|vocab\.txt|merges\.txt|spiece\.model|chat_template\.jinja|README\.md|result\.json"
)

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a checkpoint: its plain name, size and sha256 (hexadecimal)."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One checkpoint or finished model, written once.

    Attributes:
        step: Optimizer steps done.
        fence: Attempt that wrote it.
        committed_at: RFC 3339 UTC.
        new_bytes: Bytes that no earlier checkpoint of this attempt had.
    """

    run_id: str
    step: int
    fence: int
    committed_at: str
    files: tuple[FileEntry, ...]
    new_bytes: int = 0
    schema: str = "tuneplan/checkpoint"
    schema_version: int = VERSION

    @property
    def total_bytes(self) -> int:
        """Sum of the files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Pointer:
    """A committed manifest: its step, attempt, key and sha256."""

    step: int
    fence: int
    manifest: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Head:
    """The only mutable object; moving it by compare-and-swap is what commits.

    Attributes:
        fence: Attempt that owns the run; an attempt with a lower number can no longer move HEAD.
        owner: Random name of that attempt's process.
        checkpoints: Committed ones, newest first.
        output: The finished model, None until training is done.
        best: The checkpoint of the best evaluation, if the job hands that one over; it stays whatever `keep` says.
    """

    fence: int = 0
    owner: str = ""
    checkpoints: tuple[Pointer, ...] = ()
    output: Pointer | None = None
    best: Pointer | None = None
    schema: str = "tuneplan/head"
    schema_version: int = VERSION

    @property
    def newest(self) -> Pointer | None:
        """The checkpoint to resume from, None before the first."""
        return self.checkpoints[0] if self.checkpoints else None

    @property
    def pointers(self) -> tuple[Pointer, ...]:
        """All that is committed, each once: checkpoints newest first, the best one, the finished model."""
        every = (*self.checkpoints, self.best, self.output)
        return tuple(dict.fromkeys(pointer for pointer in every if pointer is not None))


def sha256_of(body: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(body).hexdigest()


def encode_head(head: Head) -> bytes:
    """HEAD as it is stored: with a checksum of its own, since nothing else says what it should hold."""
    raw = json.loads(codec.encode(head))
    return (json.dumps({**raw, _CHECK: _check_of(raw)}, indent=1, ensure_ascii=False) + "\n").encode()


def is_known_file(name: str) -> bool:
    """Whether a file of this plain name may be part of a checkpoint."""
    return _KNOWN_FILES.fullmatch(name) is not None


def is_plain_path(path: str) -> bool:
    """Whether a `/`-separated path leads nowhere but down.

    >>> is_plain_path("inputs/train.jsonl"), is_plain_path("../train.jsonl"), is_plain_path("/train.jsonl")
    (True, False, False)
    """
    plain = "\\" not in path and "\0" not in path
    return plain and not any(part in ("", ".", "..") for part in path.split("/"))


def parse_head(body: bytes) -> Head:
    """Check and read HEAD.

    Raises:
        CorruptDataError: It is damaged.
        StorageError: A newer version wrote it.
    """
    head = _parse(Head, body, "tuneplan/head", HEAD_KEY)
    for pointer in head.pointers:
        if not _MANIFEST_KEY.fullmatch(pointer.manifest) or not _SHA256.fullmatch(pointer.sha256):
            raise CorruptDataError(f"HEAD names an impossible manifest {pointer.manifest!r}", path="HEAD")
    return head


def parse_manifest(body: bytes, pointer: Pointer) -> Manifest:
    """Check a manifest against the hash in HEAD and read it.

    Raises:
        CorruptDataError: Damaged, truncated, or it names files that no checkpoint has.
        StorageError: A newer version wrote it.
    """
    if sha256_of(body) != pointer.sha256:
        raise CorruptDataError(f"{pointer.manifest} does not match its hash", path=pointer.manifest)
    manifest = _parse(Manifest, body, "tuneplan/checkpoint", pointer.manifest)
    for file in manifest.files:
        if not is_known_file(file.path):
            raise CorruptDataError(
                f"{pointer.manifest} names the file {file.path!r}, refused", path=file.path
            )
        if not _SHA256.fullmatch(file.sha256) or file.bytes < 0:
            raise CorruptDataError(
                f"{pointer.manifest}: impossible size or hash of {file.path}", path=file.path
            )
    if len({file.path for file in manifest.files}) != len(manifest.files):
        raise CorruptDataError(f"{pointer.manifest} names a file twice", path=pointer.manifest)
    return manifest


def _check_of(raw: dict[str, object]) -> str:
    """Hash of a document without its own checksum, whatever its layout and the order of its keys."""
    bare = {key: value for key, value in raw.items() if key != _CHECK}
    return sha256_of(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode())


def _parse(cls: type[T], body: bytes, schema: str, what: str) -> T:
    try:
        raw = json.loads(body)
        if not isinstance(raw, dict) or raw.get("schema") != schema:
            raise CorruptDataError(f"{what} is no {schema} document", path=what)
        version = raw.get("schema_version")
        if isinstance(version, int) and version > VERSION:
            message = f"{what} has format {version}, this version reads {VERSION}"
            raise StorageError(message, hint="update tuneplan", code="future_format", path=what)
        if _CHECK in raw and raw[_CHECK] != _check_of(raw):
            raise CorruptDataError(f"{what} does not match its checksum", path=what)
        return codec.decode(cls, raw, strict=False)
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"{what} is damaged: {error}", path=what) from error
