"""Google Cloud: the capacity adviser's obtainability and expected uptime of spot machines, and regional GPU quotas.

https://cloud.google.com/compute/docs/instances/view-vm-availability and regions.get of the Compute Engine API.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from providers.availability import Inquiry, Signal, Signals, Wanted, gathered, get_json, printed_by
from providers.errors import CredentialsError, StorageError
from providers.web import WebRequest, ask

_API = "https://compute.googleapis.com/compute"
_TOKENS = "https://oauth2.googleapis.com/token"
_LOGIN = "gcloud auth application-default login"
_ADC = ".config/gcloud/application_default_credentials.json"
#: Quota metric of each GPU (compute.googleapis.com, regions.get).
_METRICS = {
    "T4": "NVIDIA_T4_GPUS", "L4": "NVIDIA_L4_GPUS", "V100": "NVIDIA_V100_GPUS", "P100": "NVIDIA_P100_GPUS",
    "P4": "NVIDIA_P4_GPUS", "A100": "NVIDIA_A100_GPUS", "A100-80GB": "NVIDIA_A100_80GB_GPUS",
    "H100": "NVIDIA_H100_GPUS", "H100-MEGA": "NVIDIA_H100_MEGA_GPUS", "H200": "NVIDIA_H200_GPUS",
}  # fmt: skip


def advice(inquiry: Inquiry) -> Signals:
    """Obtainability, 0 to 1, and expected uptime of spot machines, zone by zone.

    Raises:
        CredentialsError: There is no login, no project, or no right (compute.advice.capacity).
        StorageError: Google Cloud does not answer as it should.
    """
    project, token = _login(inquiry)
    spot = [row for row in inquiry.wanted if row.offer.market == "spot" and row.offer.instance_type]
    return gathered(pair for wanted in spot for pair in _advised(inquiry, project, token, wanted))


def _advised(inquiry: Inquiry, project: str, token: str, wanted: Wanted) -> Iterator[tuple[Wanted, Signal]]:
    offer = wanted.offer
    zones = {} if offer.zone is None else {"zones": [{"zone": f"zones/{offer.zone}"}]}
    body = {
        "distributionPolicy": {"targetShape": "ANY_SINGLE_ZONE", **zones},
        "instanceFlexibilityPolicy": {
            "instanceSelections": {"wanted": {"machineTypes": [offer.instance_type]}}
        },
        "instanceProperties": {"scheduling": {"provisioningModel": "SPOT"}},
        "size": wanted.nodes,
    }
    place = f"projects/{quote(project)}/regions/{quote(offer.region)}"
    url = f"{inquiry.url or _API}/beta/{place}/advice/capacity"
    said = get_json(url, token, body=body, what="Google Cloud's capacity adviser")
    scores = _first(said, "recommendations").get("scores") or {}
    chance, uptime = scores.get("obtainability"), scores.get("estimatedUptime")
    source = "Google Cloud capacity adviser"
    if isinstance(chance, int | float):
        text = f"{chance:g} on a scale of 0 to 1"
        yield wanted, Signal("obtainability", float(chance), "0 to 1", text, source, inquiry.now_text)
    if (seconds := re.fullmatch(r"(\d+)s", str(uptime))) is not None:
        text = f"{int(seconds[1]) / 60:g} min or more"
        yield wanted, Signal("uptime", float(seconds[1]), "s", text, source, inquiry.now_text)


def _first(answer: Any, key: str) -> dict[str, Any]:
    rows = answer.get(key, []) if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise StorageError("Google Cloud's capacity adviser answered something else", code="bad_answer")
    return rows[0] if rows and isinstance(rows[0], dict) else {}


def quotas(inquiry: Inquiry) -> Signals:
    """GPUs that the project may have in a region, less those in use.

    Raises:
        CredentialsError: There is no login, no project, or no right.
        StorageError: Google Cloud does not answer as it should.
    """
    project, token = _login(inquiry)
    found: dict[str, dict[str, float]] = {}
    for region in inquiry.regions():
        url = f"{inquiry.url or _API}/v1/projects/{quote(project)}/regions/{quote(region)}?fields=quotas"
        rows = get_json(url, token, what="Google Cloud").get("quotas") or []
        found[region] = {
            row["metric"]: float(row["limit"]) - float(row["usage"]) for row in rows if "metric" in row
        }
    return gathered(_quota_signals(inquiry, found))


def _quota_signals(inquiry: Inquiry, found: dict[str, dict[str, float]]) -> Iterator[tuple[Wanted, Signal]]:
    for wanted in inquiry.wanted:
        offer = wanted.offer
        metric = _METRICS.get(offer.gpu)
        free = found[offer.region].get(f"PREEMPTIBLE_{metric}" if offer.market == "spot" else str(metric))
        if free is not None:
            need = offer.gpus_per_node * wanted.nodes
            text = f"{free:g} GPUs free of the region's quota, this needs {need}"
            yield (
                wanted,
                Signal("quota", free, "GPUs", text, "Google Cloud quotas", inquiry.now_text, need <= free),
            )


def _login(inquiry: Inquiry) -> tuple[str, str]:
    """Project and access token."""
    document = _default_credentials(inquiry)
    environ = inquiry.environ
    project = (
        environ.get("GOOGLE_CLOUD_PROJECT")
        or environ.get("CLOUDSDK_CORE_PROJECT")
        or document.get("quota_project_id")
        or document.get("project_id")
    )
    if not project:
        hint = "export GOOGLE_CLOUD_PROJECT=..."
        raise CredentialsError("no Google Cloud project is named", hint=hint)
    return str(project), _token(inquiry, document)


def _token(inquiry: Inquiry, document: dict[str, Any]) -> str:
    given = inquiry.environ.get("CLOUDSDK_AUTH_ACCESS_TOKEN")
    if given:
        return given
    if document.get("type") == "authorized_user":
        return _refreshed(inquiry, document)
    command = ("gcloud", "auth", "application-default", "print-access-token")
    return printed_by(command, inquiry.environ, what="Google Cloud", hint=_LOGIN)


def _refreshed(inquiry: Inquiry, document: dict[str, Any]) -> str:
    form = {
        "grant_type": "refresh_token",
        **{key: document.get(key, "") for key in ("client_id", "client_secret", "refresh_token")},
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    url = f"{inquiry.url}/token" if inquiry.url else _TOKENS
    answer = ask(WebRequest(url, headers=headers, body=urlencode(form).encode()))
    if answer.status != 200:
        raise CredentialsError(f"Google Cloud refuses the login (HTTP {answer.status})", hint=_LOGIN)
    return str(answer.json(url).get("access_token", ""))


def _default_credentials(inquiry: Inquiry) -> dict[str, Any]:
    named = inquiry.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    path = Path(named) if named else inquiry.home / _ADC
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        if inquiry.environ.get("CLOUDSDK_AUTH_ACCESS_TOKEN"):
            return {}
        raise CredentialsError("there is no login for Google Cloud here", hint=_LOGIN) from None
    except ValueError:
        raise CredentialsError(f"{os.fspath(path)} is not JSON", hint=_LOGIN) from None
    return document if isinstance(document, dict) else {}
