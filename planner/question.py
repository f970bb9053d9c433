"""Everything an estimate depends on, resolved and free of YAML, files and clocks."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from planner.architecture import ModelArchitecture, ParameterCounts, Publication
from planner.calibration import NOT_CALIBRATED, Calibration
from planner.egress import Place
from planner.filters import OfferFilter
from planner.job import Job
from planner.price_age import USUAL_LIMIT, PriceLimit
from planner.search import Freedom
from planner.setup import TrainingSetup
from planner.spec import Objective
from planner.spot_signals import NO_SIGNALS, SpotSignals
from providers.offers import Offer


class Goal(NamedTuple):
    """What the person wants, resolved against the clock.

    Attributes:
        objective: What to prefer.
        now: When the estimate is made; the job is assumed to start now.
        deadline: When the result must be there, None if there is no hurry.
        budget_usd: Total for the job, None if not set.
    """

    objective: Objective
    now: datetime
    deadline: datetime | None = None
    budget_usd: float | None = None

    @property
    def deadline_h(self) -> float | None:
        """Hours left until the deadline."""
        return None if self.deadline is None else (self.deadline - self.now).total_seconds() / 3600


class Question(NamedTuple):
    """A job, what may be chosen for it, and what is wanted.

    Attributes:
        arch: The base model.
        counts: Its parameters.
        trainable: Parameters that are trained.
        flops_total: Floating-point operations of the whole training.
        job: What must be computed.
        stored_bytes: Of the base model's files.
        base: Training set-up without what the search chooses.
        freedom: What the search may choose.
        nodes: Numbers of machines to try, ascending.
        filter: Which offers are allowed.
        goal: What is wanted.
        keep_checkpoints: Checkpoints kept at the same time.
        chooses_best: The best evaluation is handed over.
        publication: The model's page on the Hub, if it was asked for there.
        remote_code_trusted: The spec lets the model's own code run.
        calibration: What finished runs taught.
        spot_signals: What clouds said of their spot machines.
        bucket: Where the checkpoints go, None if that is not known.
        price_limit: From what age on a price is doubted, or no offer.
    """

    arch: ModelArchitecture
    counts: ParameterCounts
    trainable: int
    flops_total: float
    job: Job
    stored_bytes: float
    base: TrainingSetup
    freedom: Freedom
    nodes: tuple[int, ...]
    filter: OfferFilter
    goal: Goal
    keep_checkpoints: int = 2
    chooses_best: bool = False
    publication: Publication | None = None
    remote_code_trusted: bool = False
    calibration: Calibration = NOT_CALIBRATED
    price_limit: PriceLimit = USUAL_LIMIT
    spot_signals: SpotSignals = NO_SIGNALS
    bucket: Place | None = None

    def model_warnings(self) -> tuple[tuple[str, str], ...]:
        """(code, message) of what a person should know of the model before using it."""
        if self.publication is None:
            return ()
        return tuple(self.publication.warnings(self.arch.id, trusted=self.remote_code_trusted))

    def refuses(self, offer: Offer) -> tuple[str, str] | None:
        """(reason_code, reason) if the offer may not be used, None if it may."""
        refused = self.filter.refuses(offer)
        if refused is None and self.price_limit.refuses(offer, self.goal.now):
            return "stale_price", "price too old or undated"
        return refused
