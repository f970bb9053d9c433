"""Reads `spec.yaml`: everything that is wrong with it at once and with places; paths relative to the file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from planner.errors import Finding, SpecError
from planner.spec import FineTuneSpec
from planner.spec_rules import broken_rules
from planner.validation import validate
from planner.yaml_source import YamlSource, key_path, read_yaml

RefKind = Literal["path", "hub", "s3", "gs", "https"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILE_SUFFIXES = frozenset((".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".gz", ".zst", ".arrow"))

# What other tools call our keys.
_SYNONYMS = {
    "r": "rank",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "lora_target_modules": "targets",
    "base_model": "model",
    "model_name_or_path": "model.id",
    "dataset": "data",
    "datasets": "data",
    "lr": "learning_rate",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "max_seq_length": "sequence_length",
    "max_length": "sequence_length",
    "sequence_len": "sequence_length",
    "seq_len": "sequence_length",
    "batch_size": "global_batch",
    "micro_batch_size": "micro_batch",
    "per_device_train_batch_size": "micro_batch",
    "lr_scheduler": "scheduler",
    "max_cost": "goal.budget",
    "load_in_4bit": "quantization",
    "load_in_8bit": "quantization",
    "accelerators": "where.gpus",
    "gpu": "gpus",
    "cloud": "clouds",
    "region": "regions",
}


class DataRef(NamedTuple):
    """What a reference in the spec points to.

    Attributes:
        kind: path (local), hub, s3, gs or https.
        value: Absolute path, hub id, or the whole URI.
    """

    kind: RefKind
    value: str


class LoadedSpec(NamedTuple):
    """A spec with where it came from.

    Attributes:
        spec: The spec itself.
        path: Its file as the person gave it.
        base_dir: Absolute directory that its paths are relative to.
        text_sha256: Hex digest of the file's bytes.
        source: The file with places, for later findings.
    """

    spec: FineTuneSpec
    path: Path
    base_dir: Path
    text_sha256: str
    source: YamlSource

    @property
    def spec_hash(self) -> str:
        """`sha256:...` of the canonical spec: the same for two files that say the same."""
        return self.spec.hash()

    def refuse(self, findings: Iterable[Finding]) -> None:
        """Raise what is wrong with this spec, placed in its file; nothing if there is nothing.

        Args:
            findings: As of `planner.support.unsupported`, with a dotted path and no place.

        Raises:
            SpecError: If there are any.
        """
        placed = placed_findings(self.source, findings)
        if placed:
            raise SpecError(placed)


def load_spec(path: Path | str) -> LoadedSpec:
    """Read and check a spec.

    Raises:
        SpecError: With every finding: unreadable, not YAML, wrong shape, or fields that contradict.
    """
    path = Path(path)
    source = read_yaml(path)
    spec = validate(source, FineTuneSpec, _SYNONYMS)
    loaded = LoadedSpec(spec, path, path.absolute().parent, source.source.sha256, source)
    loaded.refuse(broken_rules(spec))
    return loaded


def placed_findings(source: YamlSource, findings: Iterable[Finding]) -> list[Finding]:
    """Findings that know a dotted path, given the line and column of that path in the file.

    One without a path (a login that is missing, a price that is old) is not about the file and stays without a place.
    """
    return [
        replace(source.finding(key_path(finding.path), finding.message), code=finding.code, hint=finding.hint)
        if finding.path
        else finding
        for finding in findings
    ]


def resolve_path(base_dir: Path, text: str) -> Path:
    """A local path as written in a spec: relative to the spec's directory; `~` and `file://` are understood.

    Args:
        base_dir: Directory of the spec's file.
        text: As written.
    """
    plain = Path(text.removeprefix("file://")).expanduser()
    return Path(base_dir, plain).absolute()


def data_ref(base_dir: Path, text: str) -> DataRef:
    """What `data.train` or `data.eval` points to.

    `org/name` is a hub data set unless such a path exists or it ends like a file.

    Raises:
        SpecError: For a scheme that is not understood.
    """
    scheme = _SCHEME.fullmatch(text)
    if scheme is not None:
        return _uri(scheme[1], scheme[2], text, "data")
    looks_like_file = text.startswith(("/", ".", "~")) or Path(text).suffix.lower() in _FILE_SUFFIXES
    return _hub_or_path(base_dir, text, looks_like_file)


def model_ref(base_dir: Path, text: str) -> DataRef:
    """What `model.id` points to: an existing directory, a path by its looks, otherwise a hub id.

    Raises:
        SpecError: For a scheme that is not understood.
    """
    scheme = _SCHEME.fullmatch(text)
    if scheme is not None:
        return _uri(scheme[1], scheme[2], text, "model.id")
    if text.startswith(("/", "./", "../", "~")) or resolve_path(base_dir, text).is_dir():
        return DataRef("path", str(resolve_path(base_dir, text)))
    return DataRef("hub", text)


def _hub_or_path(base_dir: Path, text: str, looks_like_file: bool) -> DataRef:
    path = resolve_path(base_dir, text)
    if not looks_like_file and _HUB_ID.fullmatch(text) and not path.exists():
        return DataRef("hub", text)
    return DataRef("path", str(path))


def _uri(scheme: str, rest: str, text: str, path: str) -> DataRef:
    if scheme == "file":
        return DataRef("path", str(Path(rest).absolute()))
    if scheme == "hf":
        return DataRef("hub", rest.removeprefix("datasets/"))
    if scheme in ("s3", "gs", "https"):
        kind: RefKind = "s3" if scheme == "s3" else "gs" if scheme == "gs" else "https"
        return DataRef(kind, text)
    hint = "there are paths, hub ids, hf://, s3://, gs:// and https://"
    raise SpecError([Finding(f"{scheme}:// is not understood", path=path, code="bad_value", hint=hint)])
