"""What sellers say on whether a machine can be had now: figures of several kinds, each with its source and its time.

The kinds have units of their own. A placement score, an obtainability and a stock are never added up, averaged or read
as a rate of loss: whoever shows them shows each as it was given. What nobody tells is missing, never zero.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from providers.errors import CredentialsError, StorageError
from providers.offers import Offer
from providers.web import WebRequest, ask

SignalKind = Literal[
    "quota",
    "placement_score",
    "obtainability",
    "interruption_band",
    "eviction_band",
    "uptime",
    "stock",
    "capacity",
    "spot_price",
]

#: What each kind means, for a person.
KINDS: dict[SignalKind, str] = {
    "quota": "what the account may rent at one time",
    "placement_score": "the seller's score for a request like this one, valid for some minutes",
    "obtainability": "the seller's chance, 0 to 1, that a request like this one is filled",
    "interruption_band": "the share of such machines that the seller took back in the month before, as a band",
    "eviction_band": "the seller's chance that such a machine is taken back within an hour, as a band",
    "uptime": "how long the seller expects such a machine to be kept, at least",
    "stock": "the seller's word for how much there is",
    "capacity": "whether, or how many, can be had now",
    "spot_price": "the market's price now",
}
_CLI_TIMEOUT_S = 30


class Wanted(NamedTuple):
    """So many machines of one offer."""

    offer: Offer
    nodes: int


class Signal(NamedTuple):
    """One figure.

    Attributes:
        kind: What it is; figures of different kinds, or of different units, are never compared.
        value: The figure or word as the source gave it.
        unit: Of a number, as in "vCPUs" or "of 10".
        text: For a person.
        source: Who says so.
        as_of_at: RFC 3339 UTC.
        enough: False if the machine cannot be had on this word alone, True if nothing in it stands against it, None
            if it does not decide.
        comparable: False if the source says of itself that the figure is low whatever the machine is like.
    """

    kind: SignalKind
    value: float | str
    unit: str
    text: str
    source: str
    as_of_at: str
    enough: bool | None = None
    comparable: bool = True


Signals = Mapping[Wanted, tuple[Signal, ...]]


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What a source is asked.

    Attributes:
        wanted: Machines of the source's cloud.
        environ: Environment variables.
        home: Where the cloud's own tools keep logins.
        now: UTC.
        url: Where to ask; empty for the source's own address.
    """

    wanted: tuple[Wanted, ...]
    environ: Mapping[str, str] = field(repr=False)
    home: Path
    now: datetime
    url: str = ""

    @property
    def now_text(self) -> str:
        """RFC 3339 UTC, whole seconds."""
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def regions(self) -> tuple[str, ...]:
        """The regions asked about, sorted."""
        return tuple(sorted({row.offer.region for row in self.wanted}))


class AvailabilitySource(NamedTuple):
    """Somebody who can be asked.

    Attributes:
        name: Short, for messages and the command line.
        cloud: As in offers.
        about: What it tells.
        read: Asks; raises a TuneplanError if it has no answer.
    """

    name: str
    cloud: str
    about: str
    read: Callable[[Inquiry], Signals]


class Answered(NamedTuple):
    """What became of asking one source.

    Attributes:
        problem: Why it told nothing, None if it answered.
        hint: What to do about that.
    """

    source: AvailabilitySource
    signals: Signals
    problem: str | None = None
    hint: str | None = None


def gathered(pairs: Iterable[tuple[Wanted, Signal]]) -> dict[Wanted, tuple[Signal, ...]]:
    """Signals by what they are about, in the order given."""
    found: dict[Wanted, tuple[Signal, ...]] = {}
    for wanted, signal in pairs:
        found[wanted] = (*found.get(wanted, ()), signal)
    return found


def get_json(url: str, token: str, *, body: Any = None, what: str) -> Any:
    """The JSON answer of a seller's server.

    Args:
        url: Where to ask.
        token: A bearer token, or empty where the server wants none.
        body: Posted as JSON; None is a GET.
        what: For messages, as in "RunPod".

    Raises:
        CredentialsError: The server refuses the login.
        StorageError: It cannot be reached, or does not answer as it should.
    """
    import json

    headers = {} if body is None else {"Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    answer = ask(WebRequest(url, headers=headers, secret=f"Bearer {token}" if token else None, body=data))
    if answer.status in (401, 403):
        raise CredentialsError(f"{what} refuses the login or lacks a right (HTTP {answer.status})")
    if answer.status != 200:
        raise StorageError(f"{what} answered {answer.status}", code="bad_answer")
    return answer.json(url)


def printed_by(command: tuple[str, ...], environ: Mapping[str, str], *, what: str, hint: str) -> str:
    """What a cloud's own tool prints, as a token does not lie in a file that anybody may read.

    Raises:
        CredentialsError: The tool is not there, or nobody is logged in.
    """
    try:
        done = subprocess.run(  # noqa: S603 (a fixed command line)
            command,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=_CLI_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        raise CredentialsError(f"there is no login for {what} here", hint=hint) from None
    if done.returncode != 0 or not done.stdout.strip():
        raise CredentialsError(f"nobody is logged in to {what} here", hint=hint)
    return done.stdout.strip()
