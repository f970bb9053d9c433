"""What a rented machine must be permitted, asked before it is paid for: quotas, the model, the bucket's place.

Asked with the person's own logins and only where they are there; what cannot be asked stands against nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from planner.credentials import CLOUDS, found_credentials
from planner.errors import Finding
from planner.surroundings import Surroundings
from providers.availability import Inquiry, Wanted
from providers.availability_sources import QUOTAS, ask_all
from providers.container_image import why_not_pulled
from providers.errors import CredentialsError, StorageError, TuneplanError, UsageError
from providers.hub import HubAccess, HubRepository, license_of
from providers.offers import Offer
from providers.s3_location import s3_location
from providers.s3_region import bucket_region

_TOKEN = "HF_TOKEN"  # noqa: S105 (a variable's name)
#: In the names of licences that keep a model from paid use; others may too: only their text counts.
_NOT_COMMERCIAL = re.compile(r"(^|[-_])nc($|[-_])|non-?commercial|research", re.IGNORECASE)


def too_small_quotas(
    offers: Iterable[Offer], nodes: int, around: Surroundings, urls: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Every machine that would be asked for is beyond a quota; one that is not is enough to go on.

    Args:
        offers: The machines of a launch.
        nodes: How many at a time.
        around: Whose logins are used.
        urls: Other addresses by a source's name.
    """
    wanted = tuple(Wanted(offer, nodes) for offer in offers)
    logins = {cloud.name for cloud in CLOUDS if found_credentials(cloud, around.environ, around.home)}
    if not wanted or any(row.offer.cloud not in logins for row in wanted):
        return
    inquiry = Inquiry(wanted, around.environ, around.home, around.now)
    quotas = {
        row: signal
        for answer in ask_all(inquiry, urls or {}, QUOTAS)
        for row, signals in answer.signals.items()
        for signal in signals
        if signal.kind == "quota" and signal.enough is False
    }
    if set(wanted) <= set(quotas):
        first = wanted[0]
        place = f"{first.offer.cloud}/{first.offer.region}"
        others = f", and so it is with {len(wanted) - 1} others" if len(wanted) > 1 else ""
        message = f"the quota in {place} is too small: {quotas[first].text}{others}"
        hint = f"ask {first.offer.cloud} for more, or widen `where` in the spec"
        yield Finding(message, path="where", code="quota_too_small", hint=hint)


def closed_model(
    model_id: str, revision: str | None, secrets: Iterable[str], environ: Mapping[str, str], access: HubAccess
) -> Iterator[Finding]:
    """A model of the Hub that the machine could not load: gated, private, or gone.

    Args:
        model_id: Of the Hub.
        revision: Commit, tag or branch.
        secrets: Variables that the machine gets.
        environ: Environment variables here.
        access: Where the Hub is; an offline one is not asked.
    """
    if access.offline:
        return
    token = environ.get(_TOKEN) if _TOKEN in secrets else None
    try:
        info = HubRepository(access, model_id, revision or "main").info()
        if info.get("gated") or info.get("private"):
            if token is None:
                message = f"{model_id} is gated or private, and the machine gets no token"
                hint = f"name {_TOKEN} under environment.secrets, and export the token of an account that may load it"
                yield Finding(message, path="environment.secrets", code="gated_model", hint=hint)
                return
            commit = str(info.get("sha"))
            HubRepository(replace(access, token=token), model_id, commit).config(commit)
    except CredentialsError as error:
        yield Finding(error.message, path="model.id", code=error.code, hint=error.hint)
    except StorageError:  # we cannot ask; the machine may
        return
    except TuneplanError as error:
        yield Finding(error.message, path=error.path or "model.id", code=error.code, hint=error.hint)


def licence_of_model(model_id: str, revision: str | None, access: HubAccess) -> str:
    """What the Hub says of a model's licence, for a person to read before paying; it stands against nothing.

    Args:
        model_id: Of the Hub.
        revision: Commit, tag or branch.
        access: Where the Hub is; an offline one is not asked.
    """
    page = f"{access.endpoint}/{model_id}"
    if access.offline:
        return f"unknown, the Hub is not asked offline: {page}"
    try:
        name = license_of(HubRepository(access, model_id, revision or "main").info())
    except TuneplanError as error:
        return f"unknown, {error.message}"
    if name is None:
        return f"unknown, its page does not say: {page}"
    warning = ", which by its name does not allow commercial use" if _NOT_COMMERCIAL.search(name) else ""
    return f"{name}{warning}: {page}"


def unavailable_image(image: str | None) -> Iterator[Finding]:
    """A container image that the machine, which has no login, could not pull."""
    if image is None:
        return
    try:
        why = why_not_pulled(image)
    except UsageError as error:
        why, hint = error.message, error.hint
    except TuneplanError:  # we cannot ask; the machine may
        return
    else:
        hint = "machines get no login to a registry: name an image that anybody may pull"
    if why is not None:
        yield Finding(why, path="environment.image", code="image_missing", hint=hint)


def misplaced_bucket(uri: str, path: str) -> Iterator[Finding]:
    """A bucket that is in another region than its URI says: machines and keys would be chosen for the wrong one."""
    stated = s3_location(uri).region if uri.startswith("s3://") else None  # the others' are not asked
    if stated is None:
        return
    try:
        real = bucket_region(uri)
    except TuneplanError:  # whether it can be reached is told elsewhere
        return
    if real is not None and real != stated:
        message = f"the bucket {s3_location(uri).bucket} is in {real}, not in {stated} as its URI says"
        yield Finding(message, path=path, code="bucket_region", hint=f"write ?region={real}")
