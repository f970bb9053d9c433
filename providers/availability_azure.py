"""Azure: the spot placement score of each size in each zone, which also says whether the quota is enough, and how often
a size is evicted in a region.

POST .../placementScores/spot/generate, at most 8 regions and 5 sizes in a request; it needs the role "Compute
Recommendations Role". https://learn.microsoft.com/azure/virtual-machine-scale-sets/spot-placement-score
Eviction rates come from Azure Resource Graph, table SpotResources, as bands ("5-10") that Azure calls per cent an hour:
https://learn.microsoft.com/azure/virtual-machines/spot-vms
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from providers.availability import Inquiry, Signal, Signals, Wanted, gathered, get_json, printed_by
from providers.errors import CredentialsError, StorageError
from providers.web import WebRequest, ask

_API = "https://management.azure.com"
_LOGIN_SERVER = "https://login.microsoftonline.com"
_VERSION = "2025-06-05"
_MOST_REGIONS, _MOST_SIZES = 8, 5
_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
_HINT = "az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_SUBSCRIPTION_ID"
_SOURCE = "Azure spot placement score"
_EVICTIONS, _EVICTION_UNIT = "Azure eviction rates", "% evicted within an hour, a band"
_GRAPH_VERSION = "2022-10-01"
#: Sizes and regions have names of these characters: nothing else may get into a query.
_NAME = re.compile(r"[A-Za-z0-9_-]+")
#: Answers that are no score.
_NO_SCORE = {
    "RestrictedSkuNotAvailable": "this subscription may not rent this size here",
    "DataNotFoundOrStale": None,
}


def placement_scores(inquiry: Inquiry) -> Signals:
    """High, Medium or Low for so many spot machines of a size in each zone, and whether the quota is enough.

    Raises:
        CredentialsError: There is no login, or not the right.
        StorageError: Azure does not answer as it should.
    """
    spot = _spot_of_a_size(inquiry)
    if not spot:
        return {}
    subscription, token = _login(inquiry)
    rows: list[dict[str, Any]] = []
    for nodes in sorted({row.nodes for row in spot}):
        sizes = sorted({row.offer.instance_type or "" for row in spot if row.nodes == nodes})
        regions = sorted({row.offer.region for row in spot if row.nodes == nodes})
        for some in _parts(regions, _MOST_REGIONS):
            for few in _parts(sizes, _MOST_SIZES):
                body = {
                    "desiredLocations": some,
                    "desiredSizes": [{"sku": size} for size in few],
                    "desiredCount": nodes,
                    "availabilityZones": any(row.offer.zone for row in spot),
                }
                rows += [{**row, "nodes": nodes} for row in _ask(inquiry, subscription, token, body)]
    return gathered(_signals(inquiry, spot, rows))


def _spot_of_a_size(inquiry: Inquiry) -> list[Wanted]:
    return [row for row in inquiry.wanted if row.offer.market == "spot" and row.offer.instance_type]


def _ask(inquiry: Inquiry, subscription: str, token: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    place = f"subscriptions/{quote(subscription)}/providers/Microsoft.Compute/locations/{body['desiredLocations'][0]}"
    url = f"{inquiry.url or _API}/{place}/placementScores/spot/generate?api-version={_VERSION}"
    rows = get_json(url, token, body=body, what="Azure's spot placement score").get("placementScores")
    if not isinstance(rows, list):
        raise StorageError(f"{_SOURCE} answered something else", code="bad_answer")
    return [row for row in rows if isinstance(row, dict)]


def _signals(
    inquiry: Inquiry, spot: list[Wanted], rows: list[dict[str, Any]]
) -> Iterator[tuple[Wanted, Signal]]:
    for wanted in spot:
        for row in rows:
            if _is_about(row, wanted):
                yield from ((wanted, signal) for signal in _read(row, inquiry.now_text))


def _is_about(row: dict[str, Any], wanted: Wanted) -> bool:
    offer = wanted.offer
    zone = str(row.get("availabilityZone") or "")
    mine = (offer.zone or "").rpartition("-")[2]  # a catalog writes eastus-1, Azure 1
    return (
        row["nodes"] == wanted.nodes
        and str(row.get("sku", "")).lower() == (offer.instance_type or "").lower()
        and str(row.get("region", "")).lower() == offer.region.lower()
        and (not mine or not zone or zone == mine)
    )


def _read(row: dict[str, Any], at: str) -> Iterator[Signal]:
    score = str(row.get("score") or "")
    zone = f" in zone {row['availabilityZone']}" if row.get("availabilityZone") else ""
    if score in _NO_SCORE:
        why = _NO_SCORE[score]
        if why is not None:
            yield Signal("capacity", "none", "", f"{why}{zone}", _SOURCE, at, False)
    elif score:
        yield Signal("placement_score", score, "High, Medium or Low", f"{score}{zone}", _SOURCE, at)
    if isinstance(row.get("isQuotaAvailable"), bool):
        enough = row["isQuotaAvailable"]
        text = f"the quota is {'enough' if enough else 'too small'}{zone}"
        yield Signal("quota", "enough" if enough else "too small", "", text, _SOURCE, at, enough)


def eviction_bands(inquiry: Inquiry) -> Signals:
    """How often Azure takes back a size in a region; it tells no history and no zone.

    Raises:
        CredentialsError: There is no login, or not the right.
        StorageError: Azure does not answer as it should.
    """
    spot = _spot_of_a_size(inquiry)
    if not spot:
        return {}
    _, token = _login(inquiry)
    sizes = sorted({row.offer.instance_type or "" for row in spot})
    regions = sorted({row.offer.region for row in spot})
    names = [
        "(" + ", ".join(f"'{name}'" for name in some if _NAME.fullmatch(name)) + ")"
        for some in (sizes, regions)
    ]
    query = (
        "SpotResources | where type =~ 'microsoft.compute/skuspotevictionrate/location'"
        f" | where sku.name in~ {names[0]} | where location in~ {names[1]}"
        " | project size = tostring(sku.name), location, rate = tostring(properties.evictionRate)"
    )
    url = f"{inquiry.url or _API}/providers/Microsoft.ResourceGraph/resources?api-version={_GRAPH_VERSION}"
    rows = get_json(url, token, body={"query": query}, what=_EVICTIONS).get("data")
    if not isinstance(rows, list):
        raise StorageError(f"{_EVICTIONS}: Azure answered something else", code="bad_answer")
    bands = {(str(row["size"]).lower(), str(row["location"]).lower()): str(row["rate"]) for row in rows}
    return gathered(_eviction_signals(inquiry, spot, bands))


def _eviction_signals(
    inquiry: Inquiry, spot: list[Wanted], bands: dict[tuple[str, str], str]
) -> Iterator[tuple[Wanted, Signal]]:
    for wanted in spot:
        band = bands.get(((wanted.offer.instance_type or "").lower(), wanted.offer.region.lower()))
        if band:
            text = f"{band} % evicted within an hour, says Azure of the region"
            yield wanted, Signal("eviction_band", band, _EVICTION_UNIT, text, _EVICTIONS, inquiry.now_text)


def _login(inquiry: Inquiry) -> tuple[str, str]:
    """Subscription and access token."""
    environ = inquiry.environ
    subscription = environ.get("AZURE_SUBSCRIPTION_ID")
    if all(environ.get(name) for name in _PRINCIPAL):
        if not subscription:
            raise CredentialsError("no Azure subscription is named", hint="export AZURE_SUBSCRIPTION_ID=...")
        return subscription, _principal_token(inquiry)
    command = ("az", "account", "get-access-token", "--resource", _API, "--output", "json")
    try:
        said = json.loads(printed_by(command, environ, what="Azure", hint=_HINT))
        return subscription or str(said["subscription"]), str(said["accessToken"])
    except (ValueError, KeyError, TypeError):
        raise CredentialsError("`az account get-access-token` names no token", hint=_HINT) from None


def _principal_token(inquiry: Inquiry) -> str:
    tenant, client, secret = (inquiry.environ[name] for name in _PRINCIPAL)
    url = f"{inquiry.url or _LOGIN_SERVER}/{quote(tenant)}/oauth2/v2.0/token"
    form = {
        "grant_type": "client_credentials",
        "client_id": client,
        "client_secret": secret,
        "scope": f"{_API}/.default",
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = ask(WebRequest(url, headers=headers, body=urlencode(form).encode()))
    if answer.status != 200:
        raise CredentialsError(f"Azure refuses the login (HTTP {answer.status})", hint=_HINT)
    return str(answer.json(url).get("access_token", ""))


def _parts(items: list[str], most: int) -> Iterator[list[str]]:
    return (items[start : start + most] for start in range(0, len(items), most))
