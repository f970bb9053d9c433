"""Hazards of an offer's machines: the prior for their size, the cloud's signals, and own runs. Pure."""

from __future__ import annotations

from planner.hazards import SpotGroup, SpotHazards, hazards_of
from planner.price_age import age_text
from planner.question import Question
from planner.spot_signals import Lean
from providers.offers import Offer


def lean_of(question: Question, offer: Offer, nodes: int) -> Lean:
    """What the cloud's signals make of the prior."""
    return question.spot_signals.lean(offer, nodes, question.goal.now)


def hazards_source(question: Question, offer: Offer, nodes: int) -> str:
    """Where the hazards come from, in words: the prior, own runs, and what signals made of them."""
    lean = lean_of(question, offer, nodes)
    said = ", ".join(
        f"{part.said.source} {part.said.value} ({age_text(part.said.as_of_at, question.goal.now)} old)"
        for part in lean.parts
    )
    leant = f"; x {lean.factor:.2f} for {said}" if said else ""
    return place_hazards(question, offer, nodes).source + leant


def place_hazards(question: Question, offer: Offer, nodes: int) -> SpotHazards:
    """Of a machine group on spot; off the spot market nothing is taken away, and nobody asks."""
    group = SpotGroup(offer.cloud, offer.zone or offer.region, offer.gpu, nodes, offer.gpus_per_node)
    return hazards_of(question.calibration.spells, group, lean_of(question, offer, nodes).factor)
