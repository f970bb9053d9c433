"""What the commands on reservations share: the job, the window, asking the providers, the ledger."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from planner.cli.context import App
from planner.cli.output import echo_err
from planner.places import Places
from planner.units import parse_deadline, parse_duration_s
from providers.errors import TuneplanError, UsageError

if TYPE_CHECKING:
    from planner.reserve.apis import Surroundings
    from planner.reserve.book import ReservationBook
    from planner.reserve.need import Alternatives, Sized
    from planner.reserve.search import Found, Source, Window
    from planner.specfile import LoadedSpec
    from providers.reservations import ProviderName

#: How far ahead is looked where nobody says: EC2 sells blocks that start up to eight weeks ahead.
_LOOK_AHEAD = timedelta(weeks=8)

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])
Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Job:
    """The job of a spec as reservations see it.

    Attributes:
        loaded: The spec.
        sized: The kinds of machine it fits on, by provider.
        others: What it costs without a reservation.
        deadline: When the result must be there, None if there is no hurry.
        window: When and where to look.
    """

    loaded: LoadedSpec
    sized: dict[ProviderName, list[Sized]]
    others: Alternatives
    deadline: datetime | None
    window: Window


def window_options(function: AnyCallable) -> AnyCallable:
    """The options that say when, where and from whom."""
    options = (
        click.option("--by", metavar="TIME", help="The job must be done by then; default: goal.deadline."),
        click.option("--from", "start", metavar="TIME", help="Earliest start; default: now."),
        click.option("--region", "regions", multiple=True, help="Only this region; may be repeated."),
        click.option("--provider", "providers", multiple=True, help="Only this provider; may be repeated."),
        click.option("--margin", metavar="DURATION", help="Time on top of the p90; default: a tenth of it."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def job_of(app: App, spec: Path, asked_for: Mapping[str, Any]) -> Job:
    """Estimate the spec, on reservable machines and without a reservation.

    Raises:
        UsageError, SpecError: The spec or an option is wrong.
    """
    from planner.placing import placed_in
    from planner.reserve.apis import own_machines
    from planner.reserve.need import alternatives, sizes
    from planner.specfile import load_spec
    from planner.support import unsupported

    loaded = load_spec(spec)
    loaded.refuse(unsupported(loaded.spec))
    snapshot = app.snapshot("clouds")
    with placed_in(loaded):
        estimate = app.estimate(loaded.spec, loaded.base_dir, snapshot, limit=None).estimate
    deadline = _moment(asked_for["by"], "--by") or estimate.question.goal.deadline
    margin = _hours(asked_for["margin"])
    sized = {
        provider: sizes(
            estimate.question,
            own_machines(app.config) if provider == "inhouse" else snapshot.offers,
            provider,
            wanted_margin_h=margin,
        )
        for provider in _providers(asked_for["providers"])
    }
    return Job(loaded, sized, alternatives(estimate), deadline, _window(app, asked_for, deadline))


def asked(app: App, job: Job, asked_for: Mapping[str, Any]) -> tuple[list[Found], list[Source]]:
    """What the providers have for the job, cheapest first."""
    from planner.reserve.apis import open_api
    from planner.reserve.search import search

    around = surroundings(app)
    found: list[Found] = []
    sources: list[Source] = []
    for provider, sized in job.sized.items():
        rows, said = search(
            provider, lambda name: open_api(name, around), sized, job.window, app.now, echo_err
        )
        found += rows
        sources += said
    return sorted(found, key=lambda row: (row.cost_usd is None, row.cost_usd or 0.0)), sources


def surroundings(app: App) -> Surroundings:
    """What adapters may need of this machine."""
    from planner.reserve.apis import Surroundings

    return Surroundings(app.config, app.directories.state, lambda: app.snapshot("clouds"), app.now)


@contextmanager
def open_book(app: App) -> Iterator[ReservationBook]:
    """The reservations, closed at the end."""
    from planner.reserve.book import ReservationBook

    with ReservationBook(Places(app.directories.state).ledger) as book:
        yield book


def reservation_ids(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Ids for the shell."""
    try:
        with open_book(context.ensure_object(App)) as book:
            ids = [row.reservation_id for row in book.all()]
    except TuneplanError:
        return []
    return [name for name in ids if name.startswith(incomplete)]


def _providers(names: tuple[str, ...]) -> list[ProviderName]:
    from planner.reserve.apis import PROVIDERS, check_provider

    return [check_provider(name) for name in names] if names else list(PROVIDERS)


def _window(app: App, asked_for: Mapping[str, Any], deadline: datetime | None) -> Window:
    from planner.reserve.search import Window

    start = _moment(asked_for["start"], "--from") or app.now()
    end = deadline or start + _LOOK_AHEAD
    if end <= start:
        raise UsageError("the job would have to be done before it may start", hint="look at --from and --by")
    return Window(max(start, app.now()), end, tuple(asked_for["regions"]))


def parsed(option: str, parse: Callable[[str], Parsed], text: str) -> Parsed:
    """The value of an option.

    Raises:
        UsageError: It means nothing; the option is named.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _moment(text: str | None, option: str) -> datetime | None:
    return None if text is None else parsed(option, parse_deadline, text)


def _hours(text: str | None) -> float | None:
    """Hours of a margin, which may be none at all."""
    if text is None:
        return None
    nothing = re.fullmatch(r"0+(\.0+)?\s*[a-z]*", text.strip())
    return 0.0 if nothing else parsed("--margin", parse_duration_s, text) / 3600
