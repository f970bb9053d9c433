"""What a launch would do, for the person who is asked to agree."""

from __future__ import annotations

from jobs.lease import LEASE_S
from planner.candidates import Candidate
from planner.cli.estimate_table import duration
from planner.money import usd_text_of_micro
from planner.monitor_machine import MACHINES
from planner.places import Places
from planner.proposal import Order, bytes_from_here
from planner.quantiles import Quantiles
from planner.rented import alternatives, shares_disk
from planner.surroundings import Surroundings, clouds_without_login, rents_controller
from providers.self_release import LEFT, can_release
from providers.skypilot_task import SIZED_DISKS


def render_order(order: Order, places: Places, around: Surroundings) -> str:
    """What, where, how long, how much, and what protects the money."""
    spec, chosen = order.plan.spec, order.candidate
    rows = [
        ("run", f"{order.run_id}: {spec.task}, {spec.method.kind} on {spec.model.id}"),
        ("where", _where(order)),
        *_no_login(order, around),
        (
            "memory",
            f"{chosen.memory.reserved_gib:.1f} GiB of {chosen.memory.limit_gib:.1f}: {chosen.fit_in_a_word}",
        ),
        *_inputs(order, places),
        *_disk(order),
        ("time", duration(chosen.wall_clock_h, interval=True)),
        ("cost", _cost(chosen)),
        ("cap", _cap(order)),
        *_left_alone(order),
        *_controller(order, around),
        *([("monitor", monitor_cost(order))] if order.choices.monitor == "remote" else []),
    ]
    return "\n".join(f"{name:<7} {text}" for name, text in rows)


def _where(order: Order) -> str:
    chosen = order.candidate
    offer = chosen.offer
    if order.infra == "local":
        vcpus = "" if offer.vcpus is None else f"{offer.vcpus:g} cores, "
        ram = "" if offer.ram_gib is None else f"{offer.ram_gib:.0f} GiB"
        return f"this machine ({vcpus}{ram})"
    place = "/".join(part for part in (offer.cloud, offer.region, offer.zone) if part)
    machine = f"{chosen.nodes} x {offer.instance_type or place} ({offer.gpus_per_node} x {offer.gpu})"
    others = len(alternatives(order.plan, chosen))
    then = f"; if it cannot be had, {others} others in the plan's order" if others else ""
    return f"{machine} in {place}, {offer.market.replace('_', '-')}, through SkyPilot{then}"


def _no_login(order: Order, around: Surroundings) -> list[tuple[str, str]]:
    """Machines behind the first choice that will not be tried."""
    if order.infra == "local":
        return []
    closed = clouds_without_login(alternatives(order.plan, order.candidate), around)
    if not closed:
        return []
    clouds, number = ", ".join(closed), sum(closed.values())
    return [
        ("", f"{number} of the others cannot be tried: there is no login for {clouds} here (`plan doctor`)")
    ]


def _inputs(order: Order, places: Places) -> list[tuple[str, str]]:
    """What leaves this machine."""
    size = bytes_from_here(order, places)
    if not size or order.runs_uri is None:
        return []
    place = order.runs_uri.partition("?")[0]
    return [("sends", f"{size / 2**20:,.1f} MiB of local data and model to {place}, if it is not there yet")]


def _disk(order: Order) -> list[tuple[str, str]]:
    """Where nobody can tell whether the machine's own disk is large enough."""
    chosen = order.candidate
    cloud = chosen.offer.cloud
    if order.infra == "local" or cloud in SIZED_DISKS or shares_disk(chosen.offer):
        return []
    return [
        ("disk", f"about {chosen.disk_gib:,.0f} GiB are needed; what a machine of {cloud} has is not known")
    ]


def _cost(chosen: Candidate) -> str:
    price = chosen.offer.price_usd_per_hour
    if price == 0:
        return "$0: nothing is rented (config local.usd_per_hour puts a price on this machine)"
    if price is None:
        return "unknown: there is no price"
    after = chosen.after_credits_usd
    paid = (
        "" if after is None else f"; ${_span(after, 2)} after your credits, which cap and ledger do not count"
    )
    machines = f" for {chosen.nodes} machines" if chosen.nodes > 1 else ""
    return f"${_span(chosen.cost_usd, 2)} at ${price * chosen.nodes:g}/h{machines}{paid}"


def _cap(order: Order) -> str:
    limit_s, cap = order.choices.max_duration_s, order.cap_micro_usd
    limit = "" if limit_s is None else f"; each attempt ends after {limit_s / 3600:.2f} h"
    if order.micro_usd_per_hour == 0:
        return f"not needed{limit}"
    if cap is None:
        return f"none{limit}"
    return (
        f"${usd_text_of_micro(cap)} for the whole run{limit}: the worker checkpoints and stops at price x time;"
        " it cannot stop a machine that hangs, or count storage and network"
    )


def _controller(order: Order, around: Surroundings) -> list[tuple[str, str]]:
    """The machine that SkyPilot rents besides, if it does."""
    if order.infra != "skypilot" or not rents_controller(around):
        return []
    text = (
        "SkyPilot also rents a machine of 4 processors for its jobs controller, about $0.2/h while jobs run and 10 min"
        " after, beside the cap; `jobs.controller.consolidation_mode: true` in ~/.sky/config.yaml runs it here,"
        " `--infra cluster` does without"
    )
    return [("besides", text)]


def monitor_cost(order: Order) -> str:
    """A machine for the monitor and what it costs while the run lasts, which the run's cap does not count."""
    cloud = order.candidate.offer.cloud
    machine = MACHINES.get(cloud) or MACHINES["aws"]
    if machine.usd_per_hour is None:
        return machine.text()
    usd = _span(order.candidate.wall_clock_h.scaled(machine.usd_per_hour), 2)
    return f"{machine.text()}; ${usd} while this run lasts, beside its cap"


def _left_alone(order: Order) -> list[tuple[str, str]]:
    """What becomes of the machine should everybody who watches it vanish."""
    if order.infra == "local":
        return []
    offers = (order.candidate.offer, *alternatives(order.plan, order.candidate))
    contained = order.plan.spec.environment.image is not None
    able = {
        offer.cloud: can_release(offer.cloud) and not (contained and offer.cloud == "gcp") for offer in offers
    }
    rows = []
    if any(able.values()):
        left = "".join(f"; on {cloud} {LEFT[cloud]}" for cloud in able if able[cloud] and LEFT[cloud])
        text = (
            f"idle for {LEASE_S / 60:.0f} min with nobody watching, or past its limit, it ends itself{left}"
        )
        rows.append(("alone", text))
    stays = ", ".join(cloud for cloud in able if not able[cloud])
    if stays:
        text = (
            f"a machine of {stays} cannot end itself: should SkyPilot forget it, it is there, and paid for, until"
            " somebody ends it in the seller's console"
        )
        rows.append(("alone", text))
    return rows


def _span(value: Quantiles, digits: int) -> str:
    return f"{value.p50:,.{digits}f} ({value.p10:,.{digits}f}-{value.p90:,.{digits}f})"
