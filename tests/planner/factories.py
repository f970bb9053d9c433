"""Small specs, offers and questions for tests of the estimate."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from planner.intake import Overrides, gather
from planner.question import Question
from planner.spec import FineTuneSpec
from providers.offers import Coverage, Offer, PriceSnapshot

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def spec_of(**sections: Any) -> FineTuneSpec:
    """A Llama-3.1-8B LoRA spec with the given sections replaced or merged."""
    document: dict[str, Any] = {
        "name": "job",
        "model": "meta-llama/Llama-3.1-8B",
        "method": {"kind": "lora", "rank": 16},
        "data": {"samples": 10_000, "tokens_per_sample": 500},
        "train": {"sequence_length": 2048, "packing": True, "global_batch": 16},
    }
    for key, value in sections.items():
        old = document.get(key)
        document[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return FineTuneSpec.model_validate(document)


def offer_of(gpu: str = "A100-80GB", count: int = 1, price: float | None = 2.0, **fields: Any) -> Offer:
    """An on-demand offer."""
    values: dict[str, Any] = {
        "cloud": "aws",
        "region": "us-east-1",
        "zone": "use1-az1",
        "instance_type": f"{gpu}x{count}",
        "gpu_mem_gib": None,
        "vcpus": 32.0,
        "ram_gib": 4096.0,
        "market": "on_demand",
        "source": "test",
        "as_of_at": "2026-11-01T00:00:00Z",
        **fields,
    }
    return Offer(gpu=gpu, gpus_per_node=count, price_usd_per_hour=price, **values)


def snapshot_of(*offers: Offer, complete: bool = True) -> PriceSnapshot:
    """A snapshot of these offers."""
    clouds = sorted({offer.cloud for offer in offers})
    coverage = tuple(Coverage(cloud, 1, complete, "2026-11-01T00:00:00Z") for cloud in clouds)
    return PriceSnapshot("sha256:" + "0" * 64, offers, coverage)


def question_of(overrides: Overrides | None = None, **sections: Any) -> Question:
    """The question of such a spec."""
    return gather(spec_of(**sections), Path(), NOW, overrides)
