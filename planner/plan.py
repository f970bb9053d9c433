"""A plan: a spec with the estimate made for it, as a content-hashed JSON file that `plan launch` takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

import planner
from planner.candidate_document import candidate_document, candidate_from_document
from planner.candidates import Candidate
from planner.data_cache import DataPin
from planner.spec import FineTuneSpec
from planner.whole_file import whole_file
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.estimate import Estimate

SCHEMA = "tuneplan/plan"
SCHEMA_VERSION = 1
#: Parts of a candidate that depend on when the plan was made, not on what was planned.
_TIMED = ("finish_at", "p_finish_by_deadline")


class Plan(NamedTuple):
    """What to run, where it may run, and what was promised.

    Attributes:
        spec: The whole spec.
        base_dir: Directory that the spec's paths are relative to.
        spec_hash: "sha256:..." of the canonical spec.
        plan_hash: "sha256:..." over spec, prices and candidates.
        snapshot_id: Prices it was made with.
        created_at: RFC 3339 UTC.
        candidates: Ranked, in the order to try.
        recommended: Id of the best one, None if nothing fits.
        data: What its data was at sources that may change.
    """

    spec: FineTuneSpec
    base_dir: Path
    spec_hash: str
    plan_hash: str
    snapshot_id: str
    created_at: str
    candidates: tuple[Candidate, ...]
    recommended: str | None
    data: tuple[DataPin, ...] = ()

    def candidate(self, candidate_id: str) -> Candidate:
        """The candidate of that id.

        Raises:
            UsageError: There is none.
        """
        for candidate in self.candidates:
            if candidate.candidate_id == candidate_id:
                return candidate
        raise UsageError(
            f"the plan has no candidate {candidate_id!r}", hint="ids are in `plan estimate -o json`"
        )


def hash_text(value: Any) -> str:
    """ "sha256:..." of a value's canonical JSON: sorted keys, no spaces.

    >>> hash_text({"b": 1, "a": 2}) == hash_text({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def make_plan(spec: FineTuneSpec, base_dir: Path, estimate: Estimate, created_at: str) -> Plan:
    """The plan of an estimate."""
    spec_hash = hash_text(spec.canonical())
    recommended = estimate.recommended
    candidates = tuple(estimate.candidates)
    return Plan(
        spec=spec,
        base_dir=base_dir,
        spec_hash=spec_hash,
        plan_hash=_plan_hash(spec_hash, estimate.snapshot_id, [candidate_document(c) for c in candidates]),
        snapshot_id=estimate.snapshot_id,
        created_at=created_at,
        candidates=candidates,
        recommended=None if recommended is None else recommended.candidate_id,
    )


def _plan_hash(spec_hash: str, snapshot_id: str, candidates: list[dict[str, Any]]) -> str:
    lasting = [{key: value for key, value in row.items() if key not in _TIMED} for row in candidates]
    return hash_text([planner.__version__, spec_hash, snapshot_id, lasting])


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON types."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "tuneplan_version": planner.__version__,
        "created_at": plan.created_at,
        "plan_hash": plan.plan_hash,
        "spec_hash": plan.spec_hash,
        "snapshot_id": plan.snapshot_id,
        "base_dir": str(plan.base_dir),
        "spec": plan.spec.canonical(),
        "data": [pin._asdict() for pin in plan.data],
        "recommended": plan.recommended,
        "candidates": [candidate_document(candidate) for candidate in plan.candidates],
    }


def save_plan(plan: Plan, path: Path) -> None:
    """Write the plan file, all or nothing.

    Raises:
        UsageError: The file cannot be written.
    """
    text = json.dumps(plan_document(plan), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def load_plan(path: Path) -> Plan:
    """Read a plan file and check that nobody changed it.

    Raises:
        UsageError: Not a plan, of a newer tuneplan, or changed since it was made.
    """
    document = _read(path)
    try:
        plan = _from_document(document)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise UsageError(
            f"{path} is not a complete plan: {type(error).__name__}",
            hint="make it again: `plan estimate --out`",
        ) from error
    if _plan_hash(plan.spec_hash, plan.snapshot_id, document["candidates"]) != plan.plan_hash or (
        hash_text(plan.spec.canonical()) != plan.spec_hash
    ):
        raise UsageError(
            f"{path} was changed after it was made, or by another version of tuneplan",
            code="plan_changed",
            hint="change the spec and make the plan again: `plan estimate SPEC --out PLAN`",
        )
    return plan


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not JSON", hint="a plan file is made by `plan estimate --out`") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UsageError(f"{path} is not a plan", hint="a plan file is made by `plan estimate --out`")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has plan format {document.get('schema_version')}, this tuneplan reads {SCHEMA_VERSION}"
        )
    return document


def _from_document(document: Mapping[str, Any]) -> Plan:
    return Plan(
        spec=FineTuneSpec.model_validate(document["spec"]),
        base_dir=Path(document["base_dir"]),
        spec_hash=document["spec_hash"],
        plan_hash=document["plan_hash"],
        snapshot_id=document["snapshot_id"],
        created_at=document["created_at"],
        candidates=tuple(candidate_from_document(row) for row in document["candidates"]),
        recommended=document["recommended"],
        data=tuple(DataPin(**pin) for pin in document.get("data", ())),
    )
