"""What a run on rented machines needs beyond a local one: other machines to try, its files, its Python.

The ledger keeps it in the candidate's document, under `rented`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.spec import JobSpec
from planner.bundle import ENVIRONMENT_PYTHON, INSTALL_SCRIPT
from planner.errors import Finding
from planner.inputs import reads
from planner.offer_document import offer_document, offer_from_document
from planner.runs import Run, seconds_between
from providers.aws_access import LONGEST_SESSION_S
from providers.launcher import Access, LaunchRequest
from providers.offers import Offer
from providers.s3_location import is_bucket, s3_location, stated_region
from providers.skypilot_task import NO_IMAGES, WITHOUT_SPOT

if TYPE_CHECKING:  # the monitor imports this module, and needs neither spec nor estimate
    from planner.candidates import Candidate
    from planner.plan import Plan
    from planner.spec import FineTuneSpec

_MOST_ALTERNATIVES = 30
#: Of Python, where the spec names none.
LEAST_PYTHON = "3.11"
#: Clouds whose machines may share a disk with this one.
_SHARED_DISK = frozenset({"slurm"})
_NAMED_KEYS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})
#: By scheme, the variables of which one lets obstore into a bucket; key files are left out, a machine has none.
_LOGINS = {
    "gs": ("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"),
    "az": ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CLIENT_SECRET"),
}


def alternatives(plan: Plan, chosen: Candidate) -> list[Offer]:
    """Other machines that can run the very same job document, in the plan's order.

    Machines of AWS are never mixed with others: SkyPilot would either give them a role that may do everything in EC2
    and S3, or send the user's AWS credentials to the others.
    """
    return [other.offer for other in _others(plan, chosen)][:_MOST_ALTERNATIVES]


def twins(plan: Plan, chosen: Candidate) -> list[Candidate]:
    """All candidates that run the same job document on the same GPUs, the chosen one included."""
    gpu = (chosen.offer.gpu, chosen.offer.gpus_per_node)
    return [row for row in _twins(plan, chosen) if (row.offer.gpu, row.offer.gpus_per_node) == gpu]


def _others(plan: Plan, chosen: Candidate) -> list[Candidate]:
    return [row for row in _twins(plan, chosen) if row.candidate_id != chosen.candidate_id]


def _twins(plan: Plan, chosen: Candidate) -> list[Candidate]:
    same = [other for other in plan.candidates if _shape(other) == _shape(chosen)]
    on_aws = chosen.offer.cloud == "aws"
    return [row for row in same if row.offer.market != "local" and (row.offer.cloud == "aws") == on_aws]


def terms_document(
    plan: Plan, chosen: Candidate, job: JobSpec, sources: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the ledger keeps; `sources` are the files of this machine that the job names, as `inputs` gives them."""
    spec, others = plan.spec, alternatives(plan, chosen)
    return {
        "alternatives": [offer_document(offer) for offer in others],
        "bases": _bases(_others(plan, chosen)[:_MOST_ALTERNATIVES]),
        "max_usd_per_hour": _dearest_usd_per_hour(spec, chosen),
        "python": spec.environment.python if spec.environment.names_interpreter else ENVIRONMENT_PYTHON,
        "setup": _setup(spec),
        "stores": [uri for uri in (job.checkpoints.uri, job.output.uri) if uri and uri.startswith("s3://")],
        "reads": [uri for uri in reads(job.inputs) if uri.startswith("s3://")],
        "sources": dict(sources or {}),
        "access": access(spec, (chosen.offer, *others)),
        "image": spec.environment.image,
    }


def _dearest_usd_per_hour(spec: FineTuneSpec, chosen: Candidate) -> float | None:
    """What one of the job's machines may cost; backends choose among machines, one by one."""
    most = spec.where.max_usd_per_hour
    return None if most is None else round(most / chosen.nodes, 6)


def _bases(others: Iterable[Candidate]) -> list[dict[str, Any]]:
    """What the formulas say of each other kind of machine, so that a run that gets one teaches of that one."""
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    for other in others:
        if other.basis is not None:
            kinds.setdefault((other.offer.cloud, other.offer.gpu), other.basis._asdict())
    return [{"cloud": cloud, "gpu": gpu, **basis} for (cloud, gpu), basis in kinds.items()]


def named_zones(document: dict[str, Any], names: Mapping[str, str]) -> None:
    """Give the offers of a candidate's document the zone names of the account, where they are known."""
    for offer in (document["offer"], *document["rented"]["alternatives"]):
        offer["zone"] = names.get(offer["zone"], offer["zone"])


def complete(request: LaunchRequest, terms: Mapping[str, Any]) -> LaunchRequest:
    """The request with what `terms_document` kept."""
    return replace(
        request,
        offers=(*request.offers, *(offer_from_document(offer) for offer in terms["alternatives"])),
        max_usd_per_hour=terms["max_usd_per_hour"],
        python=terms["python"] or request.python,
        setup_python=terms["python"]
        if terms["python"] not in (None, ENVIRONMENT_PYTHON)
        else request.setup_python,
        setup=tuple(terms["setup"]),
        stores=tuple(terms.get("stores", ())),  # absent in what an earlier version kept
        reads=tuple(terms.get("reads", ())),
        access=terms.get("access", "secrets"),
        reservations=tuple(terms.get("reservations", ())),
        image=terms.get("image"),
    )


def reservations(candidate_json: str) -> tuple[str, ...]:
    """The providers' names of the reservations that a run's machines are of, none if they are of no reservation."""
    return tuple(json.loads(candidate_json).get("rented", {}).get("reservations", ()))


def sources(candidate_json: str) -> dict[str, str]:
    """The files of this machine that a run's job names, by their name in the job."""
    kept: dict[str, str] = json.loads(candidate_json).get("rented", {}).get("sources", {})
    return kept


def keys_ended(run: Run, now: str) -> bool:
    """Whether the session keys that a machine of the newest launch starts with would be of no use any more."""
    terms = json.loads(run.terms.candidate_json).get("rented", {})
    return terms.get("access") == "session" and seconds_between(run.launched_at, now) >= LONGEST_SESSION_S


def machine_got(candidate: Mapping[str, Any], got: Offer | None) -> Offer | None:
    """The priced offer that the backend's machine is, None if it is none of those that were asked for.

    A place may sell it as spot and on demand, and the same GPU in several machines: each has a price of its own.
    """
    rented = candidate.get("rented")
    if got is None or rented is None:
        return None
    asked = [offer_from_document(row) for row in (candidate["offer"], *rented["alternatives"])]
    same = [offer for offer in asked if _place(offer) == _place(got)]
    return max(same, key=lambda offer: _likeness(offer, got), default=None)


def _likeness(asked: Offer, got: Offer) -> tuple[bool, bool, bool]:
    """How much of what the backend tells of its machine an offer has; what it does not tell counts for all."""
    return (
        got.cloud in WITHOUT_SPOT or asked.market == got.market,
        got.instance_type is None or asked.instance_type == got.instance_type,
        asked.zone == got.zone,
    )


def prices_by_region(candidate: Mapping[str, Any]) -> dict[str, float]:
    """Dearest price of all machines by "cloud/region", so that the worker can tell what it costs where it is."""
    prices: dict[str, float] = {}
    if "rented" in candidate:
        for offer in map(offer_from_document, (candidate["offer"], *candidate["rented"]["alternatives"])):
            if offer.price_usd_per_hour is not None:
                place = f"{offer.cloud}/{offer.region}".lower()
                prices[place] = max(prices.get(place, 0.0), offer.price_usd_per_hour * candidate["nodes"])
    return prices


def access(spec: FineTuneSpec, offers: Iterable[Offer]) -> Access:
    """How the machines come by their rights on the run's buckets.

    Keys that the spec names win; machines that are all of AWS get a role that may do nothing else; others get keys
    that are good for the run's prefixes alone and for some hours.
    """
    if not _buckets(spec) or set(spec.environment.secrets) >= _NAMED_KEYS:
        return "secrets"
    return "role" if {offer.cloud for offer in offers} == {"aws"} else "session"


def blockers(plan: Plan, chosen: Candidate, job: JobSpec, *, renewed: bool = False) -> Iterator[Finding]:
    """What makes a rented machine useless for this job; `renewed` if a monitor renews its session keys."""
    yield from _unreachable(plan.spec, chosen, job)
    yield from _outside_regions(plan.spec, job)
    how = access(plan.spec, (chosen.offer, *alternatives(plan, chosen)))
    yield from _without_rights(plan.spec, chosen, how, renewed=renewed)
    if plan.spec.environment.image is not None and chosen.offer.cloud in NO_IMAGES:
        message = f"machines of {chosen.offer.cloud} run no container image through SkyPilot"
        hint = "leave it out and name packages, or exclude the cloud in where.clouds"
        yield Finding(message, path="environment.image", code="no_images", hint=hint)
    if chosen.processes != chosen.gpus_total:
        message = f"{chosen.gpus_total - chosen.processes} of the {chosen.gpus_total} GPUs would be paid for and idle"
        yield Finding(message, path="where.gpus", code="idle_gpus", hint="choose another candidate")


def shares_disk(offer: Offer) -> bool:
    """Whether the machine may see a directory of this one."""
    return offer.cloud in _SHARED_DISK


def _unreachable(spec: FineTuneSpec, chosen: Candidate, job: JobSpec) -> Iterator[Finding]:
    """Places on a disk that the machine does not have."""
    shares = shares_disk(chosen.offer)
    for key, uri in (("checkpoints", job.checkpoints.uri), ("output", job.output.uri)):
        given = getattr(spec, key).uri is not None
        if uri is None or is_bucket(uri) or (shares and given):
            continue
        message = f"a machine of {chosen.offer.cloud} cannot write to {uri}"
        also = ", or a path that this machine and the cluster share" if shares else ""
        hint = f"give {key}.uri a bucket, as in s3://bucket/prefix{also}"
        yield Finding(message, path=f"{key}.uri", code="store_unreachable", hint=hint)


def _outside_regions(spec: FineTuneSpec, job: JobSpec) -> Iterator[Finding]:
    """Local data that would be sent to a bucket where it must not be."""
    allowed, uri = spec.data.regions, spec.checkpoints.uri
    if allowed is None or uri is None or not is_bucket(uri) or not Path(job.data.train).is_absolute():
        return
    region = stated_region(uri)
    if region not in allowed:
        where = "whose region is not stated" if region is None else f"in {region}"
        message = f"the data would be sent to a bucket {where}, and data.regions allows {', '.join(allowed)}"
        hint = "choose a bucket there, and state it: s3://bucket/prefix?region=NAME"
        yield Finding(message, path="checkpoints.uri", code="data_region", hint=hint)


def _without_rights(
    spec: FineTuneSpec, chosen: Candidate, how: Access, *, renewed: bool
) -> Iterator[Finding]:
    """Buckets that the machine would get no rights on."""
    names = "name AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the bucket under environment.secrets"
    yield from _without_login(spec)
    if how == "secrets":
        return
    for key, uri in _buckets(spec).items():
        if s3_location(uri).endpoint is not None:
            message = "rights on a server that is not AWS cannot be made for one run"
            yield Finding(message, path=f"{key}.uri", code="no_bucket_rights", hint=names)
    hours = chosen.wall_clock_h.p90
    if how == "session" and hours * 3600 > LONGEST_SESSION_S and not renewed:
        message = (
            f"keys made for one run end after {LONGEST_SESSION_S / 3600:.0f} h, it may take {hours:.0f} h"
        )
        yield Finding(
            message,
            path="checkpoints.uri",
            code="session_too_short",
            hint=f"`--monitor service` renews them; or {names}",
        )


def _without_login(spec: FineTuneSpec) -> Iterator[Finding]:
    """Buckets of Google and Azure: rights for one run alone are not made there, so a key must be named."""
    for key in ("checkpoints", "output"):
        scheme = str(getattr(spec, key).uri).partition("://")[0]
        names = _LOGINS.get(scheme, ())
        if names and not {*spec.environment.secrets} & {*names}:
            message = f"the machine would get no rights on {getattr(spec, key).uri}"
            hint = (
                f"name {' or '.join(names)} under environment.secrets, one that is good for this prefix alone"
            )
            yield Finding(message, path=f"{key}.uri", code="no_bucket_rights", hint=hint)


def _buckets(spec: FineTuneSpec) -> dict[str, str]:
    """The spec's s3:// URIs by the section that they stand in."""
    uris = {key: getattr(spec, key).uri for key in ("checkpoints", "output")}
    return {key: uri for key, uri in uris.items() if uri is not None and uri.startswith("s3://")}


def _shape(candidate: Candidate) -> tuple[object, ...]:
    """What the job document depends on."""
    return (
        candidate.nodes,
        candidate.offer.gpus_per_node,
        candidate.parallelism,
        candidate.micro_batch,
        candidate.grad_accum,
        candidate.gradient_checkpointing,
    )


def _place(offer: Offer) -> tuple[object, ...]:
    return offer.cloud, offer.region, offer.gpu, offer.gpus_per_node


def _setup(spec: FineTuneSpec) -> list[str]:
    """Shell lines; a Python that the user names by its path has everything already but further packages."""
    given = spec.environment
    if spec.environment.names_interpreter:
        words = [str(given.python), "-m", "pip", "install", "--quiet", *given.packages]
        lines = [shlex.join(words)] if given.packages else []
    else:
        lines = [shlex.join(("sh", f"jobs/{INSTALL_SCRIPT}", *install_words(spec)))]
    return lines + ([given.setup] if given.setup else [])


def install_words(spec: FineTuneSpec) -> tuple[str, ...]:
    """Arguments of the script that installs what a worker needs: the version of Python, and further packages."""
    given = spec.environment
    return (
        LEAST_PYTHON if spec.environment.names_interpreter else given.python or LEAST_PYTHON,
        *given.packages,
    )
