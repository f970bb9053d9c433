"""Our words against SkyPilot's own: machines, errors and credential files, without launching anything."""

import inspect
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from providers.catalog import load_default_snapshot
from providers.errors import CleanupPendingError, CredentialsError, LaunchError, TuneplanError, UsageError
from providers.launcher import LaunchRequest
from providers.offers import Offer
from providers.skypilot import SkyPilotLauncher
from providers.skypilot_jobs import offer_of, status_of
from providers.skypilot_task import CLOUDS, job_name, resources_of, task_document
from tests.bed.client import Elsewhere
from tests.bed.sky_home import SkyHome

CATALOGS = Path(__file__).parents[3] / "shared/data/catalogs/v8"
#: Clouds whose prices ship with us, so that each must be launchable as priced.
PRICED = {"aws", "azure", "gcp", "lambda", "nebius", "oci", "runpod", "do", "paperspace", "verda", "yotta"}


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """SkyPilot with a home of its own and real catalogs where they are to be had."""
    home = SkyHome(tmp_path_factory.mktemp("sky"), port=1)
    home.write()
    (home.root / "tmp").mkdir()
    if CATALOGS.exists():
        shutil.copytree(CATALOGS, home.path / ".sky/catalogs/v8", dirs_exist_ok=True)
    process = Elsewhere(home.env())
    yield process
    process.close()


def mapped_errors() -> dict[str, tuple[str, str]]:
    """Of every exception of SkyPilot's: our class and message."""
    from sky import exceptions

    from providers.skypilot_errors import skypilot_error

    found = {}
    for name, cls in inspect.getmembers(exceptions, inspect.isclass):
        if issubclass(cls, Exception) and cls.__module__ == exceptions.__name__:
            like_it = type(name, (cls,), {"__init__": lambda self: None, "__str__": lambda self: "it broke"})
            ours = skypilot_error(like_it())
            assert isinstance(ours, TuneplanError)
            found[name] = (type(ours).__name__, ours.message)
    return found


def test_no_exception_of_skypilots_goes_unmapped(sky: Elsewhere) -> None:
    found = sky.call(mapped_errors)
    assert len(found) > 70
    assert {kind for kind, _ in found.values()} == {"CredentialsError", "UsageError", "LaunchError"}
    expected = {
        "NoCloudAccessError": CredentialsError,
        "PermissionDeniedError": CredentialsError,
        "NoWorkspaceAccessError": CredentialsError,
        "InvalidSkyPilotConfigError": UsageError,
        "ResourcesUnavailableError": LaunchError,
        "ApiServerConnectionError": LaunchError,
    }
    assert {name: found[name][0] for name in expected} == {
        name: cls.__name__ for name, cls in expected.items()
    }


def credential_paths() -> dict[str, list[str]]:
    """Where SkyPilot puts credential files on a machine, by cloud, below the home directory."""
    from sky.adaptors import cloudflare, coreweave, huggingface, vastdata
    from sky.utils import registry

    paths = {
        name: list(cloud.get_credential_file_mounts()) for name, cloud in registry.CLOUD_REGISTRY.items()
    }
    stores = {
        module.__name__: list(module.get_credential_file_mounts())
        for module in (cloudflare, coreweave, huggingface, vastdata)
    }
    return paths | stores


def test_every_credential_file_is_held_back_or_removed(sky: Elsewhere) -> None:
    from providers.skypilot_task import _NO_UPLOAD_CLOUDS, _SENT_CREDENTIALS

    for cloud, paths in sky.call(credential_paths).items():
        for path in paths if cloud not in _NO_UPLOAD_CLOUDS else []:
            name = path.removeprefix("~/")
            assert any(name == sent or name.startswith(f"{sent}/") for sent in _SENT_CREDENTIALS), (
                cloud,
                path,
            )


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ("Job is in backoff", "none of the machines asked for can be had now"),
        ("In backoff, waiting for resources - x", "none of the machines asked for can be had now"),
        ("Failure: no such image", "Failure: no such image"),
        ("", "pending"),
    ],
)
def test_a_job_that_waits_says_what_for(details: str, reason: str) -> None:
    job = SimpleNamespace(
        **dict.fromkeys(("failure_reason", "cloud", "start_at", "end_at", "cluster_resources_full")),
        job_id=1,
        status=SimpleNamespace(value="PENDING"),
        details=details,
        recovery_count=0,
    )
    status = status_of({1: job})
    assert (status.state, status.reason.startswith(reason)) == ("queued", True)


@pytest.mark.parametrize(
    ("told", "market", "kind"),
    [
        ("1x[spot](gpus=L4:1, cpus=4, mem=16, g6.xlarge, disk=256)", "spot", "g6.xlarge"),
        ("1x(gpus=L4:1, cpus=32, mem=128, g6.8xlarge, disk=256)", "on_demand", "g6.8xlarge"),
        ("1x(gpus=L4:1, cpus=4, mem=16, disk=256)", "on_demand", None),
    ],
)
def test_a_machine_is_told_with_its_market_and_its_kind(told: str, market: str, kind: str | None) -> None:
    place = {"cloud": "AWS", "region": "us-east-1", "zone": None, "accelerators": {"L4": 1}}
    got = offer_of(SimpleNamespace(**place, cluster_resources_full=told))
    assert got is not None
    assert (got.market, got.instance_type) == (market, kind)


def test_what_was_interrupted_while_it_was_launched_is_cancelled_once_it_is_a_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The moment cannot be met with a real SkyPilot: its launch is accepted, and its job comes seconds later."""
    job: dict[str, Any] = dict.fromkeys(
        ("recovery_count", "start_at", "end_at", "details", "failure_reason", "cloud", "region", "zone")
    )
    job |= {"cluster_resources_full": None, "accelerators": None, "schedule_state": "ALIVE", "job_id": 7}
    pending = [SimpleNamespace(name="sky.jobs.launch")]
    jobs: list[SimpleNamespace] = []
    cancelled: list[int] = []

    def api_status() -> list[SimpleNamespace]:
        if not jobs:
            jobs.append(
                SimpleNamespace(**job, job_name=job_name("r", 1), status=SimpleNamespace(value="PENDING"))
            )
            return pending
        return []

    client = SimpleNamespace(
        api_status=api_status,
        get=lambda answer: answer,
        jobs=SimpleNamespace(
            queue_v2=lambda **_: (list(jobs),), cancel=lambda *, job_ids: cancelled.extend(job_ids)
        ),
        exceptions=SimpleNamespace(ClusterNotUpError=LookupError),
    )
    monkeypatch.setattr("providers.skypilot.sky_module", lambda: nullcontext(client))
    monkeypatch.setattr("providers.skypilot._POLL_S", 0.0)
    SkyPilotLauncher().cancel("r", grace_s=0.0)
    assert cancelled == [7]


class RequestInterruptedError(Exception):
    """As SkyPilot's own, which is no OSError."""


class ServerTemporarilyUnavailableError(Exception):
    """As SkyPilot's own, which is no OSError."""


@pytest.mark.parametrize("kind", [RequestInterruptedError, ServerTemporarilyUnavailableError])
@pytest.mark.parametrize("lost", ["asked", "answered"])
def test_a_server_that_is_lost_after_it_was_asked_may_have_started_something(
    monkeypatch: pytest.MonkeyPatch, lost: str, kind: type[Exception]
) -> None:
    """A remote server that is updated says so in the middle of a launch, and goes on with it."""

    def get(answer: Any) -> Any:
        if answer == "accepted":
            raise kind("try again")
        return answer

    def launch(task: object, *, name: str) -> str:
        if lost == "asked":
            raise kind("try again")
        return "accepted"

    client = SimpleNamespace(
        api_status=list,
        get=get,
        jobs=SimpleNamespace(queue_v2=lambda **_: ([],), launch=launch),
        exceptions=SimpleNamespace(ClusterNotUpError=LookupError, ApiServerConnectionError=LookupError),
    )
    monkeypatch.setattr("providers.skypilot.sky_module", lambda: nullcontext(client))
    monkeypatch.setattr("providers.skypilot.ready_task", lambda *_: nullcontext("task"))
    offer = Offer("aws", "r", None, "g6.xlarge", "L4", 1, 24.0, 4.0, 16.0, "spot", 0.5, "test", None)
    with pytest.raises(CleanupPendingError, match="then was lost: try again"):
        SkyPilotLauncher().launch(LaunchRequest("r", Path("bundle"), (offer,)))


def test_whoever_looks_cancels_the_later_one_of_two_jobs_of_one_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The launch that made it may have been killed before it could see the other one's job."""
    usual = dict.fromkeys(
        ("recovery_count", "start_at", "end_at", "details", "failure_reason", "cloud", "region", "zone")
    )
    usual |= {"cluster_resources_full": None, "accelerators": None, "job_name": job_name("r", 1)}
    running, pending = SimpleNamespace(value="RUNNING"), SimpleNamespace(value="PENDING")
    jobs = [
        SimpleNamespace(**usual, job_id=9, status=pending, schedule_state="ALIVE"),
        SimpleNamespace(**usual, job_id=7, status=running, schedule_state="ALIVE"),
    ]
    cancelled: list[int] = []
    client = SimpleNamespace(
        get=lambda answer: answer,
        jobs=SimpleNamespace(
            queue_v2=lambda **_: (list(jobs),), cancel=lambda *, job_ids: cancelled.extend(job_ids)
        ),
        exceptions=SimpleNamespace(ClusterNotUpError=LookupError),
    )
    monkeypatch.setattr("providers.skypilot.sky_module", lambda: nullcontext(client))
    status = SkyPilotLauncher().status("r")
    assert (status.backend_id, cancelled) == ("7", [9])
    jobs[1].schedule_state = "DONE"
    assert not SkyPilotLauncher().released("r")


def places_of_printing() -> list[tuple[str, bool]]:
    """Lines of a log, each with whether its reader's stdout is the real one."""
    from providers import skypilot

    skypilot._log_lines = lambda sky, run_id, *, follow: iter(["one", "two"])  # type: ignore[assignment]
    stdout = sys.stdout
    return [(line, sys.stdout is stdout) for line in skypilot.SkyPilotLauncher().logs("run")]


def test_the_reader_of_a_log_prints_to_its_own_stdout(sky: Elsewhere) -> None:
    assert sky.call(places_of_printing) == [("one", True), ("two", True)]


def known_clouds() -> set[str]:
    """Clouds that SkyPilot can rent from."""
    import sky  # noqa: F401 - registers them
    from sky.utils import registry

    return set(registry.CLOUD_REGISTRY)


def test_we_know_the_clouds_of_this_skypilot(sky: Elsewhere) -> None:
    assert sky.call(known_clouds) == CLOUDS


def hourly_prices(documents: list[dict[str, Any]]) -> list[float | str]:
    """SkyPilot's price of the first machine of each document, or why it refuses it."""
    from sky import Task

    prices: list[float | str] = []
    for document in documents:
        try:
            task = Task.from_yaml_config(document)
            (resources,) = task.resources
            prices.append(resources.get_cost(3600))
        except Exception as error:
            prices.append(f"{type(error).__name__}: {str(error)[:200]}")
    return prices


@pytest.mark.skipif(not CATALOGS.exists(), reason="no SkyPilot catalogs beside this checkout")
def test_skypilot_takes_every_kind_of_machine_at_our_price(sky: Elsewhere) -> None:
    offers = one_of_each_kind()
    assert {offer.cloud for offer in offers} >= PRICED
    documents = [task_document(LaunchRequest("r", Path("/tmp"), (offer,))) for offer in offers]
    for document in documents:
        document.pop("workdir")
    theirs = sky.call(hourly_prices, documents)
    answers = [
        (offer, price)
        for offer, price in zip(offers, theirs, strict=True)
        if "not found in region"
        not in str(price)  # our prices are newer than the catalogs beside this checkout
    ]
    assert len(answers) > 0.95 * len(offers)
    assert [row for row in answers if not isinstance(row[1], float)] == []
    moved = [
        (offer, price)
        for offer, price in answers
        if price != pytest.approx(offer.price_usd_per_hour, rel=1e-3) and not spot_of_a_zone(offer)
    ]
    assert moved == []


def spot_of_a_zone(offer: Offer) -> bool:
    """Spot of AWS: its price is a zone's, and SkyPilot is asked for the region."""
    return offer.cloud == "aws" and offer.market == "spot"


def one_of_each_kind() -> list[Offer]:
    """A priced offer of each cloud, machine and market that SkyPilot can rent."""
    kinds = {
        (offer.cloud, offer.instance_type, offer.market): offer
        for offer in load_default_snapshot().offers
        if offer.cloud in CLOUDS and offer.price_usd_per_hour is not None
    }
    return list(kinds.values())


def test_offers_of_slurm_name_the_gpu() -> None:
    row = Offer("slurm", "a", "b", None, "A100", 2, 40.0, None, None, "inhouse", None, "test", None)
    assert resources_of(row) == {"infra": "slurm/a/b", "accelerators": "A100:2", "cpus": "1+"}


def optimizers_choice(spot_h: float, on_demand_h: float) -> tuple[str, float, float]:
    """Market, hours and dollars of what SkyPilot's optimizer takes of one machine on spot and on demand."""
    from sky import global_user_state
    from sky.clouds import CloudCapability

    from providers.skypilot_optimizer import Timed, opinion

    machine = Offer("aws", "us-east-1", None, "g6.xlarge", "L4", 1, 24, 4, 16, "spot", None, "test", None)
    spot, on_demand = Timed(machine, spot_h), Timed(machine._replace(market="on_demand"), on_demand_h)
    global_user_state.set_allowed_clouds(["slurm"], "default")  # as configured: nothing is checked anew
    global_user_state.set_enabled_clouds(["aws"], CloudCapability.COMPUTE, "default")
    found = opinion([spot, on_demand], nodes=2)
    return found.chosen.offer.market, found.chosen.hours, found.cost_usd


def test_skypilots_optimizer_goes_by_our_hours(sky: Elsewhere) -> None:
    market, hours, alike_usd = sky.call(optimizers_choice, 2.0, 2.0)
    assert (market, hours) == ("spot", 2.0)  # as without our hours: the cheaper hour
    market, hours, usd = sky.call(optimizers_choice, 20.0, 1.0)
    assert (market, hours) == ("on_demand", 1.0)  # the dearer hour, and the cheaper job
    assert usd == pytest.approx(2 * 0.8048, rel=0.2)
    assert sky.call(optimizers_choice, 4.0, 400.0)[2] == pytest.approx(2 * alike_usd)
