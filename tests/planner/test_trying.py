"""Tries: on record before anybody is asked, below the cap at their worst, and nothing left whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from planner.candidates import Candidate
from planner.errors import OverBudgetError
from planner.runs import utc_text
from planner.surroundings import Surroundings
from planner.try_book import Try, TryBook
from planner.trying import (
    RELEASE_S,
    Tryable,
    TryDesk,
    TryRules,
    affordable,
    end_open_tries,
    try_machines,
    tryable,
)
from providers.errors import CleanupPendingError, LaunchError
from providers.offers import Offer
from providers.trying import TryAnswer, TryRequest
from tests.planner.run_factories import candidate_of

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
A = Offer(
    "aws", "us-west-2", "us-west-2a", "g6.xlarge", "L4", 1, 24.0, 4.0, 16.0, "spot", 3.6, "t", "2026-11-25"
)
B = A._replace(zone="us-west-2b", price_usd_per_hour=7.2)
RULES = TryRules(600.0, 10_000_000, all=False, project="herd")
MACHINES = [Tryable(A, 1, 3_600_000), Tryable(B, 1, 7_200_000)]


class Seller:
    """A seller on record: what was asked for, what is rented; each answer takes a minute."""

    def __init__(self, answers: dict[str | None, TryAnswer | BaseException]) -> None:
        self.answers = answers
        self.minutes = 0.0
        self.rented: set[str] = set()
        self.asked: list[TryRequest] = []
        self.stuck = False
        self.resists = ""
        self.release_minutes = 1.0

    def acquire(self, request: TryRequest) -> TryAnswer:
        self.asked.append(request)
        self.rented.add(request.try_id)
        self.minutes += 1
        answer = self.answers[request.offer.zone]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def release(self, try_id: str) -> None:
        self.minutes += self.release_minutes
        if self.stuck or try_id == self.resists:
            raise CleanupPendingError("it is still there")
        self.rented.discard(try_id)

    def now(self) -> str:
        return utc_text(START + timedelta(minutes=self.minutes))


HAD, REFUSED = TryAnswer(True, ""), TryAnswer(False, "no capacity in us-west-2a")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[TryBook]:
    with TryBook(tmp_path / "plan.db") as opened:
        yield opened


def tried(book: TryBook, seller: Seller, rules: TryRules = RULES) -> list[Try]:
    return try_machines(TryDesk(book, seller, seller.now, lambda _: None), MACHINES, rules)


def test_machines_are_tried_in_order_until_one_is_had_and_given_back(book: TryBook) -> None:
    seller = Seller({A.zone: REFUSED, B.zone: HAD})
    first, second = tried(book, seller)
    assert (first.state, first.reason, first.cost_micro_usd) == ("stock_out", "no capacity in us-west-2a", 0)
    assert (second.state, second.cost_micro_usd) == ("released", 240_000)  # two minutes at $7.20
    assert seller.rented == set()
    assert book.all_tries() == [first, second]
    assert seller.asked[0].labels == {"project": "herd"}


def test_it_stops_at_the_first_that_is_had_unless_all_are_wanted(book: TryBook) -> None:
    assert len(tried(book, Seller({A.zone: HAD, B.zone: HAD}))) == 1
    assert len(tried(book, Seller({A.zone: HAD, B.zone: HAD}), replace(RULES, all=True))) == 2


def test_a_try_that_fails_or_may_have_been_paid_is_given_back_and_costs_its_most(book: TryBook) -> None:
    late = TryAnswer(False, "not there after 600 s", unsure=True)
    failed, refused = tried(book, Seller({A.zone: LaunchError("no server"), B.zone: late}))
    assert (failed.state, failed.reason, failed.cost_micro_usd) == ("failed", "no server", 120_000)
    assert (refused.state, refused.cost_micro_usd) == ("stock_out", 240_000)


@pytest.mark.parametrize("moment", ["asking", "giving back"])
def test_a_try_that_was_cut_off_stays_on_record_until_it_is_ended(book: TryBook, moment: str) -> None:
    seller = Seller({A.zone: HAD, B.zone: HAD})
    if moment == "asking":  # on record, and then nothing more
        book.record(Try("plan-try-0", "herd", A, 1, 3_600_000, 600.0, "asked", "", seller.now()))
        seller.rented.add("plan-try-0")
    else:
        seller.stuck = True
        with pytest.raises(CleanupPendingError):
            tried(book, seller)
        seller.stuck = False
    (cut_off,) = book.open_tries()
    assert seller.rented == {cut_off.try_id}
    seller.minutes += 30
    (ended,) = end_open_tries(TryDesk(book, seller, seller.now, lambda _: None))
    assert seller.rented == set()
    assert list(book.open_tries()) == []
    assert ended.state == ("failed" if moment == "asking" else "released")
    assert (ended.cost_micro_usd or 0) > 1_800_000  # half an hour at $3.60


def test_one_try_that_resists_does_not_keep_the_others_from_being_ended(book: TryBook) -> None:
    seller = Seller({})
    for number in (0, 1):
        book.record(Try(f"plan-try-{number}", "herd", A, 1, 3_600_000, 600.0, "asked", "", seller.now()))
    seller.resists = "plan-try-0"
    with pytest.raises(CleanupPendingError):
        end_open_tries(TryDesk(book, seller, seller.now, lambda _: None))
    assert [one.try_id for one in book.open_tries()] == ["plan-try-0"]


def test_a_try_that_took_long_to_give_back_takes_from_what_the_next_may_cost(book: TryBook) -> None:
    late = TryAnswer(False, "not there after 600 s", unsure=True)
    cap = sum(one.most_micro_usd(600.0) for one in MACHINES)
    for hours, number in ((0.2, 2), (2.0, 1)):
        seller = Seller({A.zone: late, B.zone: HAD})
        seller.release_minutes = hours * 60
        assert len(tried(book, seller, replace(RULES, cap_micro_usd=int(cap)))) == number


def test_an_interrupted_try_leaves_nothing(book: TryBook) -> None:
    seller = Seller({A.zone: KeyboardInterrupt(), B.zone: HAD})
    with pytest.raises(KeyboardInterrupt):
        tried(book, seller)
    assert seller.rented == set()
    assert [one.state for one in book.all_tries()] == ["failed"]


def test_no_try_begins_that_could_pass_the_cap() -> None:
    worst = [one.most_micro_usd(600.0) for one in MACHINES]
    assert worst == [3_600_000 * (600 + RELEASE_S) / 3600, 7_200_000 * (600 + RELEASE_S) / 3600]
    for cap, number in ((sum(worst), 2), (sum(worst) - 1, 1), (worst[0], 1), (worst[0] - 1, 0)):
        assert len(affordable(MACHINES, replace(RULES, cap_micro_usd=int(cap)))) == number


def test_what_may_not_be_rented_is_named_and_not_tried(tmp_path: Path) -> None:
    around = Surroundings({"AWS_ACCESS_KEY_ID": "x"}, tmp_path, START, 7 * 86400.0)
    offers = [
        A,
        A,
        A._replace(price_usd_per_hour=None),
        A._replace(price_usd_per_hour=99.0),
        A._replace(as_of_at="2025-01-01"),
        A._replace(cloud="gcp"),
        A._replace(cloud="moon"),
    ]
    candidates: list[Candidate] = [candidate_of()._replace(offer=offer) for offer in offers]
    found, against = tryable(candidates, around, 50.0)
    assert found == [MACHINES[0]]
    assert [row.code for row in against] == ["no_price", "too_dear", "stale_price", "cloud_login", "no_offer"]
    both = candidate_of()._replace(offer=A, nodes=2)
    dear = tryable([both], around, 1.5 * (A.price_usd_per_hour or 0.0))[1]
    assert [row.message.partition(" cost more")[0] for row in dear] == ["2 machines of aws"]
    assert tryable([both], around, 2 * (A.price_usd_per_hour or 0.0))[1] == []


def test_each_try_holds_its_worst_case_of_the_budget_and_then_what_it_cost(book: TryBook) -> None:
    seller, told = Seller({A.zone: REFUSED, B.zone: HAD}), []

    def hold(one: Try, micro: int) -> None:
        assert seller.asked == [] or seller.asked[-1].try_id != one.try_id  # before anybody is asked
        told.append((one.offer.zone, micro))

    def settle(one: Try) -> None:
        told.append((one.state, one.cost_micro_usd))

    desk = TryDesk(book, seller, seller.now, lambda _: None, hold, settle)
    try_machines(desk, MACHINES, RULES)
    assert told == [(A.zone, 900_000), ("stock_out", 0), (B.zone, 1_800_000), ("released", 240_000)]


def test_a_try_that_the_budget_does_not_allow_is_not_asked_for(book: TryBook) -> None:
    seller = Seller({A.zone: HAD})

    def hold(one: Try, micro: int) -> None:
        raise OverBudgetError("the budget of project herd has $0 left")

    with pytest.raises(OverBudgetError):
        try_machines(TryDesk(book, seller, seller.now, lambda _: None, hold), MACHINES, RULES)
    (one,) = book.all_tries()
    assert (one.state, one.cost_micro_usd, seller.asked) == ("failed", 0, [])
