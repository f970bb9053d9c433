"""Hazards of an offer's machines: the prior for their size, the cloud's signals, and own runs. Pure."""

from __future__ import annotations

from planner.hazards import SpotGroup, SpotHazards, hazards_of
from planner.question import Question
from planner.spot_signals import Lean
from providers.offers import Offer


def lean_of(question: Question, offer: Offer, nodes: int) -> Lean:
    """What the cloud's signals make of the prior."""
    return question.spot_signals.lean(offer, nodes, question.goal.now)


def place_hazards(question: Question, offer: Offer, nodes: int) -> SpotHazards:
    """Of a machine group on spot; off the spot market nothing is taken away, and nobody asks."""
    group = SpotGroup(offer.cloud, offer.zone or offer.region, offer.gpu, nodes, offer.gpus_per_node)
    return hazards_of(question.calibration.spells, group, lean_of(question, offer, nodes).factor)
