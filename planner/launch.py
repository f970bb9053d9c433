"""Starts, resumes and cancels runs: first the ledger, then the backend, then the ledger again.

Every function may be killed at any line and called again: the same run id never becomes two jobs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from planner import inputs, rented
from planner.bundle import Bundle, build_bundle
from planner.errors import CapReachedError
from planner.launch_lock import launching
from planner.launch_request import job_of, request_for
from planner.limits import is_spent
from planner.money import micro_usd
from planner.monitor import keep_record, observe
from planner.offer_document import offer_document
from planner.places import Places
from planner.reserve.rest import reserved_left_s
from planner.runs import RESUMABLE, Attempt, PolicyDecision, Run, RunTerms
from planner.stop_grace import grace_ends_at
from planner.store import Change, Store
from providers.errors import (
    CleanupPendingError,
    CredentialsError,
    LaunchError,
    MissingExtraError,
    StorageError,
    TuneplanError,
    UsageError,
)
from providers.launcher import Launcher, LaunchRequest
from providers.offers import Offer

Clock = Callable[[], str]
_RESERVATION_OVER = "the time of its reservation is over"
_ANEW = "launch it anew, on other machines or in another reservation"


@dataclass(frozen=True, slots=True)
class Desk:
    """What it takes to act on runs.

    Attributes:
        store: The ledger.
        launcher: The backend of the runs.
        places: Where bundles and checkpoints go.
        now: RFC 3339 UTC.
        told: How far the files of a rented run are sent.
    """

    store: Store
    launcher: Launcher
    places: Places
    now: Clock
    told: inputs.Told = lambda _: None


def launch(
    desk: Desk,
    run_id: str,
    terms: RunTerms,
    micro_usd_per_hour: int | None,
    first: PolicyDecision | None = None,
) -> tuple[Run, bool]:
    """Record a run and start it.

    Args:
        desk: What it takes.
        run_id: Its id.
        terms: What it is launched with.
        micro_usd_per_hour: Price of all its machines.
        first: The decision that a run that moves begins with.

    Returns:
        The run, and whether this call is its first launch; an id that exists is started only if it never was. One that
        failed before anything of it was started is launched anew, with these terms.

    Raises:
        UsageError: The id belongs to another plan.
        LaunchError, CredentialsError: Nothing was started; the run is recorded as failed.
    """
    offer_json = json.dumps(json.loads(terms.candidate_json)["offer"])
    attempt = Attempt(1, offer_json, micro_usd_per_hour, desk.now())
    created = desk.store.create(run_id, terms, attempt)
    run = _get(desk, run_id)
    if created and first is not None:
        desk.store.record_decision(run_id, first)
    if terms.infra != run.terms.infra:
        raise UsageError(
            f"run {run_id} exists already and was launched with --infra {run.terms.infra}",
            hint="launch it as before, or choose another --run-id",
            code="run_exists",
        )
    # a plan of the same spec changes as runs finish and prices move; the job is what must be the same
    if not created and terms.plan_hash != run.terms.plan_hash and terms.job_json != run.terms.job_json:
        raise UsageError(
            f"run {run_id} exists already and was launched from another plan",
            hint="choose another --run-id, or leave it out",
            code="run_exists",
        )
    if run.came_to_nothing:
        again = replace(attempt, attempt=run.current.attempt + 1)
        if desk.store.launch_again(run, again, terms) and first is not None:
            desk.store.record_decision(run_id, replace(first, attempt=again.attempt))
        run, created = _get(desk, run_id), True
    if _is_unconfirmed(run):
        return _start(desk, run, is_new=created), created
    return observe(desk.store, desk.launcher, run, desk.now()), created


def resume(
    desk: Desk,
    run: Run,
    *,
    offer: Offer | None = None,
    candidate_json: str | None = None,
    cap_micro_usd: int | None = None,
    max_duration_s: float | None = None,
) -> Run:
    """Start a new attempt that goes on from the last committed checkpoint.

    Args:
        desk: What it takes.
        run: As read from the ledger.
        offer: Another machine than the last one, or that one, at its price now.
        candidate_json: Its candidate with all its machines at their prices now, None leaves them.
        cap_micro_usd: A new cap for the whole run, None keeps the old one.
        max_duration_s: A new limit for an attempt, None keeps the old one.

    Raises:
        UsageError: It is under way, has succeeded, or somebody else resumed it just now.
        CapReachedError: The cap is spent and was not raised, or the time of its reservation is over.
        LaunchError, CredentialsError: Nothing was started.
    """
    run = observe(desk.store, desk.launcher, run, desk.now())
    if _is_unconfirmed(run):
        return _start(desk, run)
    if run.state not in RESUMABLE:
        what = (
            "has succeeded, there is nothing to resume"
            if run.final
            else f"is {run.state}, it needs no resume"
        )
        raise UsageError(f"run {run.run_id} {what}", code="not_resumable")
    cap = run.terms.cap_micro_usd if cap_micro_usd is None else cap_micro_usd
    if cap is not None and is_spent(run, cap):
        raise CapReachedError(
            f"run {run.run_id} has spent its cap", hint="raise it: `plan resume RUN --cap USD`"
        )
    attempt = _next_attempt(run, offer, desk.now())
    limit_s = run.terms.max_duration_s if max_duration_s is None else max_duration_s
    left_s = reserved_left_s(desk.store.path, run, desk.now())
    if left_s is not None:
        if left_s <= 0:
            raise CapReachedError(_RESERVATION_OVER, hint=_ANEW, code="reservation_over")
        limit_s = min(left_s, limit_s or left_s)
    if not desk.store.add_attempt(
        run, attempt, cap_micro_usd=cap, max_duration_s=limit_s, candidate_json=candidate_json
    ):
        raise UsageError(
            f"run {run.run_id} was changed by somebody else just now", hint="look at `plan status`"
        )
    return _start(desk, _get(desk, run.run_id), is_new=True)


def resume_within_cap(
    desk: Desk, run: Run, *, offer: Offer | None = None, candidate_json: str | None = None
) -> Run:
    """Resume a run that nobody is there to raise the cap of: with too little left of it the run is over.

    Raises:
        UsageError: Somebody else resumed it just now.
        LaunchError, CredentialsError: Nothing was started.
    """
    try:
        return resume(desk, run, offer=offer, candidate_json=candidate_json)
    except CapReachedError as error:
        return give_up(desk, run, error.message)


def give_up(desk: Desk, run: Run, why: str) -> Run:
    """End a run that rests because its cap does not let it go on."""
    desk.store.apply(run, Change("capped", why, run.current, desk.now(), kind="give_up"))
    return keep_record(desk.store, _get(desk, run.run_id), desk.now())


def _next_attempt(run: Run, offer: Offer | None, now: str) -> Attempt:
    """On the machine of the last attempt, or on another one."""
    last = run.current
    if offer is None:
        return Attempt(last.attempt + 1, last.offer_json, last.micro_usd_per_hour, now)
    price, nodes = offer.price_usd_per_hour, json.loads(run.terms.candidate_json)["nodes"]
    micro = None if price is None else micro_usd(price) * nodes
    return Attempt(last.attempt + 1, json.dumps(offer_document(offer)), micro, now)


def cancel(desk: Desk, run: Run, *, grace_s: float) -> Run:
    """Ask the worker to checkpoint and end; what rests is cancelled at once, what is over stays.

    The backend of a worker that commits is asked by a later look, when it has ended or its time is over. A run is over
    only once its backend says so: until then its stop is on record, and each look repeats it.
    """
    run = observe(desk.store, desk.launcher, run, desk.now())
    if run.final:
        return run
    if run.resting:
        change = Change("cancelled", "cancelled by the user", run.current, desk.now(), kind="cancel")
        written = desk.store.apply(run, change)
    else:
        until = grace_ends_at(run, desk.now(), grace_s)
        is_asked = run.state == "cancelling" and run.stopping == "user"
        sooner = run.next_try_at is not None and (until or "") < run.next_try_at
        written = (is_asked and not sooner) or desk.store.ask_stop(
            run, "user", "asked for by the user", desk.now(), next_try_at=until
        )
    if not written:
        return cancel(desk, _get(desk, run.run_id), grace_s=grace_s)
    run = _get(desk, run.run_id)
    if not run.final:
        run = keep_record(desk.store, run, desk.now())
        if run.final:  # another ledger has adopted it, and alone may end it
            return run
    if run.next_try_at is None:
        desk.launcher.cancel(run.run_id, grace_s=grace_s)
    return observe(desk.store, desk.launcher, _get(desk, run.run_id), desk.now())


def _start(desk: Desk, run: Run, *, is_new: bool = False) -> Run:
    """Ask the backend for the newest attempt, which is on record, and record its answer.

    Args:
        desk: What it takes.
        run: As read from the ledger.
        is_new: This call put the attempt on record, so that nobody has asked the backend for it before.
    """
    run = keep_record(desk.store, run, desk.now(), create=True)
    if run.final:  # another ledger has adopted it
        raise UsageError(f"run {run.run_id}: {run.state_reason}", code="other_ledger")
    bundle = _prepared(desk, run, is_new=is_new)
    with launching(desk.places, run.run_id):
        newest = _get(desk, run.run_id)  # files may have been sent for hours
        is_wanted = _is_unconfirmed(newest) and newest.launches == run.launches
        if is_wanted:
            _ask(desk, run, request_for(desk.store, run, bundle.path, desk.now()), is_new=is_new)
    run = _get(desk, run.run_id)
    if is_wanted and run.final:  # cancelled by somebody between our record and the backend's answer
        desk.launcher.cancel(run.run_id)
    return observe(desk.store, desk.launcher, run, desk.now())


def _ask(desk: Desk, run: Run, request: LaunchRequest, *, is_new: bool) -> None:
    """Have the backend start it; that it was not is on record before anybody is told."""
    try:
        _refuse_over(desk, run)
        desk.launcher.launch(request)
    except CleanupPendingError:
        raise
    except TuneplanError as error:
        if is_new and isinstance(
            error, MissingExtraError
        ):  # which keeps it from being asked how it stands, too
            _record_failure(desk, run, error)
            raise
        status = desk.launcher.status(run.run_id)
        if status.state == "unknown":  # an earlier call may have been heard: asking again finds that out
            raise
        if status.attempt < run.launches and _record_failure(desk, run, error):
            raise


def _refuse_over(desk: Desk, run: Run) -> None:
    """Reserved capacity may have ended while nobody asked for it: its machines would be others, at another price."""
    left_s = reserved_left_s(desk.store.path, run, desk.now())
    if left_s is not None and left_s <= 0:
        raise LaunchError(_RESERVATION_OVER, hint=_ANEW, code="reservation_over")


def _prepared(desk: Desk, run: Run, *, is_new: bool) -> Bundle:
    """Bring the run's files to its store, before a machine waits for them, and its bundle into place."""
    job = job_of(run)
    try:
        inputs.send(job.inputs, rented.sources(run.terms.candidate_json), desk.told)
        return build_bundle(desk.places.bundle(run.run_id, run.launches), job)
    except (
        UsageError,
        CredentialsError,
        StorageError,
    ) as error:  # nowhere any more, refused, or out of reach
        if is_new:
            _record_failure(desk, run, error)
        else:  # an earlier call may have been heard: it is not over
            _note_delay(desk, run, error)
        raise


def _note_delay(desk: Desk, run: Run, error: TuneplanError) -> None:
    """Say why a launch that nobody has confirmed is not asked for again yet."""
    reason = f"not asked for again: {error.message}"
    if run.state_reason != reason:
        desk.store.apply(run, Change(run.state, reason, run.current, desk.now(), kind="launch"))


def _record_failure(desk: Desk, run: Run, error: TuneplanError) -> bool:
    """Record that nothing was started, whoever looked at the run meanwhile; False if it was stopped or started."""
    while not desk.store.apply(run, _failure(run, error, desk.now())):
        launches, run = run.launches, _get(desk, run.run_id)
        if run.launches != launches or not _is_unconfirmed(run):
            return False
    return True


def _failure(run: Run, error: TuneplanError, now: str) -> Change:
    """Nothing was started; a run that moves rests and tries elsewhere, once it has been somewhere.

    A run that was taken away and is started again by whoever watches it rests too where a login, a secret or software
    is missing or its store does not answer, and is asked for again; of a first launch somebody was told that nothing
    runs, and nothing may start later.
    """
    moves = run.terms.moving_json is not None and any(one.outcome != "failed" for one in run.attempts[:-1])
    if isinstance(error, LaunchError) and moves:
        refused = replace(run.current, outcome="stock_out", ended_at=now)
        return Change("preempted", f"refused: {error.message}", refused, now, kind="launch")
    comes_back = isinstance(error, CredentialsError | StorageError | MissingExtraError)
    if comes_back and (moves or run.is_restarted):
        unasked = replace(run.current, outcome="failed", ended_at=now)
        return Change("preempted", f"not started again: {error.message}", unasked, now, kind="launch")
    return Change("failed", error.message, replace(run.current, outcome="failed"), now, kind="launch")


def _is_unconfirmed(run: Run) -> bool:
    """On record, and nobody knows whether the backend was asked."""
    return run.state in ("queued", "unknown") and run.current.started_at is None


def _get(desk: Desk, run_id: str) -> Run:
    run = desk.store.get(run_id)
    if run is None:
        raise UsageError(f"there is no run {run_id!r}", code="run_unknown")
    return run
