"""RunPod: its word for the stock of each GPU in each data centre (GraphQL `stockStatus`), with an API key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from providers.availability import Inquiry, Signal, Signals, Wanted, gathered, get_json
from providers.errors import CredentialsError, StorageError
from providers.gpus import canonical_gpu

URL = "https://api.runpod.io/graphql"
_HINT = "export RUNPOD_API_KEY=..., or `runpod config`"
_PLACE = re.compile(r"[A-Za-z0-9-]{1,32}")


def stock(inquiry: Inquiry) -> Signals:
    """High, Medium, Low or none for so many GPUs in one machine, with the lowest bid for it.

    Raises:
        CredentialsError: There is no key, or RunPod refuses it.
        StorageError: RunPod does not answer as it should.
    """
    key = _key(inquiry)
    asked = {
        (row.offer.gpus_per_node, row.offer.zone)
        for row in inquiry.wanted
        if row.offer.zone is None or _PLACE.fullmatch(row.offer.zone)
    }
    names = {place: f"p{number}" for number, place in enumerate(sorted(asked, key=str))}
    prices = " ".join(f"{name}: {_price(*place)}" for place, name in names.items())
    query = {"query": f"query {{ gpuTypes {{ id displayName memoryInGb {prices} }} }}"}
    said = get_json(inquiry.url or URL, key, body=query, what="RunPod")
    types = (said.get("data") or {}).get("gpuTypes") if isinstance(said, dict) else None
    if not isinstance(types, list):
        raise StorageError("RunPod answered something else", code="bad_answer")
    by_gpu = {canonical_gpu(str(row.get("displayName")), row.get("memoryInGb")): row for row in types}
    return gathered(_signals(inquiry, by_gpu, names))


def _price(gpus: int, data_centre: str | None) -> str:
    place = "" if data_centre is None else f', dataCenterId: "{data_centre}"'
    return (
        f"lowestPrice(input: {{gpuCount: {int(gpus)}{place}}}) "
        "{ stockStatus minimumBidPrice uninterruptablePrice }"
    )


def _signals(
    inquiry: Inquiry, by_gpu: dict[str | None, dict[str, Any]], names: dict[tuple[int, str | None], str]
) -> Iterator[tuple[Wanted, Signal]]:
    for wanted in inquiry.wanted:
        offer = wanted.offer
        row, name = by_gpu.get(offer.gpu), names.get((offer.gpus_per_node, offer.zone))
        if row is None or name is None:
            continue
        price = row.get(name) or {}
        word = price.get("stockStatus")
        text = "none of it now" if word is None else f"{word}"
        enough = False if word is None else None
        yield (
            wanted,
            Signal(
                "stock",
                str(word or "None"),
                "High, Medium, Low or None",
                text,
                "RunPod",
                inquiry.now_text,
                enough,
            ),
        )
        bid = price.get("minimumBidPrice")
        if offer.market == "spot" and isinstance(bid, int | float) and bid > 0:
            usd = float(bid) * offer.gpus_per_node
            text = f"${usd:g} an hour is the least that is taken for a machine"
            yield wanted, Signal("spot_price", usd, "USD/h", text, "RunPod", inquiry.now_text)


def _key(inquiry: Inquiry) -> str:
    if inquiry.environ.get("RUNPOD_API_KEY"):
        return inquiry.environ["RUNPOD_API_KEY"]
    import tomllib

    try:
        settings = tomllib.loads((inquiry.home / ".runpod/config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = {}
    key = settings.get("apikey") or settings.get("api_key") or (settings.get("default") or {}).get("api_key")
    if not key:
        raise CredentialsError("there is no API key of RunPod here", hint=_HINT)
    return str(key)
