"""Whether the machine that a run was given is the one that was bought for it. Pure."""

from __future__ import annotations

from planner.reserve.documents import as_offer
from planner.reserve.reservations import ELSEWHERE
from providers.offers import Offer
from providers.reservations import CapacityOffer


def other_machine(bought: CapacityOffer, got: Offer) -> str | None:
    """What is not as it was bought, in a sentence; None if all that is known of both agrees.

    Backends have given machines that nobody asked for (skypilot-org/skypilot#9607), and a paid block then lies idle.
    """
    wanted = as_offer(bought)
    pairs = {
        "cloud": (wanted.cloud, got.cloud),
        "region": (wanted.region, got.region),
        "zone": (wanted.zone, got.zone),
        "machine": (wanted.instance_type, got.instance_type),
        "GPU": (wanted.gpu, got.gpu),
        "GPUs": (wanted.gpus_per_node, got.gpus_per_node),
    }
    known = {name: pair for name, pair in pairs.items() if None not in pair}
    other = [f"{name} {have} instead of {want}" for name, (want, have) in known.items() if want != have]
    return f"{ELSEWHERE}: {', '.join(other)}" if other else None
