"""What a launch needs besides a right spec: logins, prices that are not old, buckets that answer, secrets that are set.

Nothing here makes a plan wrong, so a dry run shows these findings and goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jobs.manifest import HEAD_KEY
from planner.credentials import CLOUDS, CloudLogin, found_credentials
from planner.errors import Finding
from planner.price_age import SECONDS_PER_DAY, age_text, is_stale
from providers.conditions import check_conditions
from providers.errors import TuneplanError
from providers.offers import Offer
from providers.stores import open_store

#: SkyPilot's server elsewhere: the clouds' logins are there, not here.
_REMOTE_SERVER = "SKYPILOT_API_SERVER_ENDPOINT"
_CODES = frozenset(
    {
        "cloud_login", "stale_price", "secret_missing", "store_unreachable", "no_bucket_rights",
        "session_too_short", "credentials", "bucket_not_found", "unreachable", "not_found", "storage", "missing_extra",
        "quota_too_small", "gated_model", "bucket_region", "needs_internet", "image_missing",
        "project_budget",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a launch is made from.

    Attributes:
        environ: Environment variables.
        home: Where the clouds' own tools keep logins.
        now: UTC.
        max_price_age_s: Nothing is bought at an older price.
        offline: Nobody is asked, and what needs the internet is in the way.
    """

    environ: Mapping[str, str]
    home: Path
    now: datetime
    max_price_age_s: float
    offline: bool = False


def is_about_surroundings(finding: Finding) -> bool:
    """Whether the order itself is right, and only something around it is missing."""
    return finding.code in _CODES


def missing_login(offer: Offer, around: Surroundings) -> Iterator[Finding]:
    """The cloud of the first choice has no login here."""
    cloud = _closed(around).get(offer.cloud)
    if cloud is not None:
        yield Finding(f"there is no login for {cloud.name} here", code="cloud_login", hint=cloud.login)


def clouds_without_login(offers: Iterable[Offer], around: Surroundings) -> dict[str, int]:
    """Clouds of these offers that have no login here, and how many of the offers that are."""
    closed = _closed(around)
    return dict(sorted(Counter(offer.cloud for offer in offers if offer.cloud in closed).items()))


def _closed(around: Surroundings) -> dict[str, CloudLogin]:
    """Clouds that have no login here; a SkyPilot server elsewhere has logins of its own, not seen from here."""
    if around.environ.get(_REMOTE_SERVER):
        return {}
    return {
        cloud.name: cloud for cloud in CLOUDS if not found_credentials(cloud, around.environ, around.home)
    }


def rents_controller(around: Surroundings) -> bool:
    """Whether SkyPilot rents a machine for its jobs controller, as it does unless its settings say otherwise.

    A server elsewhere has settings of its own.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if around.environ.get(_REMOTE_SERVER):
        return False
    path = Path(around.environ.get("SKYPILOT_GLOBAL_CONFIG") or around.home / ".sky/config.yaml")
    try:
        settings = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        return settings["jobs"]["controller"]["consolidation_mode"] is not True
    except (OSError, UnicodeDecodeError, YAMLError, KeyError, TypeError):
        return True


def stale_price(offer: Offer, around: Surroundings) -> Iterator[Finding]:
    """A price that is too old to spend money on, or undated."""
    if not is_stale(offer.as_of_at, around.now, around.max_price_age_s):
        return
    old = (
        "has no date" if offer.as_of_at is None else f"is {age_text(offer.as_of_at, around.now, 'days')} old"
    )
    limit = f"{around.max_price_age_s / SECONDS_PER_DAY:g} days"
    hint = "`plan prices update` or `plan prices import DIR` brings new ones; prices.max_age in config.yaml"
    yield Finding(
        f"the price of {offer.cloud} {old}, more than the {limit} allowed", code="stale_price", hint=hint
    )


def unset_secrets(
    names: Iterable[str], environ: Mapping[str, str], path: str = "environment.secrets"
) -> Iterator[Finding]:
    """Secrets that the spec names under a key and nobody set."""
    for name in names:
        if not environ.get(name):
            message = f"the environment variable {name} is not set"
            yield Finding(message, path=path, code="secret_missing", hint=f"export {name}=...")


def unreachable_store(uri: str, path: str = "checkpoints.uri", *, write: bool = False) -> Iterator[Finding]:
    """Ask the object store once: a wrong bucket or login shall not be found by a machine that is paid for.

    Args:
        uri: The run's own prefix.
        path: Key of the spec that names it.
        write: Also write an object as the worker will, and see that the store heeds the conditions of such writes.
    """
    try:
        store = open_store(uri)
        store.get(HEAD_KEY)
        if write:
            check_conditions(store)
    except TuneplanError as error:
        yield Finding(error.message, path=path, code=error.code, hint=error.hint)
