"""Vast.ai: how many machines like the wanted one can be rented now, from its public search; needs no credentials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from providers.availability import Inquiry, Signal, Signals, Wanted, gathered, get_json
from providers.errors import StorageError
from providers.gpus import canonical_gpu
from providers.vast_bundles import URL

_MOST_OFFERS = 5000


def capacity(inquiry: Inquiry) -> Signals:
    """Machines with these GPUs in this place that nobody has rented.

    Raises:
        StorageError: Vast does not answer as it should.
    """
    rentable = {"rentable": {"eq": True}, "rented": {"eq": False}, "limit": _MOST_OFFERS}
    found: dict[str, list[dict[str, Any]]] = {}
    for market in sorted({row.offer.market for row in inquiry.wanted}):
        kind = "bid" if market == "spot" else "on-demand"
        said = get_json(inquiry.url or URL, "", body={**rentable, "type": kind}, what="Vast.ai")
        offers = said.get("offers") if isinstance(said, dict) else None
        if not isinstance(offers, list):
            raise StorageError("Vast.ai answered something else", code="bad_answer")
        found[market] = [row for row in offers if isinstance(row, dict)]
    return gathered(_signals(inquiry, found))


def _signals(inquiry: Inquiry, found: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[Wanted, Signal]]:
    for wanted in inquiry.wanted:
        machines = [row for row in found[wanted.offer.market] if _is_like(row, wanted)]
        number = len(machines)
        text = f"{number} machine{'' if number == 1 else 's'} can be rented now"
        yield (
            wanted,
            Signal(
                "capacity",
                number,
                "machines",
                text,
                "Vast.ai search",
                inquiry.now_text,
                None if number >= wanted.nodes else False,
            ),
        )


def _is_like(row: dict[str, Any], wanted: Wanted) -> bool:
    offer = wanted.offer
    memory = row.get("gpu_ram")
    memory_gib = memory / 1024 if isinstance(memory, int | float) else None
    place = str(row.get("geolocation") or "unknown").strip(" ,") or "unknown"
    return (
        row.get("num_gpus") == offer.gpus_per_node
        and canonical_gpu(str(row.get("gpu_name", "")), memory_gib) == offer.gpu
        and place == offer.region
    )
