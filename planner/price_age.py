"""How old a price is and when that is too old: the one place that reads the dates of prices."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from providers.offers import Offer

SECONDS_PER_DAY = 86400.0
#: Spot prices moved by a median factor of 1.3 between two readings months apart.
DEFAULT_MAX_AGE_S = 7 * SECONDS_PER_DAY


class PriceLimit(NamedTuple):
    """Up to what age a price is taken without a word.

    Attributes:
        max_age_s: Older prices, and undated ones, are warned about.
        strict: They are no offers at all.
    """

    max_age_s: float = DEFAULT_MAX_AGE_S
    strict: bool = False

    def refuses(self, offer: Offer, now: datetime) -> bool:
        """Whether the offer's price is too old to be taken; this machine's own price has no age."""
        return self.strict and offer.market != "local" and is_stale(offer.as_of_at, now, self.max_age_s)

    def doubt(self, offer: Offer, now: datetime) -> str | None:
        """What is to be said about the age of a price, None if it is recent enough."""
        if offer.market == "local" or not is_stale(offer.as_of_at, now, self.max_age_s):
            return None
        return "undated" if offer.as_of_at is None else f"{age_text(offer.as_of_at, now, 'days')} old"


#: What holds if nobody says otherwise.
USUAL_LIMIT = PriceLimit()


def age_s(as_of_at: str | None, now: datetime) -> float | None:
    """Seconds since a price was true, None if it is undated.

    Args:
        as_of_at: RFC 3339 date or time in UTC.
        now: UTC.

    >>> age_s("2026-01-01T00:00:00Z", datetime(2026, 1, 3, tzinfo=UTC))
    172800.0
    """
    return None if as_of_at is None else max((now - _moment(as_of_at)).total_seconds(), 0.0)


@lru_cache(maxsize=4096)  # a snapshot has thousands of offers and some dozen dates
def _moment(as_of_at: str) -> datetime:
    moment = datetime.fromisoformat(as_of_at.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_stale(as_of_at: str | None, now: datetime, max_age_s: float) -> bool:
    """Whether a price is too old, or undated."""
    age = age_s(as_of_at, now)
    return age is None or age > max_age_s


def age_days(as_of_at: str | None, now: datetime) -> int | None:
    """Whole days since a price was true, None if it is undated."""
    age = age_s(as_of_at, now)
    return None if age is None else int(age // SECONDS_PER_DAY)


def age_text(as_of_at: str | None, now: datetime, unit: str = "d") -> str:
    """Whole days since a price was true.

    >>> age_text("2026-01-01", datetime(2026, 1, 3, 12, tzinfo=UTC))
    '2 d'
    """
    days = age_days(as_of_at, now)
    return "undated" if days is None else f"{days} {unit}"


class PriceAge(NamedTuple):
    """How old a set of offers is.

    Attributes:
        oldest_as_of_at: Of the dated ones, None if none is dated.
        newest_as_of_at: Likewise.
        undated: Offers that do not say when they were true.
        stale: Offers older than the limit, undated ones included.
    """

    oldest_as_of_at: str | None
    newest_as_of_at: str | None
    undated: int
    stale: int


def price_age(offers: Iterable[Offer], now: datetime, max_age_s: float) -> PriceAge:
    """Ages of offers; an undated price counts as stale because nobody knows better."""
    counts: dict[str | None, int] = {}
    for offer in offers:
        counts[offer.as_of_at] = counts.get(offer.as_of_at, 0) + 1
    dates = [date for date in counts if date is not None]
    return PriceAge(
        oldest_as_of_at=min(dates, default=None, key=_moment),
        newest_as_of_at=max(dates, default=None, key=_moment),
        undated=counts.get(None, 0),
        stale=sum(number for date, number in counts.items() if is_stale(date, now, max_age_s)),
    )
