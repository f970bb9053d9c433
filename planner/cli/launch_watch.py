"""Who watches what `plan launch` is about to start, and what nobody will."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.cli.output import echo_err
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.launch import Desk
    from planner.proposal import Order

_ALONE_IN_CLUSTER = (
    "note: nobody starts a cluster again that is taken away, and where it cannot end itself it costs until somebody"
    " looks: `plan status RUN` gives it back once its job has ended (`--monitor service` does both)"
)


def check_monitor(desk: Desk, order: Order) -> str:
    """What nobody will watch, to be agreed to; a monitor that was asked for must be at work.

    Raises:
        UsageError: It is not.
    """
    goal = order.plan.spec.goal
    if order.choices.monitor == "remote":
        from planner.cli.monitor_machine import need_host

        need_host()
        return ""
    beat = desk.store.monitor()
    if order.choices.monitor == "service" and (beat is None or not beat.lives(desk.now())):
        hint = "start one: `plan monitor run &`, or see `plan monitor unit`"
        raise UsageError("no monitor is at work here", hint=hint, code="no_monitor")
    if order.choices.monitor == "service":
        return ""
    if order.infra == "cluster":
        echo_err(_ALONE_IN_CLUSTER)
    if goal.deadline is None and goal.within is None:
        return ""
    moves = ", or moves it unless a `plan monitor run` happens to be at work" if order.choices.move else ""
    echo_err(
        f"note: nobody watches the deadline or restarts this run once it was taken away{moves}"
        " (`--monitor service` does); cap and maximum duration hold all the same"
    )
    return "Nobody will watch the deadline. "


def need_elsewhere(infra: str, reservation: str | None, wait: bool) -> None:
    """Refuse what cannot be done from the monitor's machine.

    Raises:
        UsageError: Something was asked for that is about this one.
    """
    here = [
        word
        for word, given in (
            ("--infra local", infra == "local"),
            ("--reservation", reservation is not None),
            ("--wait", wait),
        )
        if given
    ]
    if here:
        raise UsageError(f"{here[0]} does not go with --monitor remote: another machine launches")
