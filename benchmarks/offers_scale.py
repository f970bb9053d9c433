"""How the estimate's cost grows with the number of offers, and with how many of them differ in shape.

    python benchmarks/offers_scale.py --out benchmarks/results/offers-scale.json

Offers are made up from the GPUs that are known: every GPU in machines of 1 to 16 and with several memory sizes, in as
many regions as are needed. CPU seconds, best of `--rounds`, because other programs disturb the clock.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from planner.estimate import build_estimate
from planner.hardware import gpu_facts
from planner.intake import gather
from planner.question import Question
from planner.spec import FineTuneSpec
from providers.gpus import CANONICAL_GPUS
from providers.offers import Coverage, Offer, PriceSnapshot

NOW = datetime(2026, 11, 25, tzinfo=UTC)
SPEC = {
    "name": "scale",
    "model": "meta-llama/Llama-3.1-8B",
    "method": {"kind": "lora", "rank": 16},
    "data": {"samples": 20_000, "tokens_per_sample": 700},
    # 5,040 is divided by every number of GPUs here, so that no shape is refused for that.
    "train": {"sequence_length": 4096, "packing": True, "global_batch": 5040},
}
COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15, 16)
MEMORY_SHARES = (1.0, 0.95)
SIZES = (10_000, 30_000, 100_000)


def offers(number: int, seed: int) -> tuple[Offer, ...]:
    """That many offers, all shapes in turn."""
    names = sorted(name for name in CANONICAL_GPUS if gpu_facts(name) is not None)
    shapes = [(name, count, share) for share in MEMORY_SHARES for count in COUNTS for name in names]
    draw = random.Random(seed)
    draw.shuffle(shapes)
    return tuple(_offer(*shapes[index % len(shapes)], index, draw) for index in range(number))


def _offer(gpu: str, count: int, share: float, index: int, draw: random.Random) -> Offer:
    return Offer(
        cloud=f"cloud{index % 15}",
        region=f"region-{index // 15}",
        zone=None,
        instance_type=f"{gpu}x{count}",
        gpu=gpu,
        gpus_per_node=count,
        gpu_mem_gib=round(CANONICAL_GPUS[gpu] * share, 2),
        vcpus=16.0 * count,
        ram_gib=128.0 * count,
        market="spot" if index % 2 else "on_demand",
        price_usd_per_hour=round(count * draw.uniform(0.2, 8.0), 4),
        source="made up",
        as_of_at="2026-11-24T00:00:00Z",
    )


def measure(question: Question, number: int, rounds: int) -> dict[str, Any]:
    """CPU seconds of one estimate over that many offers."""
    made = offers(number, seed=number)
    snapshot = PriceSnapshot("sha256:made-up", made, (Coverage("cloud0", number, True, None),))
    spent, answer = [], None
    for _ in range(rounds):
        start = time.process_time()
        answer = build_estimate(question, snapshot)
        spent.append(time.process_time() - start)
    assert answer is not None
    return {
        "offers": number,
        "shapes": len({(offer.gpu, offer.gpus_per_node, offer.gpu_mem_gib) for offer in made})
        * len(question.nodes),
        "ways": len(
            {_way(candidate) for candidate in build_estimate(question, snapshot, limit=None).candidates}
        ),
        "candidates": answer.candidates_total,
        "cpu_s": round(min(spent), 3),
    }


def _way(candidate: Any) -> tuple[object, ...]:
    """GPU, count, parallelism and micro-batch."""
    offer = candidate.offer
    sizes = (candidate.nodes, offer.gpus_per_node, candidate.micro_batch, candidate.grad_accum)
    return (offer.gpu, offer.gpu_mem_gib, *sizes, str(candidate.parallelism))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    question = gather(FineTuneSpec.model_validate(SPEC), Path(), NOW)
    rows = []
    for number in SIZES:
        rows.append(measure(question, number, asked.rounds))
        print(json.dumps(rows[-1]))
    first, last = rows[0], rows[-1]
    growth = (last["cpu_s"] / first["cpu_s"]) / (last["offers"] / first["offers"])
    answer = {
        "command": "python benchmarks/offers_scale.py",
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rows": rows,
        "cost_growth_over_offer_growth": round(growth, 3),
    }
    if asked.out is not None:
        asked.out.write_text(json.dumps(answer, indent=1) + "\n")
    print(f"cost grows {growth:.2f} times as fast as the number of offers")


if __name__ == "__main__":
    main()
