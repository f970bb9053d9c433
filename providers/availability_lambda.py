"""Lambda: the regions in which each machine type can be had now, with an API key. Lambda has no spot market."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from providers.availability import Inquiry, Signal, Signals, Wanted, gathered, get_json
from providers.errors import CredentialsError, StorageError

URL = "https://cloud.lambda.ai/api/v1/instance-types"
_HINT = "export LAMBDA_API_KEY=..., or put `api_key = ...` into ~/.lambda_cloud/lambda_keys"


def capacity(inquiry: Inquiry) -> Signals:
    """Whether the region is among those with capacity.

    Raises:
        CredentialsError: There is no key, or Lambda refuses it.
        StorageError: Lambda does not answer as it should.
    """
    said = get_json(inquiry.url or URL, _key(inquiry), what="Lambda")
    types = said.get("data") if isinstance(said, dict) else None
    if not isinstance(types, dict):
        raise StorageError("Lambda answered something else", code="bad_answer")
    return gathered(_signals(inquiry, types))


def _signals(inquiry: Inquiry, types: dict[str, Any]) -> Iterator[tuple[Wanted, Signal]]:
    for wanted in inquiry.wanted:
        row = types.get(wanted.offer.instance_type or "")
        if isinstance(row, dict):
            regions = {place.get("name") for place in row.get("regions_with_capacity_available") or ()}
            there = wanted.offer.region in regions
            word = "yes" if there else "none"
            text = "can be had now" if there else "not in this region now"
            yield wanted, Signal("capacity", word, "yes or none", text, "Lambda", inquiry.now_text, there)


def _key(inquiry: Inquiry) -> str:
    if inquiry.environ.get("LAMBDA_API_KEY"):
        return inquiry.environ["LAMBDA_API_KEY"]
    try:
        lines = (inquiry.home / ".lambda_cloud/lambda_keys").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == "api_key" and value.strip():
            return value.strip()
    raise CredentialsError("there is no API key of Lambda here", hint=_HINT)
