"""Puts the sections of one candidate together."""

from __future__ import annotations

from dataclasses import dataclass

from planner.candidates import Candidate
from planner.estimate import Estimate
from planner.explain.cost import cost
from planner.explain.hours import hours, interruptions
from planner.explain.memory import host_memory, memory
from planner.explain.step import step
from planner.explain.terms import Section
from planner.explain.work import parameters, workload
from providers.errors import UsageError

BEST = "best"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One candidate and everything behind its numbers."""

    candidate: Candidate
    sections: tuple[Section, ...]


def find_candidate(estimate: Estimate, wanted: str) -> int:
    """Index of a candidate by rank, by the beginning of its id, or `best`.

    Raises:
        UsageError: There is none, or more than one.
    """
    if wanted == BEST:
        wanted = "1"
    found = [
        index
        for index, candidate in enumerate(estimate.candidates)
        if (
            str(candidate.rank) == wanted if wanted.isdecimal() else candidate.candidate_id.startswith(wanted)
        )
    ]
    if len(found) != 1:
        many = "more than one candidate" if found else "no candidate"
        raise UsageError(
            f"{many} is called `{wanted}`",
            hint="give a rank or an id of `-o json`; `--limit 0` keeps them all",
        )
    return found[0]


def explain(estimate: Estimate, wanted: str = BEST) -> Explanation:
    """Everything behind one candidate; the values are the estimate's own.

    Raises:
        UsageError: As `find_candidate`.
    """
    index = find_candidate(estimate, wanted)
    candidate, priced = estimate.candidates[index], estimate.priced[index]
    question = estimate.question
    return Explanation(
        candidate,
        (
            parameters(question),
            workload(question),
            memory(candidate, priced),
            host_memory(candidate, priced),
            step(candidate, priced),
            hours(question, candidate, priced),
            interruptions(question, priced),
            cost(candidate, priced, question.goal.now),
        ),
    )
