"""What a launch would do, and everything that stands against it, found before anything is started."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jobs.spec import JobSpec
from planner import rented
from planner.architecture import maker_of
from planner.bundle import missing_requirements, spec_extras
from planner.candidate_document import candidate_document
from planner.candidates import Candidate
from planner.chat_template import untemplated_here, untemplated_on_hub
from planner.data_cache import check_local
from planner.data_check import missing_data, unlearnable
from planner.errors import Finding
from planner.inputs import local_bytes, with_inputs
from planner.internet import needs_internet
from planner.job_document import as_uri, job_document
from planner.launch_request import request_of
from planner.limits import DEADLINE
from planner.model_support import model_blockers
from planner.money import micro_usd, usd_text_of_micro
from planner.permits import (
    closed_model,
    licence_of_model,
    misplaced_bucket,
    too_small_quotas,
    unavailable_image,
)
from planner.places import Places
from planner.plan import Plan
from planner.positions import position_blockers
from planner.runs import Infra, MonitorHome, RunTerms, utc_text
from planner.spec import FineTuneSpec
from planner.specfile import model_ref
from planner.support import unsupported, unsupported_spread
from planner.surroundings import (
    Surroundings,
    is_about_surroundings,
    missing_login,
    stale_price,
    unreachable_store,
    unset_secrets,
)
from providers.errors import TuneplanError
from providers.hub import HubAccess
from providers.notifier import can_send
from providers.s3_location import is_bucket
from providers.skypilot_task import task_yaml
from providers.stores import below

_GIB = 2.0**30
#: Findings without whose cure there is no job document.
_NO_JOB = frozenset({"not_yet_supported", "data_missing", "model_missing"})


@dataclass(frozen=True, slots=True)
class Choices:
    """What the command line says of a launch.

    Attributes:
        cap_usd: Total for the run, None to take the spec's budget.
        no_cap: Go without a cap on purpose.
        max_duration_s: Of each attempt, None for no limit.
        monitor: Who watches the run.
        reservation_ref: The provider's id of paid capacity to run in.
        move: The monitor moves it between spot and on-demand.
        own_cluster: It gets a cluster of its own instead of a managed job.
    """

    cap_usd: float | None = None
    no_cap: bool = False
    max_duration_s: float | None = None
    monitor: MonitorHome = "local"
    reservation_ref: str | None = None
    move: bool = False
    own_cluster: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """Which candidate of which plan shall run, under which id and limits."""

    plan: Plan
    candidate: Candidate
    choices: Choices
    run_id: str

    @property
    def cap_micro_usd(self) -> int | None:
        """The cap in force: the command line's, else the spec's budget, None without one."""
        cap = self.choices.cap_usd if self.choices.cap_usd is not None else self.plan.spec.goal.budget
        return None if self.choices.no_cap or cap is None else micro_usd(cap)

    @property
    def infra(self) -> Infra:
        """Who runs it."""
        if self.candidate.offer.market == "local":
            return "local"
        return "cluster" if self.choices.own_cluster else "skypilot"

    @property
    def micro_usd_per_hour(self) -> int | None:
        """Price of all its machines, None if unknown."""
        price = self.candidate.offer.price_usd_per_hour
        return None if price is None else micro_usd(price) * self.candidate.nodes

    @property
    def runs_uri(self) -> str | None:
        """The prefix that the spec names for checkpoints, below which each run has its own."""
        uri = self.plan.spec.checkpoints.uri
        return None if uri is None else as_uri(uri, self.plan.base_dir)

    def checkpoint_uri(self, places: Places) -> str:
        """The run's own prefix: below the spec's `checkpoints.uri`, else below the state directory."""
        uri = self.runs_uri
        return places.checkpoints(self.run_id) if uri is None else below(uri, self.run_id)


def deadline_at(spec: FineTuneSpec, now: datetime) -> datetime | None:
    """When the result must be there, None if there is no hurry; `within` counts from now (UTC)."""
    if spec.goal.within is not None:
        return now + timedelta(seconds=spec.goal.within)
    return spec.goal.deadline_at()


def past_deadline(order: Order, now: datetime) -> Iterator[Finding]:
    """A deadline that is over before anything is paid for it."""
    at = deadline_at(order.plan.spec, now)
    if at is not None and at <= now and order.micro_usd_per_hour != 0:
        message = f"the deadline {utc_text(at)} has passed, whatever is bought is too late"
        yield Finding(message, path="goal.deadline", code="deadline_past", hint="a later one, or none")


def run_terms(
    order: Order, places: Places, zones: Mapping[str, str] | None = None, now: datetime | None = None
) -> RunTerms:
    """What the ledger keeps of a run.

    Args:
        order: What shall run.
        places: Where runs keep what is theirs.
        zones: Zone name by zone id, where a cloud's catalog has ids.
        now: UTC, from which `within` counts; None keeps no deadline.

    Raises:
        UsageError: No worker could run it.
    """
    plan, candidate, spec = order.plan, order.candidate, order.plan.spec
    uri = order.checkpoint_uri(places)
    document = candidate_document(candidate)
    deadline = None if now is None else deadline_at(spec, now)
    document |= {} if deadline is None else {DEADLINE: utc_text(deadline)}
    job = _job(order, places)
    if order.infra != "local":
        job, sources = with_inputs(job, order.runs_uri)
        document["rented"] = rented.terms_document(plan, candidate, job, sources)
        rented.named_zones(document, zones or {})
        if order.choices.reservation_ref is not None:
            document["rented"]["reservations"] = [order.choices.reservation_ref]
    return RunTerms(
        name=spec.name,
        project=spec.project,
        owner=spec.owner,
        labels=dict(spec.labels),
        infra=order.infra,
        plan_hash=plan.plan_hash,
        candidate_id=candidate.candidate_id,
        candidate_json=json.dumps(document),
        job_json=job.to_json(),
        checkpoint_uri=uri,
        cap_micro_usd=order.cap_micro_usd,
        max_duration_s=order.choices.max_duration_s,
        env=dict(spec.environment.env),
        secrets=spec.environment.secrets,
        monitor=order.choices.monitor,
        notify=spec.notify,
    )


def blockers(order: Order, places: Places, around: Surroundings, *, write: bool = False) -> list[Finding]:
    """Everything that would make a launch fail or surprise, all at once; empty if nothing does.

    Args:
        order: What shall run.
        places: Where runs keep what is theirs.
        around: What the launch depends on outside its spec.
        write: Also try to write to the buckets of a rented run.
    """
    spec, base_dir = order.plan.spec, order.plan.base_dir
    found = spec_blockers(spec, base_dir, around.environ, infra=order.infra)
    found += unsupported_spread(spec, order.candidate.parallelism.kind, order.candidate.processes)
    found += model_blockers(spec, base_dir, rented=order.infra != "local")
    found += position_blockers(spec, base_dir)
    found += _untold(spec, around.environ)
    if around.offline:
        found += _internet(order, around)
    if order.infra == "local":
        found += _room(order.candidate, order.checkpoint_uri(places), places)
    else:
        plain = not any(row.code in _NO_JOB for row in found)
        found += _rented(order, places, around, plain=plain, write=write)
    if order.micro_usd_per_hour != 0 and order.cap_micro_usd is None and not order.choices.no_cap:
        message = "a run that costs money needs a cap"
        found.append(
            Finding(message, code="no_cap", hint="`--cap USD`, goal.budget, or `--no-cap` on purpose")
        )
    return found


def _untold(spec: FineTuneSpec, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Recipients that cannot be told anything from here."""
    yield from unset_secrets(spec.notify, environ, "notify")
    if spec.notify and not can_send():
        hint = "pip install 'tuneplan[notify]'"
        yield Finding("notifications need apprise", path="notify", code="missing_extra", hint=hint)


def spec_blockers(
    spec: FineTuneSpec, base_dir: Path, environ: Mapping[str, str], *, infra: str = "local"
) -> list[Finding]:
    """Those that need no estimate to be found."""
    found = list(unsupported(spec, for_launch=True, infra=infra))
    found += _files(spec, base_dir)
    found += _software(spec) if infra == "local" else ()
    found += unset_secrets(spec.environment.secrets, environ)
    return found


def _rented(
    order: Order, places: Places, around: Surroundings, *, plain: bool, write: bool
) -> Iterator[Finding]:
    """What stands against machines that are rented; `plain` if there can be a job document."""
    offer = order.candidate.offer
    yield from missing_login(offer, around)
    yield from stale_price(offer, around)
    uri = order.checkpoint_uri(places)
    if rented.shares_disk(offer) and order.runs_uri is not None and uri.startswith("file:"):
        yield from _room(order.candidate, uri, places)
    if plain:
        renewed = order.choices.monitor in ("service", "remote")
        yield from rented.blockers(order.plan, order.candidate, _job(order, places), renewed=renewed)
    if not around.offline:
        yield from _asked_elsewhere(order, around, write=write)


def _asked_elsewhere(order: Order, around: Surroundings, *, write: bool) -> Iterator[Finding]:
    """What others say who must be asked: buckets, the Hub, and clouds about quotas."""
    spec, candidate = order.plan.spec, order.candidate
    for key in ("checkpoints", "output"):
        uri = getattr(spec, key).uri
        if uri is not None and is_bucket(uri):
            found = list(unreachable_store(below(uri, order.run_id), f"{key}.uri", write=write))
            yield from found or misplaced_bucket(uri, f"{key}.uri")
    model = model_ref(order.plan.base_dir, spec.model.id)
    if model.kind == "hub":
        access = HubAccess.of(around.environ, around.home)
        secrets = spec.environment.secrets
        yield from closed_model(model.value, spec.model.revision, secrets, around.environ, access)
        yield from untemplated_on_hub(spec, order.plan.base_dir, access)
    yield from unavailable_image(spec.environment.image)
    offers = (candidate.offer, *rented.alternatives(order.plan, candidate))
    yield from too_small_quotas(offers, candidate.nodes, around)


def licence(order: Order, around: Surroundings) -> str | None:
    """What is known of the licence of a model of the Hub, None for one that lies here."""
    model = model_ref(order.plan.base_dir, order.plan.spec.model.id)
    if model.kind != "hub":
        return None
    access = HubAccess.of(around.environ, around.home)
    access = replace(access, offline=access.offline or around.offline)
    return licence_of_model(model.value, order.plan.spec.model.revision, access)


def _internet(order: Order, around: Surroundings) -> Iterator[Finding]:
    spec = order.plan.spec
    uris = {"checkpoints.uri": spec.checkpoints.uri, "output.uri": spec.output.uri}
    model = model_ref(order.plan.base_dir, spec.model.id)
    others = [] if order.infra == "local" else rented.alternatives(order.plan, order.candidate)
    clouds = {offer.cloud for offer in (order.candidate.offer, *others)}
    yield from needs_internet(clouds, model, uris, around.environ, around.home)


def _job(order: Order, places: Places) -> JobSpec:
    plan = order.plan
    return job_document(plan.spec, plan.base_dir, order.candidate, order.run_id, order.checkpoint_uri(places))


def bytes_from_here(order: Order, places: Places) -> int:
    """Size of the local data and model that a rented run would read, 0 if there is none or nobody can tell yet."""
    try:
        return 0 if order.infra == "local" else local_bytes(_job(order, places))
    except TuneplanError:
        return 0  # what is wrong is told by `blockers`


def dry_run_document(order: Order, places: Places, found: Sequence[Finding]) -> dict[str, Any]:
    """The answer of `plan launch --dry-run`: as of a launch, but nothing is on record."""
    candidate = candidate_document(order.candidate)
    limit_s = order.choices.max_duration_s
    return {
        "run_id": order.run_id,
        "created": False,
        "state": None,
        "infra": order.infra,
        "plan_hash": order.plan.plan_hash,
        "candidate_id": order.candidate.candidate_id,
        "offer": candidate["offer"],
        "cap_usd": None if order.cap_micro_usd is None else usd_text_of_micro(order.cap_micro_usd),
        "max_duration_h": None if limit_s is None else limit_s / 3600,
        "estimate": {"cost_usd": candidate["cost_usd"], "wall_clock_h": candidate["wall_clock_h"]},
        "checkpoint_uri": order.checkpoint_uri(places),
        "dry_run": True,
        "backend_document": backend_document(order, places) if goes_on(found) else None,
        "blockers": [{"code": row.code, "message": str(row), "hint": row.hint} for row in found],
        "warnings": [],
    }


def goes_on(found: Sequence[Finding]) -> bool:
    """Whether a dry run can show what would be launched: the order is right, whatever its surroundings lack."""
    return all(is_about_surroundings(row) for row in found)


def backend_document(order: Order, places: Places) -> str | None:
    """The YAML that SkyPilot would get, None for a local run.

    Raises:
        LaunchError: SkyPilot can rent none of the machines.
    """
    if order.infra == "local":
        return None
    request = request_of(order.run_id, run_terms(order, places), places.bundle(order.run_id, 1))
    if order.choices.move:  # one place at a time
        request = replace(request, offers=request.offers[:1])
    return task_yaml(request, managed=order.infra == "skypilot")


def _files(spec: FineTuneSpec, base_dir: Path) -> Iterator[Finding]:
    """Data and model that should be on this machine, and data that can be learned from."""
    missing = list(missing_data(spec, base_dir))
    yield from missing or (*unlearnable(spec, base_dir), *untemplated_here(spec, base_dir))
    try:
        check_local(spec, base_dir)
    except TuneplanError as error:
        yield Finding(error.message, path=error.path or "data", code=error.code, hint=error.hint)
    model = model_ref(base_dir, spec.model.id)
    if model.kind == "path" and not Path(model.value, "config.json").is_file():
        yield Finding(
            f"there is no config.json in {model.value}",
            path="model.id",
            code="model_missing",
            hint=maker_of(Path(model.value)),
        )


def _software(spec: FineTuneSpec) -> Iterator[Finding]:
    extras = spec_extras(spec)
    missing = missing_requirements(extras)
    if missing:
        message = f"training on this machine needs {', '.join(missing)}"
        yield Finding(message, code="missing_extra", hint=f"pip install 'tuneplan[{','.join(extras)}]'")


def _room(candidate: Candidate, uri: str, places: Places) -> Iterator[Finding]:
    """Places to write to, and enough room in them."""
    parts = urlsplit(uri)
    state = _nearest(places.state)
    checkpoints = _nearest(Path(unquote(parts.path))) if parts.scheme == "file" else state
    if parts.scheme != "file":
        yield from unreachable_store(uri)
    for path, key in {checkpoints: "checkpoints.uri", state: ""}.items():
        if not os.access(path, os.W_OK | os.X_OK):
            yield Finding(f"{path} is not writable", path=key, code="not_writable")
    free_gib = shutil.disk_usage(checkpoints).free / _GIB
    if free_gib < candidate.disk_gib:
        message = (
            f"{checkpoints} has {free_gib:.1f} GiB free, the run needs about {candidate.disk_gib:.1f} GiB"
        )
        yield Finding(
            message, path="checkpoints.uri", code="disk_full", hint="free some space or move checkpoints.uri"
        )


def _nearest(path: Path) -> Path:
    """The path, or its innermost parent that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
