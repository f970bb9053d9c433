"""What clouds said of their spot machines when they were last asked, kept for estimates, which ask nobody."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from planner.spot_signals import NO_SIGNALS, READINGS, Said, SpotSignals
from planner.whole_file import whole_file
from providers.offers import Offer

if TYPE_CHECKING:
    from providers.availability import Answered, Wanted

#: About all zones of a region and any number of machines.
_REGIONAL = frozenset({"interruption_band", "eviction_band"})
#: After so many days nothing is left of any signal's weight.
_KEPT_DAYS = 180


def signal_file(cache: Path) -> Path:
    """Where they are kept."""
    return cache / "spot_signals.json"


def said_of(answered: Iterable[Answered], offers: Mapping[Wanted, Offer] | None = None) -> Iterator[Said]:
    """What of the answers may be used for rates of losses.

    Args:
        answered: What became of asking.
        offers: Machines as they stand in the prices, where they were asked about by other names of their zones.
    """
    for answer in answered:
        for wanted, signals in answer.signals.items():
            offer = (offers or {}).get(wanted, wanted.offer)
            for one in signals:
                if one.comparable and offer.market == "spot" and (one.kind, one.unit) in READINGS:
                    regional = one.kind in _REGIONAL
                    yield Said(
                        offer.cloud,
                        offer.region,
                        None if regional else offer.zone,
                        offer.instance_type or "",
                        None if regional else wanted.nodes,
                        one.kind,
                        one.value,
                        one.unit,
                        one.source,
                        one.as_of_at,
                    )


def read_signals(cache: Path) -> SpotSignals:
    """What is kept; nothing where there is no file, or one that is damaged: then the prior stays."""
    return SpotSignals(said) if (said := _read(signal_file(cache))) else NO_SIGNALS


def keep_signals(cache: Path, said: Iterable[Said], now: datetime) -> int:
    """Keep new signals in place of older ones of the same machines; how many there were.

    Raises:
        UsageError: The file cannot be written.
    """
    fresh = list(said)
    if not fresh:
        return 0
    oldest = (now - timedelta(days=_KEPT_DAYS)).isoformat()
    rows = {_key(one): one for one in (*_read(signal_file(cache)), *fresh) if one.as_of_at >= oldest}
    text = json.dumps({"signals": [one._asdict() for one in rows.values()]}, indent=0)
    cache.mkdir(parents=True, exist_ok=True)
    with whole_file(signal_file(cache)) as beside:
        beside.write_text(text, encoding="utf-8")
    return len(fresh)


def _key(said: Said) -> tuple[object, ...]:
    return said.cloud, said.region, said.zone, said.instance_type, said.nodes, said.kind, said.unit


def _read(path: Path) -> list[Said]:
    """The rows that this version understands."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["signals"]
        said = [Said(**{name: row.get(name) for name in Said._fields}) for row in rows]
        return [one for one in said if _is_dated(one)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _is_dated(said: Said) -> bool:
    try:
        return datetime.fromisoformat(said.as_of_at).tzinfo is not None
    except (TypeError, ValueError):
        return False
