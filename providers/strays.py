"""What a backend has of ours, asked without a ledger: the things themselves, not what they should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

ThingKind = Literal["worker", "secret", "job", "cluster", "instance", "role", "upload"]
#: Kinds that are paid for by the hour; the others cost nothing, or room in a bucket.
MACHINES: frozenset[ThingKind] = frozenset({"worker", "job", "cluster", "instance"})


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing that exists somewhere and bears the name of a run.

    Attributes:
        kind: What it is.
        name: Its own name there: a pid, a job, an instance's id.
        run: Id of the run it belongs to, or how a tag spells that id.
        attempt: Launch of the run that it was made for, None if it serves all of them.
        since_at: RFC 3339 UTC, when it was made, None if that is not told.
        place: Cloud, region and zone, or a path.
        cloud: As in offers, None for what is no machine.
        region: As in offers.
        instance_type: As in offers, None if it is not told.
        market: As in offers, None if it is not told.
        bytes: What it takes of a bucket or disk, None if it takes none or that is not told.
        ref: What `Sweeper.end` needs to find it again.
    """

    kind: ThingKind
    name: str
    run: str
    attempt: int | None
    since_at: str | None
    place: str
    cloud: str | None = None
    region: str | None = None
    instance_type: str | None = None
    market: str | None = None
    bytes: int | None = None
    ref: tuple[str, ...] = ()


class Sweeper(Protocol):
    """Finds and ends things of one kind of backend."""

    name: str

    def find(self) -> Iterator[Thing]:
        """Everything of ours that is there now.

        Raises:
            TuneplanError: The backend cannot be asked.
        """
        ...

    def end(self, thing: Thing) -> None:
        """End or remove it; one that is gone is fine.

        Raises:
            TuneplanError: The backend refused.
        """
        ...
