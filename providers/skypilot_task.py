"""A `LaunchRequest` in SkyPilot's words: the task document, without SkyPilot itself.

The document is what `plan launch --dry-run` shows and, but for the values of secrets, what is launched.
"""

from __future__ import annotations

import io
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from providers.aws_zones import is_zone_id
from providers.errors import LaunchError
from providers.gpus import CPU
from providers.launcher import LaunchRequest
from providers.offers import Offer
from providers.sealed import UNTIL, VARIABLE
from providers.tags import tag_value

# Clouds that SkyPilot 0.14 can rent from and that our catalogs know; the others it only has prices of.
CLOUDS = frozenset(
    {
        "aws", "azure", "cudo", "do", "fluidstack", "gcp", "hyperbolic", "ibm", "kubernetes", "lambda",
        "mithril", "nebius", "oci", "paperspace", "primeintellect", "runpod", "scp", "seeweb", "shadeform",
        "slurm", "ssh", "vast", "verda", "vsphere", "yotta",
    }
)  # fmt: skip
# SkyPilot sends the user's own credential files to every machine, unless this is set for the cloud they
# are of; it can be set for these clouds only.
_NO_UPLOAD_CLOUDS = ("aws", "azure", "gcp", "kubernetes", "nebius", "oci", "slurm", "ssh", "vast")
# What it sends of the others, below the home directory, with the copies it arrives in: removed on arrival.
_SENT_CREDENTIALS = (
    ".sky/.runtime_files",
    ".cache/huggingface/token",
    ".cloudflare",
    ".config/cudo",
    ".config/doctl",
    ".coreweave",
    ".fluidstack",
    ".hyperbolic",
    ".ibm",
    ".lambda_cloud",
    ".mithril",
    ".paperspace",
    ".prime",
    ".runpod",
    ".scp",
    ".seeweb_cloud",
    ".shadeform",
    ".vastdata",
    ".verda",
    ".vsphere",
    ".yotta",
)

#: Keys of a session with a bucket.
SESSION_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", UNTIL)
# botocore asks a machine for its role's keys once and for one second, then says that there are none.
_PATIENT = {"AWS_METADATA_SERVICE_TIMEOUT": "5", "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "5"}
# The worker's own exit codes for "preempted, start me again" (see the table in README).
RETRY_EXIT_CODES = (75, 76)
_RECOVERY = {"strategy": "EAGER_NEXT_REGION", "recover_on_exit_codes": list(RETRY_EXIT_CODES)}
# Clouds on which SkyPilot runs nothing in a container of ours.
NO_IMAGES = frozenset(
    {"cudo", "hyperbolic", "ibm", "oci", "primeintellect", "scp", "shadeform", "verda", "vsphere"}
)
#: Clouds whose machines get the disk that is asked for; elsewhere it is what the machine has.
SIZED_DISKS = frozenset({"aws", "azure", "gcp", "nebius", "oci", "runpod", "vast"})
#: Clouds that know no spot machines for SkyPilot: what is spot to us is asked for there like any other.
WITHOUT_SPOT = frozenset({"kubernetes", "slurm", "ssh"})
#: Clouds on which SkyPilot lets an idle machine end itself: the net below what nobody looks after any more.
END_THEMSELVES = frozenset({"aws", "azure", "gcp", "lambda", "nebius", "oci"})
_USUAL_DISK_GIB = 256  # what SkyPilot asks for if nobody says
_SYSTEM_DISK_GIB = 60.0  # image, drivers and the worker's packages
# A machine without a GPU still needs one processor to be found.
_LEAST_CPUS = "1+"
#: What the name of every managed job of ours begins with.
JOB_PREFIX = "plan-"
_OWN = "-own"
_JOB = re.compile(rf"{JOB_PREFIX}(.+)-(\d+)")


def job_name(run_id: str, attempt: int) -> str:
    """The managed job's name, by which a launch finds again what an earlier one started."""
    return f"{JOB_PREFIX}{run_id}-{attempt}"


def run_of(name: str) -> tuple[str, int] | None:
    """Run and attempt that a job of this name is of, None if the name is none of ours.

    >>> run_of("plan-goat-7-12"), run_of("planning-1")
    (('goat-7', 12), None)
    """
    match = _JOB.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def attempt_of(name: str, run_id: str) -> int | None:
    """The attempt that a job of this name is of the run, None if it is of another run.

    >>> attempt_of("plan-goat-7-12", "goat-7"), attempt_of("plan-goat-7-12", "goat")
    (12, None)
    """
    found = run_of(name)
    return found[1] if found is not None and found[0] == run_id else None


def cluster_name(run_id: str, attempt: int) -> str:
    """Name of a cluster of the run's own; SkyPilot gives the clusters of managed jobs the job's name and a number."""
    return job_name(run_id, attempt) + _OWN


def run_of_cluster(name: str) -> tuple[str, int] | None:
    """Run and attempt that a cluster of this name was made for, None if it is none of a run's own.

    >>> run_of_cluster("plan-goat-7-12-own"), run_of_cluster("plan-goat-7-12")
    (('goat-7', 12), None)
    """
    return run_of(name.removesuffix(_OWN)) if name.endswith(_OWN) else None


def task_document(request: LaunchRequest, *, managed: bool = True) -> dict[str, Any]:
    """The task as SkyPilot's YAML would parse; secrets are named, their values are null.

    Args:
        request: What to run.
        managed: SkyPilot starts it again after a preemption; else it is a cluster's only job.

    Raises:
        LaunchError: SkyPilot can rent none of the offers.
    """
    document = {
        "name": job_name(request.run_id, request.attempt),
        "num_nodes": request.nodes,
        "workdir": str(request.bundle),
        "resources": {
            "ordered": list(_candidates(request)),
            "labels": _labels(request),
            **({"job_recovery": _RECOVERY} if managed else {}),
        },
        "envs": _environment(request),
        "secrets": {VARIABLE: None} if secret_names(request) else {},
        "setup": _setup_script(request),
        "run": _run_script(request),
    }
    return {key: value for key, value in document.items() if value not in ("", {})}


def task_yaml(request: LaunchRequest, *, managed: bool = True) -> str:
    """The task document as YAML; see `task_document`.

    Raises:
        LaunchError: SkyPilot can rent none of the offers.
    """
    return as_yaml(task_document(request, managed=managed))


def as_yaml(document: Mapping[str, Any]) -> str:
    """A task document as YAML, its scripts as they are written."""
    from ruamel.yaml import YAML  # a tenth of a second that only a launch needs to pay
    from ruamel.yaml.scalarstring import LiteralScalarString

    scripts = {key: LiteralScalarString(document[key]) for key in ("setup", "run") if key in document}
    text = io.StringIO()
    yaml = YAML()
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump({key: scripts.get(key, value) for key, value in document.items()}, text)
    return text.getvalue()


def variable_in(yaml_text: str, name: str) -> str | None:
    """A plain variable of a task's YAML as SkyPilot gives it back, None if it has none.

    >>> variable_in("name: a\\nenvs: {X: y}\\n", "X"), variable_in("", "X")
    ('y', None)
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        documents = list(YAML(typ="safe", pure=True).load_all(yaml_text))
    except YAMLError:
        return None
    tasks = [document for document in documents if isinstance(document, dict)]
    found = next((task["envs"][name] for task in tasks if name in (task.get("envs") or {})), None)
    return None if found is None else str(found)


def no_credential_upload() -> dict[str, dict[str, Any]]:
    """SkyPilot configuration that keeps the user's credential files here, for the clouds that allow it."""
    return {cloud: {"remote_identity": "NO_UPLOAD"} for cloud in _NO_UPLOAD_CLOUDS}


def resources_of(offer: Offer) -> dict[str, Any]:
    """One machine that SkyPilot may try; a cloud with instance types gets the very one that was priced.

    Slurm and Kubernetes share machines out by GPU, and GCP attaches GPUs to a host machine, so those are told
    the GPU by name. AWS zones in catalogs are ids, which have another name in every account: where the name is not
    known, only the region counts.
    """
    zone = None if offer.cloud == "aws" and is_zone_id(offer.zone) else offer.zone
    place = [offer.cloud, *(part for part in (offer.region, zone) if part)]
    resources: dict[str, Any] = {"infra": "/".join(place)}
    if offer.instance_type is not None:
        resources["instance_type"] = offer.instance_type
    if offer.gpu != CPU and (offer.instance_type is None or offer.cloud == "gcp"):
        resources["accelerators"] = f"{_sky_gpu(offer)}:{offer.gpus_per_node}"
    if offer.instance_type is None:
        resources["cpus"] = _LEAST_CPUS
    if offer.market == "spot" and offer.cloud not in WITHOUT_SPOT:
        resources["use_spot"] = True
    return resources


def _candidates(request: LaunchRequest) -> Iterator[dict[str, Any]]:
    """Each different machine once, in the order to try.

    SkyPilot heeds `max_hourly_cost` only where it chooses the instance type itself, so dear ones are left out here.
    """
    limit = request.max_usd_per_hour
    seen = []
    for offer in request.offers:
        price = offer.price_usd_per_hour
        if _can_run(offer, request) and (limit is None or (price is not None and price <= limit)):
            dearest = {} if limit is None else {"max_hourly_cost": limit}
            resources = resources_of(offer) | _disk(offer, request.disk_gib) | _image(request) | dearest
            if resources not in seen:
                seen.append(resources)
                yield resources
    if not seen:
        clouds = ", ".join(sorted({offer.cloud for offer in request.offers})) or "no cloud"
        below = "" if limit is None else f" for at most {limit:g} US dollars an hour"
        hint = "widen `where` in the spec"
        raise LaunchError(
            f"SkyPilot can rent none of the machines of {clouds}{below}", hint=hint, code="no_offer"
        )


def _can_run(offer: Offer, request: LaunchRequest) -> bool:
    return offer.cloud in CLOUDS and not (request.image is not None and offer.cloud in NO_IMAGES)


def _image(request: LaunchRequest) -> dict[str, str]:
    return {} if request.image is None else {"image_id": f"docker:{request.image.removeprefix('docker:')}"}


def _disk(offer: Offer, need_gib: float | None) -> dict[str, int]:
    """A larger disk where the usual one is too small, on clouds where disks are sized on request."""
    if offer.cloud not in SIZED_DISKS or need_gib is None:
        return {}
    wanted_gib = math.ceil(need_gib + _SYSTEM_DISK_GIB)
    return {"disk_size": wanted_gib} if wanted_gib > _USUAL_DISK_GIB else {}


def _sky_gpu(offer: Offer) -> str:
    if offer.cloud == "gcp" and (offer.instance_type or "").startswith("a3-megagpu"):
        return "H100-MEGA"
    return offer.gpu


def _labels(request: LaunchRequest) -> dict[str, str]:
    """Tags that every cloud takes."""
    labels = request.labels | {"tuneplan-run": request.run_id, "tuneplan-attempt": str(request.attempt)}
    return {tag_value(name): tag_value(value) for name, value in labels.items()}


def _environment(request: LaunchRequest) -> dict[str, str]:
    """Plain variables; what is secret is only named."""
    names = secret_names(request)
    named = {"TUNEPLAN_SECRETS": " ".join(names)} if names else {}
    run = {"TUNEPLAN_RUN_ID": request.run_id, "TUNEPLAN_ATTEMPT": str(request.attempt)}
    return {**(_PATIENT if request.access == "role" else {}), **request.env, **run, **named}


def secret_names(request: LaunchRequest) -> tuple[str, ...]:
    """Environment variables that the worker gets and nobody else may see: the user's, and keys made for the run."""
    made = SESSION_VARIABLES if request.access == "session" else ()
    return tuple(dict.fromkeys((*request.secrets, *made)))


def _with_secrets(request: LaunchRequest, command: str, python: str) -> str:
    """The command line with the secrets in its environment, which SkyPilot has only one share of."""
    if not secret_names(request):
        return command
    return f"{shlex.quote(python)} -m providers.sealed {command}"


def _at_work(request: LaunchRequest, command: str, python: str) -> str:
    """The command line with its secrets, so that the machine's keeper sees that it runs."""
    return f"{shlex.quote(python)} -m jobs.keeper hold {_with_secrets(request, command, python)}"


def _limit_of_machine(request: LaunchRequest) -> str:
    rules = f" --limit-s {request.max_duration_s:.0f} --grace-s {max(1.0, request.stop_grace_s):.0f}"
    if not request.limits_by_place_s:
        return rules
    by_place = {place: round(limit_s) for place, limit_s in sorted(request.limits_by_place_s.items())}
    return f"{rules} --limits-s {shlex.quote(json.dumps(by_place))}"


def _setup_script(request: LaunchRequest) -> str:
    """The user's credential files are gone before anything else runs; a line that fails ends the set-up.

    The machine's keeper comes before what may hang.
    """
    ours = 'PYTHONPATH="$PWD" PYTHONSAFEPATH=1 '
    limit = "" if request.max_duration_s is None else _limit_of_machine(request)
    keeper = f"{shlex.quote(request.setup_python)} -m jobs.keeper start{limit}"
    lines = [
        f"rm -rf {' '.join(f'~/{path}' for path in _SENT_CREDENTIALS)}",
        ours + _with_secrets(request, keeper, request.setup_python),
    ]
    if request.setup:
        script = "\n".join(("unset PYTHONPATH PYTHONSAFEPATH", *request.setup))
        install = _at_work(request, f"bash -e -c {shlex.quote(script)}", request.setup_python)
        lines.append(ours + install)
    return "\n".join(lines) + "\n"


def _run_script(request: LaunchRequest) -> str:
    """Only our bundle is imported from, and a worker that outlives its limit is ended from outside."""
    limit = here = ""
    if request.max_duration_s is not None:
        grace_s = max(1.0, request.stop_grace_s)
        ask_s = f"{max(1.0, request.max_duration_s - grace_s):.0f}"
        if request.limits_by_place_s:  # by the price of the machine that was got
            ask = f"{shlex.quote(request.python)} -m jobs.keeper ask-s{_limit_of_machine(request)}"
            here, ask_s = f"ask_s=$({ask}) || ask_s={ask_s}\n", '"$ask_s"'
        limit = f"timeout --signal=TERM --kill-after={grace_s:.0f} {ask_s} "
    worker = _at_work(request, shlex.join((request.python, *request.worker, "job.json")), request.python)
    return f'export PYTHONPATH="$PWD" PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1\n{here}exec {limit}{worker}\n'
