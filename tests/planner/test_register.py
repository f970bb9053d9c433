"""Run ids and budgets that a team shares: nobody takes an id twice, nobody takes the last dollar twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from planner.errors import OverBudgetError
from planner.ledger_identity import LedgerIdentity
from planner.register import (
    ProjectBook,
    enter,
    hold,
    other_owner,
    read_book,
    set_budget,
    settle,
    settle_from,
)
from planner.runs import Run
from planner.try_book import Try
from providers.directory_store import DirectoryStore
from providers.errors import CorruptDataError, UsageError
from providers.offers import Offer
from tests.planner.run_factories import attempt_of, run_of, terms_of

USD = 1_000_000
AT = "2026-11-22T12:00:00.000Z"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "register")


def take(store: DirectoryStore, run_id: str, cap: int | None = USD, token: str = "ann", at: str = AT) -> None:
    enter(store, run_id, "p", token, ledger=LedgerIdentity(token), cap_micro_usd=cap, at=at)


def ended(run_id: str, cost: int | None) -> Run:
    attempt = attempt_of(started_at=AT, ended_at=AT, cost_micro_usd=cost)
    return replace(run_of("succeeded", attempt), run_id=run_id, terms=terms_of(project="p"))


def test_an_id_belongs_to_who_took_it_first(store: DirectoryStore) -> None:
    take(store, "a")
    take(store, "a")  # the same command again
    with pytest.raises(UsageError, match="was taken by ann at 2026"):
        take(store, "a", token="bob")


def test_a_run_holds_its_cap_until_it_is_over(store: DirectoryStore) -> None:
    set_budget(store, "p", 3 * USD, "month")
    take(store, "a", 2 * USD)
    with pytest.raises(OverBudgetError, match=r"has \$1 left, and this run may cost \$1.5") as refused:
        take(store, "b", 1_500_000, token="bob")
    assert refused.value.exit_code == 5
    settle(store, "p", [ended("a", 500_000), ended("another", 9)])
    take(store, "b", 1_500_000, token="carl")  # the id was given back when it was refused
    assert read_book(store, "p").taken_micro_usd("2026-11") == 2 * USD
    with pytest.raises(OverBudgetError):
        hold(store, "a", "p", "ann", 2 * USD, "2026-11")  # its resume wants more than is left
    hold(store, "a", "p", "ann", 1_500_000, "2026-11")


def test_a_new_month_begins_anew_but_not_for_what_is_under_way(store: DirectoryStore) -> None:
    set_budget(store, "p", 3 * USD, "month")
    take(store, "old", 2 * USD)
    take(store, "open", USD)
    settle(store, "p", [ended("old", 2 * USD)])
    assert read_book(store, "p").taken_micro_usd("2026-12") == USD
    set_budget(store, "p", 3 * USD, "total")
    assert read_book(store, "p").taken_micro_usd("2026-12") == 3 * USD


def test_a_run_without_a_cap_makes_a_budget_worthless(store: DirectoryStore) -> None:
    take(store, "uncapped", None)
    set_budget(store, "p", 3 * USD, "month")
    with pytest.raises(OverBudgetError, match="a run without a cap is under way"):
        take(store, "a")
    with pytest.raises(OverBudgetError, match="needs a run with a cap"):
        take(store, "b", None)
    take(store, "free", 0)
    assert read_book(store, "p").taken_micro_usd("2026-11") is None


def test_an_unknown_cost_counts_as_the_whole_cap(store: DirectoryStore) -> None:
    take(store, "a", 2 * USD)
    settle(store, "p", [ended("a", None)])
    assert read_book(store, "p").taken_micro_usd("2026-11") == 2 * USD


def test_of_many_at_once_only_as_many_as_fit_are_let_in(store: DirectoryStore) -> None:
    set_budget(store, "p", 3 * USD, "total")

    def attempt(number: int) -> bool:
        try:
            take(store, f"run-{number}", token=str(number))
        except OverBudgetError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 3
    assert len(read_book(store, "p").runs) == 3


def test_a_damaged_book_is_never_taken_for_an_empty_one(store: DirectoryStore) -> None:
    store.put("projects/p.json", b"{}")
    with pytest.raises(CorruptDataError):
        take(store, "a")


def test_a_damaged_entry_of_a_run_is_one_error(store: DirectoryStore) -> None:
    for body in (b"", b"[]", b"\xff"):
        store.put("runs/a.json", body)
        with pytest.raises(CorruptDataError, match="entry of a run"):
            other_owner(store, "a", LedgerIdentity("mine"))


def test_a_try_holds_what_it_may_cost_until_it_is_over(store: DirectoryStore) -> None:
    offer = Offer("aws", "r", "z1", "g6", "L4", 1, 24.0, 4.0, 16.0, "spot", 0.5, "feed", "2026-11-20")
    one = Try("plan-try-1", "p", offer, 1, USD, 600.0, "asked", "", AT)
    set_budget(store, "p", 3 * USD, "month")
    hold(store, one.try_id, "p", "ann", 2 * USD, AT[:7])
    settle(store, "p", [], [one])  # still open
    with pytest.raises(OverBudgetError):
        take(store, "b", 1_500_000)
    settle(store, "p", [], [replace(one, state="released", ended_at=AT, cost_micro_usd=USD // 4)])
    take(store, "b", 1_500_000)
    assert read_book(store, "p").taken_micro_usd(AT[:7]) == 1_750_000


def _over_a_month_s_end(run_id: str, cost: int) -> Run:
    """Six hours of November, two of December."""
    attempt = attempt_of(
        started_at="2026-11-30T18:00:00.000Z", ended_at="2026-12-01T02:00:00.000Z", cost_micro_usd=cost
    )
    return replace(run_of("succeeded", attempt), run_id=run_id, terms=terms_of(project="p"))


def test_what_a_run_costs_is_booked_in_the_months_in_which_it_ran(store: DirectoryStore) -> None:
    set_budget(store, "p", 3 * USD, "month")
    take(store, "a", 2 * USD)
    assert [read_book(store, "p").taken_micro_usd(month) for month in ("2026-11", "2026-12")] == [2 * USD] * 2
    run = _over_a_month_s_end("a", 2 * USD)
    settle(store, "p", [run])
    settle(store, "p", [run])
    book = read_book(store, "p")
    months = ("2026-10", "2026-11", "2026-12")
    assert [book.taken_micro_usd(month) for month in months] == [0, USD * 3 // 2, USD // 2]
    with pytest.raises(OverBudgetError, match=r"has \$2.5 left"):
        take(store, "b", 2_600_000, at="2026-12-02T00:00:00.000Z")
    hold(store, "a", "p", "ann", 2_900_000, "2026-12")  # its own December does not count against it
    assert read_book(store, "p").taken_micro_usd("2026-12") == 2_900_000
    settle(store, "p", [run])
    assert read_book(store, "p") == book
    set_budget(store, "p", 3 * USD, "total")
    assert read_book(store, "p").taken_micro_usd("2026-12") == 2 * USD


def test_a_run_that_was_launched_anew_under_another_project_holds_nothing_of_the_old(
    store: DirectoryStore,
) -> None:
    set_budget(store, "p", 3 * USD, "month")
    take(store, "a", 2 * USD)
    moved = replace(run_of("running"), run_id="a", terms=terms_of(project="q"))
    settle(store, "p", [moved])
    assert read_book(store, "p").taken_micro_usd("2026-11") == 0


def test_a_run_that_is_resumed_while_its_end_is_being_booked_keeps_its_hold(store: DirectoryStore) -> None:
    take(store, "a", 2 * USD)
    over = ended("a", 500_000)
    looks = 0

    def look(book: ProjectBook) -> tuple[list[Run], list[Try]]:
        nonlocal looks
        looks += 1
        if looks == 1:  # it is over as we look, and resumed before we write
            hold(store, "a", "p", "ann", 2 * USD + 1, "2026-11")
            return [over], []
        return [replace(over, state="running")], []

    settle_from(store, "p", look)
    assert (looks, read_book(store, "p").taken_micro_usd("2026-11")) == (2, 2 * USD + 1)


def test_a_run_that_has_passed_its_cap_holds_what_it_has_cost(store: DirectoryStore) -> None:
    set_budget(store, "p", 3 * USD, "month")
    take(store, "a", 2 * USD)
    late = run_of("cancelling", attempt_of(started_at=AT, cost_micro_usd=2_100_000))
    late = replace(late, run_id="a", terms=terms_of(project="p"))
    settle_from(store, "p", lambda _: ([late], []))
    assert read_book(store, "p").taken_micro_usd("2026-11") == 2_100_000
    with pytest.raises(OverBudgetError, match=r"has \$0.9 left"):
        take(store, "b", USD)
    settle_from(store, "p", lambda _: ([replace(late, state="running", attempts=(attempt_of(),))], []))
    assert read_book(store, "p").taken_micro_usd("2026-11") == 2_100_000
