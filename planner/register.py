"""The register of a team: whose run an id is, and what each project may spend, in an object store that all share.

Two kinds of objects: `runs/<id>.json`, written once by whoever takes the id, and `projects/<name>.json`, moved by
compare-and-swap, with the budget and what each run holds of it. A run holds its whole cap until it is over, so that
two launches at the same moment cannot both take the last dollar. While it is under way its cap counts in every month;
what it has cost is booked, once it is over, in the months in which its machines ran: the first one beside its id, each
later one under `<id>@<month>`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote

from planner.costs import by_month
from planner.errors import OverBudgetError
from planner.ledger_identity import LedgerIdentity
from planner.money import usd_text_of_micro
from planner.runs import Run
from planner.try_book import Try
from providers.errors import CorruptDataError, StorageError, UsageError
from providers.object_store import ObjectStore

_ROUNDS = 20
#: Between a run's id and a later month in which it cost something; no run id has it.
_IN_MONTH = "@"
Per = Literal["month", "total"]


@dataclass(frozen=True, slots=True)
class Share:
    """What one run has of its project's budget.

    Attributes:
        month: YYYY-MM of its launch, or that the amount is of.
        micro_usd: Its cap while it is under way, its cost in that month once it is over; None is a run that nobody has
            capped.
        over: It is over.
    """

    owner: str | None
    month: str
    micro_usd: int | None
    over: bool = False


@dataclass(frozen=True, slots=True)
class ProjectBook:
    """A project's budget and its runs, of everybody.

    Attributes:
        limit_micro_usd: None is no budget.
        per: What the limit is for: each month (UTC), or all runs together.
    """

    project: str
    limit_micro_usd: int | None = None
    per: Per = "month"
    runs: dict[str, Share] = field(default_factory=dict)

    def counted(self, month: str) -> dict[str, Share]:
        """The runs that the limit is for now."""
        return {
            run_id: share
            for run_id, share in self.runs.items()
            if self.per == "total" or share.month == month or not share.over
        }

    def taken_micro_usd(self, month: str, *, without: str = "") -> int | None:
        """Spent or held by all of them but one; None if a run without a cap is under way."""
        shares = [share.micro_usd for name, share in self.counted(month).items() if run_of(name) != without]
        return None if None in shares else sum(share for share in shares if share is not None)


def run_of(name: str) -> str:
    """The run that a share of this name is of.

    >>> run_of("goat-1"), run_of("goat-1@2026-12")
    ('goat-1', 'goat-1')
    """
    return name.partition(_IN_MONTH)[0]


def read_book(store: ObjectStore, project: str) -> ProjectBook:
    """The book of a project, an empty one if there is none.

    Raises:
        StorageError: The store cannot be read, or the book is damaged.
    """
    return _read(store, project)[0]


def set_budget(store: ObjectStore, project: str, limit_micro_usd: int | None, per: Per) -> ProjectBook:
    """Give a project a budget, or take it away with None."""
    return _change(store, project, lambda book: replace(book, limit_micro_usd=limit_micro_usd, per=per))


def refusal(book: ProjectBook, run_id: str, wanted_micro_usd: int | None, month: str) -> str | None:
    """Why a run may not hold this much of its project's budget, None if it may."""
    limit = book.limit_micro_usd
    if limit is None or wanted_micro_usd == 0:
        return None
    what = f"the budget of project {book.project}, ${usd_text_of_micro(limit)} {_PER[book.per]},"
    if wanted_micro_usd is None:
        return f"{what} needs a run with a cap"
    taken = book.taken_micro_usd(month, without=run_id)
    if taken is None:
        return f"{what} cannot be kept: a run without a cap is under way"
    if taken + wanted_micro_usd <= limit:
        return None
    left = usd_text_of_micro(max(limit - taken, 0))
    return f"{what} has ${left} left, and this run may cost ${usd_text_of_micro(wanted_micro_usd)}"


_PER: dict[Per, str] = {"month": "a month", "total": "in all"}


def enter(
    store: ObjectStore,
    run_id: str,
    project: str,
    owner: str | None,
    *,
    ledger: LedgerIdentity,
    cap_micro_usd: int | None,
    at: str,
) -> None:
    """Take a run id and hold its cap of the project's budget; again by the same person changes nothing.

    Args:
        store: The register.
        run_id: Wanted.
        project: Its project.
        owner: Who will be shown as having taken it.
        ledger: The person's.
        cap_micro_usd: What it may cost, None without a cap; 0 for a machine that costs nothing.
        at: RFC 3339 UTC.

    Raises:
        UsageError: Somebody else has the id.
        OverBudgetError: The project's budget does not allow it.
    """
    key = _run_key(run_id)
    claim = {"run_id": run_id, "project": project, "owner": owner, "token": ledger.token, "at": at}
    created = store.put_if_absent(key, json.dumps(claim).encode())
    found = None if created else store.get(key)
    if found is not None:
        _refuse_other(_claim(found[0], store.uri), run_id, ledger)
    try:
        hold(store, run_id, project, owner, cap_micro_usd, at[:7])
    except OverBudgetError:
        if created:
            store.delete(key)
        raise


def leave(store: ObjectStore, run_id: str, project: str, *, ledger: LedgerIdentity) -> None:
    """Undo `enter`: the hold and then the id are free again; an id of somebody else stays as it is.

    Raises:
        StorageError: The register cannot be read or written.
    """
    found = store.get(_run_key(run_id))
    if found is None or not _is_own(_claim(found[0], store.uri), run_id, ledger):
        return
    _change(store, project, lambda book: without(book, [run_id]))
    store.delete(_run_key(run_id))


def without(book: ProjectBook, run_ids: Collection[str]) -> ProjectBook:
    """The book without what these hold of it."""
    return replace(
        book, runs={name: share for name, share in book.runs.items() if run_of(name) not in run_ids}
    )


def is_taken(store: ObjectStore, run_id: str) -> bool:
    """Whether anybody has a run id.

    Raises:
        StorageError: The register cannot be read.
    """
    return store.get(_run_key(run_id)) is not None


def hold(
    store: ObjectStore, run_id: str, project: str, owner: str | None, cap_micro_usd: int | None, month: str
) -> None:
    """Hold a cap of the project's budget, in place of what the run held before.

    Raises:
        OverBudgetError: The budget does not allow it.
    """

    def held(book: ProjectBook) -> ProjectBook:
        why = refusal(book, run_id, cap_micro_usd, month)
        if why is not None:
            hint = "lower the cap, wait until a run is over, or raise it: `plan budget set`"
            raise OverBudgetError(why, hint=hint, code="project_budget")
        before = book.runs.get(run_id)
        share = Share(owner, month if before is None else before.month, cap_micro_usd)
        return replace(book, runs=without(book, [run_id]).runs | {run_id: share})

    _change(store, project, held)


Known = tuple[Iterable[Run], Iterable[Try]]


def settled(book: ProjectBook, project: str, runs: Iterable[Run], tries: Iterable[Try] = ()) -> ProjectBook:
    """With what runs and tries of this ledger have really cost in place of their caps, once they are over.

    A run under way that has cost more than it holds, as one whose machine takes its time to go, holds that.
    """
    runs = list(runs)
    beyond = {run.run_id: run.cost_micro_usd or 0 for run in runs if not run.final}
    shares = {
        name: replace(share, micro_usd=beyond[name])
        for name, share in book.runs.items()
        if share.micro_usd and not share.over and beyond.get(name, 0) > share.micro_usd
    }
    return _with_costs(replace(book, runs=book.runs | shares), _over(project, runs, tries))


def settle(store: ObjectStore, project: str, runs: Iterable[Run], tries: Iterable[Try] = ()) -> None:
    """Write down what `settled` says; the register is not asked where nothing is over."""
    over = _over(project, runs, tries)
    if over:
        _change(store, project, lambda book: _with_costs(book, over))


def settle_from(store: ObjectStore, project: str, look: Callable[[ProjectBook], Known]) -> None:
    """Write down what `settled` says of what a ledger knows.

    Args:
        store: The register.
        project: Whose book.
        look: Reads the ledger, after the book was read: a run that somebody resumes meanwhile has changed the book, and
            both are read again.
    """
    _change(store, project, lambda book: settled(book, project, *look(book)))


def _over(project: str, runs: Iterable[Run], tries: Iterable[Try]) -> dict[str, dict[str, int] | None]:
    """Micro-dollars by month of what is over here, by id; None where nobody knows.

    A run that came to nothing and was launched anew under another project costs this one nothing.
    """
    over = {
        run.run_id: by_month(run) if run.terms.project == project else {}
        for run in runs
        if run.final or run.terms.project != project
    }
    return over | {
        one.try_id: None if one.cost_micro_usd is None else {one.asked_at[:7]: one.cost_micro_usd}
        for one in tries
        if one.project == project and not one.is_open
    }


def _with_costs(book: ProjectBook, over: Mapping[str, Mapping[str, int] | None]) -> ProjectBook:
    shares: dict[str, Share] = {}
    for name, share in book.runs.items():
        costs = over.get(name)
        if name not in over:
            if over.get(run_of(name)) is None:  # a later month of one that is over is written anew
                shares[name] = share
        elif costs is None:
            shares[name] = replace(share, over=True)
        else:
            shares[name] = replace(share, micro_usd=costs.get(share.month, 0), over=True)
            for month in sorted(costs.keys() - {share.month}):
                part = Share(share.owner, month, costs[month], over=True)
                shares[f"{name}{_IN_MONTH}{month}"] = part
    return replace(book, runs=shares)


def take(store: ObjectStore, run_id: str, project: str, owner: str | None, token: str, at: str) -> None:
    """Make an id this ledger's own, whoever had it: its run was adopted.

    Raises:
        StorageError: The register cannot be written.
    """
    key = _run_key(run_id)
    claim = {"run_id": run_id, "project": project, "owner": owner, "token": token, "at": at}
    for _ in range(_ROUNDS):
        found = store.get(key)
        if found is not None and _claim(found[0], store.uri).get("token") == token:
            return
        if store.compare_and_swap(key, json.dumps(claim).encode(), found and found[1]) is not None:
            return
    raise StorageError(f"the register is being written by too many at once: {store.uri}", code="busy")


def other_owner(store: ObjectStore, run_id: str, ledger: LedgerIdentity) -> str | None:
    """Who has taken a run id, None if it was this ledger or nobody."""
    found = store.get(_run_key(run_id))
    claim = {} if found is None else _claim(found[0], store.uri)
    is_free = "token" not in claim
    return None if is_free or _is_own(claim, run_id, ledger) else claim.get("owner") or "somebody else"


def _claim(body: bytes, uri: str) -> dict[str, Any]:
    try:
        claim = json.loads(body)
    except ValueError as error:
        raise CorruptDataError(f"the register's entry of a run: {error}", path=uri) from error
    if not isinstance(claim, dict):
        raise CorruptDataError("the register's entry of a run is no object", path=uri)
    return claim


def _is_own(claim: dict[str, Any], run_id: str, ledger: LedgerIdentity) -> bool:
    return ledger.owns(claim.get("token"), run_id, claim.get("at"))


def _refuse_other(claim: dict[str, Any], run_id: str, ledger: LedgerIdentity) -> None:
    if not _is_own(claim, run_id, ledger):
        who = claim.get("owner") or "somebody else"
        raise UsageError(
            f"run id {claim.get('run_id')} was taken by {who} at {claim.get('at')}",
            hint="choose another --run-id, or leave it out",
            code="run_taken",
        )


def _change(store: ObjectStore, project: str, change: Any) -> ProjectBook:
    for _ in range(_ROUNDS):
        book, tag = _read(store, project)
        changed: ProjectBook = change(book)
        if changed == book or store.compare_and_swap(_key(project), _written(changed), tag) is not None:
            return changed
    raise StorageError(f"the register is being written by too many at once: {store.uri}", code="busy")


def _read(store: ObjectStore, project: str) -> tuple[ProjectBook, str | None]:
    found = store.get(_key(project))
    if found is None:
        return ProjectBook(project), None
    try:
        raw = json.loads(found[0])
        runs = {name: Share(**share) for name, share in raw["runs"].items()}
        return ProjectBook(project, raw["limit_micro_usd"], raw["per"], runs), found[1]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptDataError(f"the register's book of {project}: {error}", path=store.uri) from error


def _written(book: ProjectBook) -> bytes:
    return json.dumps(asdict(book), sort_keys=True, indent=1).encode()


def _run_key(run_id: str) -> str:
    return f"runs/{quote(run_id, safe='')}.json"


def _key(project: str) -> str:
    return f"projects/{quote(project, safe='')}.json"
