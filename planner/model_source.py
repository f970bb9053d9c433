"""Facts of models that are not known here: asked for on the Hub, with a memory of its answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from planner.architecture import ModelArchitecture, Publication, parameter_counts
from planner.architecture.hf_config import read_config
from planner.architecture.stored import completed
from planner.model_facts import ModelFacts
from planner.price_age import age_s, age_text
from providers.errors import StorageError, UsageError
from providers.hub import REPOSITORY_ID, HubAccess, HubModel, fetch_model, is_commit
from providers.price_table import replace_file
from providers.web import UnreachableError
from providers.weights import Weights

#: So long a branch is taken to point where it did; a commit never changes.
_BRANCH_KEPT_S = 3600.0
#: Files hold a little less than a freshly built model, whose head may share the embedding.
_NOTICED = 0.02
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class HubSource:
    """Facts of any model: those that are not known here are asked for on the Hub.

    Attributes:
        access: Where the Hub is, and who asks.
        cache: Directory of its answers; may be deleted at any time.
        now: UTC.
        told: Called with a sentence before the network is used.
    """

    access: HubAccess
    cache: Path
    now: datetime
    told: Callable[[str], None] = lambda _: None

    def facts(self, model: str, revision: str | None, unknown: UsageError) -> ModelFacts:
        """Facts of a model that is not known here.

        Args:
            model: Its id.
            revision: Commit, tag or branch, None for the default branch.
            unknown: What to raise if nobody can be asked.

        Raises:
            UsageError: Not on the Hub either, or nobody can be asked.
            CredentialsError: Gated, or private.
            StorageError: The Hub answered nonsense.
        """
        known = self._remembered(model, revision)
        if known is not None and self._lasts(known, revision):
            return _facts(known)
        if not REPOSITORY_ID.fullmatch(model):
            raise _not_asked(unknown, "it is no Hugging Face model id either")
        if self.access.offline:
            if known is None:
                raise _not_asked(unknown, "the Hub was not asked, because HF_HUB_OFFLINE is set")
            return _facts(known, self._old(known))
        self.told(f"asking {self.access.endpoint} about {model}")
        try:
            found = _Answer(fetch_model(self.access, model, revision), self._now_text())
        except UnreachableError as error:
            if known is None:
                raise _not_asked(unknown, str(error)) from error
            return _facts(known, self._old(known))
        self._remember(model, revision, found)
        return _facts(found)

    def _lasts(self, known: _Answer, revision: str | None) -> bool:
        age = age_s(known.asked_at, self.now)
        return is_commit(revision) or (age is not None and age <= _BRANCH_KEPT_S)

    def _old(self, known: _Answer) -> tuple[str, str]:
        age = age_text(known.asked_at, self.now, "days")
        return "model_facts_old", f"what is known of {known.model.id} is of {known.asked_at[:10]} ({age} old)"

    def _now_text(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _path(self, model: str, revision: str | None) -> Path:
        key = json.dumps([self.access.endpoint, model, revision])
        return self.cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _remember(self, model: str, revision: str | None, found: _Answer) -> None:
        """Keep the answer; a cache that cannot be written costs a question more next time."""
        text = json.dumps({"format": _FORMAT, "asked_at": found.asked_at, "model": asdict(found.model)})
        try:
            replace_file(self._path(model, revision), text.encode())
            if not is_commit(revision):
                replace_file(self._path(model, found.model.commit), text.encode())
        except StorageError as error:
            self.told(f"warning: {error}")

    def _remembered(self, model: str, revision: str | None) -> _Answer | None:
        try:
            return _read(json.loads(self._path(model, revision).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # none, or not one of ours: ask again


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the Hub said, and when (RFC 3339 UTC)."""

    model: HubModel
    asked_at: str


def _read(document: dict[str, Any]) -> _Answer:
    if document["format"] != _FORMAT:
        raise ValueError("another format")
    fields = document["model"]
    weights = None if fields["weights"] is None else Weights(**fields["weights"])
    return _Answer(HubModel(**{**fields, "weights": weights}), document["asked_at"])


def _facts(answer: _Answer, *notes: tuple[str, str]) -> ModelFacts:
    model = answer.model
    arch = read_config(model.config, model.id, f"config.json on the Hub at {model.commit[:12]}")
    arch, doubts = _reconciled(replace(arch, revision=model.commit), model)
    publication = Publication(
        commit=model.commit,
        license=model.license,
        gate=model.gate,
        remote_code=model.needs_remote_code,
        asked_at=answer.asked_at,
        notes=(*notes, *doubts),
        stored_bytes=None if model.weights is None else model.weights.bytes,
    )
    return ModelFacts(arch, publication)


def _reconciled(
    arch: ModelArchitecture, model: HubModel
) -> tuple[ModelArchitecture, tuple[tuple[str, str], ...]]:
    """The architecture with as many parameters as its files hold, and what is doubtful about that.

    More than its configuration explains (a vision tower, a family that is not known here) is counted as further
    parameters. Fewer is a head that is not stored, or a configuration that was misread.
    """
    if model.weights is None:
        return arch, (("weights_unseen", f"{model.id} has no safetensors files to count its parameters in"),)
    stored, counted = model.weights.total, parameter_counts(arch).total
    if stored is None:
        how = model.quantization or "packed"
        return arch, (("quantized_checkpoint", f"the files of {model.id} hold quantised weights ({how})"),)
    arch = completed(arch, stored)
    if abs(stored - counted) <= _NOTICED * stored:
        return arch, ()
    doubt = (
        f"the files of {model.id} hold {stored:,} parameters, its configuration explains {counted:,}: "
        "memory and time are less certain"
    )
    return arch, (("parameters_differ", doubt),)


def _not_asked(unknown: UsageError, why: str) -> UsageError:
    return UsageError(f"{unknown.message}; {why}", hint=unknown.hint, code=unknown.code, path=unknown.path)
