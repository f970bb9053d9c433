"""Clouds and regions as people write them, against those that there are prices of: a misspelt one is no empty one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence

from planner.errors import Finding
from planner.price_overrides import PriceOverride
from planner.spec import WhereSection
from providers.offers import Offer, PriceSnapshot

_SHOWN = 20
#: What sellers are called, where that is not what their clouds are called here.
_ALSO_CALLED = {
    "amazon": "aws", "datacrunch": "verda", "digitalocean": "do", "google": "gcp", "microsoft": "azure",
    "oracle": "oci",
}  # fmt: skip


def misnamed(where: WhereSection, snapshot: PriceSnapshot) -> Iterator[Finding]:
    """Names under `where` that neither the prices nor SkyPilot know.

    Nothing of a snapshot of one machine, reserved or this one: it knows no others.
    """
    offers = [offer for offer in snapshot.offers if offer.market != "local"]
    if not offers or not snapshot.coverage:
        return
    clouds = {offer.cloud for offer in offers}
    for name in where.clouds or ():
        if name.lower() not in clouds and name.lower() not in _rented_elsewhere():
            message = f"the prices in use know no cloud {name!r}"
            yield Finding(message, "where.clouds", code="unknown_cloud", hint=likeness(name.lower(), clouds))
    for name in where.regions or ():
        if all(offer.region != name for offer in offers):
            regions = _regions(offers, where.clouds)
            message = f"the prices in use know no region {name!r}"
            yield Finding(message, "where.regions", code="unknown_region", hint=likeness(name, regions))


def idle_overrides(overrides: Sequence[PriceOverride], snapshot: PriceSnapshot) -> Iterator[tuple[int, str]]:
    """Your own prices that no offer has anything to do with: their number, from 0, and what is unknown in them."""
    for number, override in enumerate(overrides):
        if override.credit_usd is None and any(map(override.matches, snapshot.offers)):
            continue
        if override.credit_usd is not None and any(
            offer.cloud == override.cloud for offer in snapshot.offers
        ):
            continue
        yield number, _why_idle(override, snapshot)


def _why_idle(override: PriceOverride, snapshot: PriceSnapshot) -> str:
    for key in ("cloud", "region", "instance_type", "gpu"):
        wanted = getattr(override, key)
        there = {value for offer in snapshot.offers if (value := getattr(offer, key))}
        if wanted is not None and wanted not in there:
            return f"there is no {key} {wanted!r}, {likeness(wanted, there)}"
    return "no offer has all that it names"


def likeness(name: str, there: Collection[str]) -> str:
    """What a name that is not there may have been meant for; else what there is.

    >>> likeness("amazon", ["aws", "gcp"]), likeness("eu", ["eu-west-1", "us-east-1"])
    ('did you mean aws?', 'there are: eu-west-1')
    """
    if _ALSO_CALLED.get(name) in there:
        return f"did you mean {_ALSO_CALLED[name]}?"
    begun = sorted(one for one in there if one.lower().startswith(name.lower()))
    if len(begun) > 1 or (begun and len(name) < 3):
        return f"there are: {', '.join(begun[:_SHOWN])}"
    folded = {one.lower(): one for one in there}
    near = difflib.get_close_matches(name.lower(), sorted(folded), n=2)
    if not near:
        return f"there are: {', '.join(sorted(there)[:_SHOWN])}"
    first, *others = near
    alike = [
        first,
        *(one for one in others if sorted(one) == sorted(name.lower())),
    ]  # letters that changed places
    return f"did you mean {' or '.join(folded[one] for one in reversed(alike))}?"


def _regions(offers: Sequence[Offer], clouds: Sequence[str] | None) -> set[str]:
    """Regions of the clouds that are allowed; of all where none of those is known."""
    wanted = {name.lower() for name in clouds or ()}
    named = {offer.region for offer in offers if offer.region and offer.cloud in wanted}
    return named or {offer.region for offer in offers if offer.region}


def _rented_elsewhere() -> frozenset[str]:
    """Clouds that machines can be had from without a price being known."""
    from providers.skypilot_task import CLOUDS

    return CLOUDS
