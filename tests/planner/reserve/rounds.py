"""One randomised round: a reservation, what goes wrong, and what must be true in the end."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from planner.reserve.book import ReservationBook, Terms
from planner.reserve.reservations import Reservation, Want, purchase_token
from planner.runs import utc_text
from providers.reservations import CapacityNeed, CapacityOffer, Machine, ProviderName
from tests.capacity.server import Capacity
from tests.planner.reserve.lives import OURS, Life, Seller, adapter, run

#: What each sells, and where; all at about 756 US dollars for what is asked for.
WARES: dict[Seller, tuple[ProviderName, Machine, str]] = {
    "block": ("aws_capacity_block", Machine("p5.48xlarge", "H100", 8, 80.0), "us-east-1"),
    "plan": ("sagemaker_training_plan", Machine("p5.48xlarge", "H100", 8, 80.0), "us-east-1"),
    "google": ("gcp_calendar", Machine("a3-highgpu-8g", "H100", 8, 80.0), "us-central1"),
    "azure": ("azure_crg", Machine("Standard_ND96isr_H100_v5", "H100", 8, 80.0), "eastus"),
}
#: Clean lives after which what can be found has been found.
SETTLING = 4
#: A slow seller sells 0.3 s after it was asked.
_SLOW_S = 0.6


@dataclass
class Outcome:
    """What came of rounds."""

    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


def need(seller: Seller) -> CapacityNeed:
    now = datetime.now(UTC)
    _, machine, region = WARES[seller]
    return CapacityNeed(machine, 1, 20.0, now, now + timedelta(days=12), (region,))


def record(
    ledger: Path,
    name: str,
    *,
    seller: Seller = "block",
    agreed: CapacityOffer | None = None,
    cap_usd: float = 800,
    decide_in_s: float = 3600.0,
) -> Reservation:
    now = datetime.now(UTC)
    wanted = need(seller)
    provider, machine, region = WARES[seller]
    want = Want(1, 20.0, wanted.start_from, wanted.end_by, (region,), (machine,), agreed)
    terms = Terms(
        name,
        provider,
        purchase_token(name, str(ledger)),
        want,
        round(cap_usd * 1e6),
        utc_text(now - timedelta(minutes=1)),
        utc_text(now + timedelta(seconds=decide_in_s)),
    )
    with ReservationBook(ledger) as book:
        assert book.record(terms, utc_text(now), "for a test")
        return book.get(name)


def play(folder: Path, servers: Mapping[Seller, Capacity], seed: int, outcome: Outcome) -> None:
    """A round; raises AssertionError with what was broken."""
    draw = random.Random(seed)
    ledger = folder / f"{seed}.db"
    seller = draw.choice(sorted(servers))
    server, region = servers[seller], WARES[seller][2]
    server.order()
    api = adapter(seller, server, lambda: datetime.now(UTC), OURS)
    offers = api.offers(need(seller), region)
    agreed = draw.choice(list(offers)) if draw.random() < 0.5 else None
    cap_usd = float(draw.choice([800, 800, 800, 720, 300]))
    reservation = record(ledger, f"r{seed}", seller=seller, agreed=agreed, cap_usd=cap_usd)
    kinds = ["ok", "ok", "lose_after", "lose_after", "lose_before", "error_after", "refuse", "slow"]
    faults = [draw.choice(kinds) for _ in range(3)]
    hidden = draw.choice([0, 0, 0, 1, 2])
    server.order(
        faults={reservation.token: faults},
        hidden_looks=hidden,
        price_factor=draw.choice([1.0, 1.0, 1.0, 1.05, 0.9]),
    )
    for _ in range(draw.randint(1, 4)):
        lives = [_life(draw, outcome) for _ in range(draw.choice([1, 1, 2]))]
        run(ledger, reservation.reservation_id, *lives, seller=seller, server=server)
    if "slow" in faults:
        time.sleep(
            _SLOW_S
        )  # what is sold late is there before the last looks, which in practice go on for hours
    for _ in range(SETTLING):
        run(ledger, reservation.reservation_id, Life(), seller=seller, server=server)
    run(ledger, reservation.reservation_id, Life(clock_s=7200.0), seller=seller, server=server)
    audit(ledger, server, reservation, outcome, seller)


def _life(draw: random.Random, outcome: Outcome) -> Life:
    kind = draw.choice(["killed", "killed", "killed", "timed", "clock", "busy", "disk", "well"])
    outcome.faults[kind] += 1
    if kind == "killed":
        return Life(dies_at=draw.randint(1, 60))
    if kind == "timed":
        return Life(dies_after_s=draw.uniform(0.001, 0.25))
    if kind == "clock":
        return Life(clock_s=draw.uniform(-86400, 3000))
    if kind == "busy":
        return Life(busy_s=draw.uniform(0.05, 0.6))
    if kind == "disk":
        return Life(disk_bytes=draw.choice([0, 512, 4096, 9000, 20000]))
    return Life(looks=2)


def audit(
    ledger: Path, server: Capacity, reservation: Reservation, outcome: Outcome, seller: Seller = "block"
) -> None:
    """Exactly one purchase that we know of, or none and it is said, or `unknown`; never above the cap."""
    sold = server.sold(reservation.token)
    with ReservationBook(ledger) as book:
        end = book.get(reservation.reservation_id)
        told = " ".join(notice.text for notice in book.untold())
        events = book.events(reservation.reservation_id)
    context = (reservation.reservation_id, end.state, end.state_reason, sold, [vars_of(e) for e in events])
    assert len(sold) <= 1, ("bought more than once", context)
    for row in sold:
        fee = row["fee"]  # who bills by the hour tells no sum: what was agreed to counts
        paid = end.upfront_micro_usd if fee is None else Decimal(fee) * 10**6
        assert paid is not None and paid <= end.price_cap_micro_usd, ("over", context)
    assert end.state not in ("planned", "intent"), ("silence", context)
    if sold:
        # what nobody gives back is billed on: bought by a clock of yesterday it may be over, and given back
        over = {"ended"} if seller == "azure" else set()
        assert end.state in {"bought", "active"} | over, ("bought and not known", context)
        assert "bought:" in told or "active:" in told, ("nobody is told", context)
        assert (end.provider_ref or "").endswith(sold[0]["ref"]), ("another one", context)
        assert end.paid_micro_usd in (None, end.upfront_micro_usd), ("money", context)
    else:
        assert end.state in ("missed", "failed", "unknown"), ("not bought and not said", context)
        assert f"{end.state}:" in told, ("nobody is told", context)
        assert end.provider_ref is None and end.paid_micro_usd is None, ("nothing bought", context)
    assert [event.state for event in events][-1] == end.state, ("history", context)
    outcome.ends[f"{seller} {'bought' if sold else end.state}"] += 1


def vars_of(event: object) -> str:
    return str(event)
