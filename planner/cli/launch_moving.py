"""`plan launch --move`: where a run that moves begins, for the person who is asked to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.cli.output import echo_err
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from planner.cli.context import App
    from planner.errors import Finding
    from planner.moving.order import MovingOrder
    from planner.proposal import Order
    from planner.store import Store


def moving_of(
    app: App,
    order: Order,
    refuse: Callable[[Iterable[Finding]], None],
    zone_names: dict[str, str],
    store: Store,
) -> tuple[Order, MovingOrder]:
    """The order as the moving policy begins it, away from places that just failed other runs of the ledger.

    Raises:
        UsageError: It cannot move where it would run.
        PolicyError: Even on-demand would be late.
    """
    from planner.asking import avoided_now
    from planner.moving.order import blockers, moving_order
    from planner.runs import utc_text

    if order.infra == "local" or order.choices.reservation_ref is not None:
        raise UsageError("--move is for machines that are rented by the hour, without --reservation")
    refuse(list(blockers(order)))
    avoided = avoided_now(store, utc_text(app.now()))
    moving = moving_order(order, app.now(), app.price_limit(), zone_names, avoided)
    return moving.order, moving


def tell_moving(moving: MovingOrder | None) -> None:
    """What a run that moves will do by itself."""
    if moving is not None:
        echo_err(moving.text())
