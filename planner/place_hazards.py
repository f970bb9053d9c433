"""Hazards of an offer's machines: the prior for their size, the cloud's signals, and own runs. Pure."""

from __future__ import annotations

from planner.hazards import SpotGroup, SpotHazards, hazards_of, over_prior
from planner.question import Question
from planner.spot_signals import Lean
from providers.offers import Offer


def lean_of(question: Question, offer: Offer, nodes: int) -> Lean:
    """What the cloud's signals make of the prior."""
    return question.spot_signals.lean(offer, nodes, question.goal.now)


def hazards_source(question: Question, offer: Offer, nodes: int) -> str:
    """Where the hazards come from, in words: the prior, own runs, and what signals made of them."""
    lean = lean_of(question, offer, nodes)
    said = ", ".join(_said(lean))
    leant = f"; x {lean.factor:.2f} for {said}" if said else ""
    return place_hazards(question, offer, nodes).source + leant


def expected_losses(question: Question, offer: Offer, nodes: int) -> tuple[float, str]:
    """How many times as often as the prior says machines are lost there, by all that is known, and what says so.

    It is for the deadline policy, whose models have the record's own rates. That running machines are kept longer
    (`RUNNING_SHARE`) is not passed on to it: it watches its machine, and learns that by itself. In replays, expecting
    half of the losses gains nothing where half of them spare the machine, and costs a little where none does
    (`benchmarks/spot_losses.py`).
    """
    gpus, hazards = offer.gpus_per_node, place_hazards(question, offer, nodes)
    group = f"{nodes} machines of " if nodes > 1 else ""
    size = f"{group}{gpus} GPU{'' if gpus == 1 else 's'}"
    own = [hazards.own_text] if hazards.own_hours else []
    return over_prior(hazards), ", ".join([size, *_said(lean_of(question, offer, nodes)), *own])


def _said(lean: Lean) -> list[str]:
    """The signals; by their dates, as what is told here is kept with plans and runs."""
    return [f"{part.said.source} {part.said.value} ({part.said.as_of_at[:10]})" for part in lean.parts]


def place_hazards(question: Question, offer: Offer, nodes: int) -> SpotHazards:
    """Of a machine group on spot; off the spot market nothing is taken away, and nobody asks."""
    group = SpotGroup(offer.cloud, offer.zone or offer.region, offer.gpu, nodes, offer.gpus_per_node)
    return hazards_of(question.calibration.spells, group, lean_of(question, offer, nodes).factor)
