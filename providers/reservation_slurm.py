"""A partition of a Slurm cluster as a calendar: `scontrol` books, `sinfo` and `squeue` say what is free.

Slurm keeps a reservation's name unique, and ours is the token, so a booking is made once. It takes an operator's
right. Commands go to the login node over ssh, as SkyPilot's (`~/.slurm/config`), or run here; each word of them is
quoted for the shell at the other end, and none is a user's text. Times are asked for in UTC.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from providers.errors import CredentialsError, LaunchError
from providers.reservations import (
    Booking,
    PurchaseOrder,
    PurchaseRefusedError,
    PurchaseUnclearError,
    SlurmPlace,
    after_acceptance,
)

_TIMEOUT_S = 60.0
_LOST = 255  # ssh's own exit code: the connection failed or broke
_UTC = {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"}
#: Nodes in these states take no jobs.
_UNUSABLE = ("down", "drain", "fail", "maint", "unk", "future", "power", "no_resp", "inval")


Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


class SlurmCalendar:
    """Bookings of one partition.

    Args:
        place: Where.
        run: Runs a command; by default on the login node.
    """

    def __init__(self, place: SlurmPlace, run: Runner | None = None) -> None:
        """Nothing is asked yet."""
        self._place, self._run = place, run or _runner(place)

    def machines(self, most: int) -> int:
        """Nodes of the partition that take jobs, at most as many as the pool is said to have.

        Raises:
            CredentialsError, LaunchError: The cluster cannot be asked.
        """
        rows = self._ask("sinfo", "-h", "-N", "-p", self._place.partition, "-o", "%N %T").splitlines()
        usable = {row.split()[0] for row in rows if row.split() and not _unusable(row.split()[-1])}
        return min(most, len(usable))

    def bookings(self) -> list[Booking]:
        """Reservations of the partition, and what jobs outside of them hold of it."""
        return [*self._reservations(), *self._jobs()]

    def find(self, token: str) -> Booking | None:
        """Our reservation, None if Slurm knows none; it forgets one when its time is over."""
        return next((row for row in self._reservations(token) if row.token == token), None)

    def book(self, order: PurchaseOrder, now: datetime) -> Booking:
        """Make a reservation, once.

        Raises:
            PurchaseRefusedError: Slurm says no.
            PurchaseUnclearError: The connection broke.
        """
        offer, place = order.offer, self._place
        start = max(offer.start_at, now)  # Slurm takes no time that is over
        minutes = -(-round((offer.end_at - start).total_seconds()) // 60)
        words = {
            "ReservationName": order.token,
            "StartTime": "now" if start == now else f"{start.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
            "Duration": str(minutes),
            "NodeCnt": str(offer.nodes),
            "PartitionName": place.partition,
            "Users": place.user,
        }
        command = ["scontrol", "create", "reservation", *(f"{key}={value}" for key, value in words.items())]
        try:
            done = self._run(command)
        except (OSError, subprocess.TimeoutExpired) as error:
            if isinstance(error, FileNotFoundError):
                raise PurchaseRefusedError(f"{command[0]} could not be run: {error}") from error
            raise PurchaseUnclearError(
                f"nobody knows whether {place.cluster} made the reservation"
            ) from error
        if done.returncode == _LOST and not place.here:
            raise PurchaseUnclearError(f"the connection to {place.cluster} broke: {_said(done)}")
        with after_acceptance("make the reservation"):
            row = self.find(order.token)  # also when Slurm says that the name is taken
        if row is None:
            raise PurchaseRefusedError(f"Slurm refused the reservation: {_said(done) or 'it is not there'}")
        if (
            row.nodes < offer.nodes
        ):  # it reserves the nodes that a partition has, and says nothing of the others
            with after_acceptance("give back a reservation that is too small"):
                self.cancel(order.token)
            raise PurchaseRefusedError(
                f"Slurm reserved {row.nodes} of {offer.nodes} nodes of {place.partition}: given back"
            )
        return row

    def used(self, token: str) -> int:
        """Nodes of a reservation that jobs run on."""
        rows = self._ask("squeue", "-h", "-t", "RUNNING", "-R", token, "-o", "%D").split()
        return sum(int(row) for row in rows if row.isdigit())

    def cancel(self, token: str) -> None:
        """Delete a reservation.

        Raises:
            LaunchError: Slurm refuses, as while jobs run in it.
        """
        self._ask("scontrol", "delete", f"ReservationName={token}")

    def _reservations(self, name: str | None = None) -> list[Booking]:
        words = ["scontrol", "-o", "show", "reservation", *([] if name is None else [name])]
        text = self._ask(*words, missing="not found")
        rows = [_fields(line) for line in text.splitlines() if line.startswith("ReservationName=")]
        here = (self._place.partition, "(null)", "")
        return [_booking(row) for row in rows if row.get("PartitionName") in here]

    def _jobs(self) -> Iterator[Booking]:
        """A job without a known end is taken to hold its nodes for a year."""
        words = ("squeue", "-h", "-t", "RUNNING", "-p", self._place.partition, "-o", "%i|%S|%e|%D|%v")
        for line in self._ask(*words).splitlines():
            job, start, end, nodes, reservation = line.split("|")
            if reservation in ("(null)", ""):
                first = _moment(start) or datetime.now(UTC)
                yield Booking(
                    f"job-{job}", "", int(nodes), first, _moment(end) or first + timedelta(days=365)
                )

    def _ask(self, *command: str, missing: str | None = None) -> str:
        """What a command prints; nothing if it fails only because there is no such thing."""
        try:
            done = self._run(command)
        except (OSError, subprocess.TimeoutExpired) as error:
            hint = f"`{command[0]}` must run on the login node of {self._place.cluster}"
            raise LaunchError(f"Slurm cannot be asked: {error}", hint=hint, code="unreachable") from error
        said = _said(done)
        if done.returncode == 0:
            return done.stdout
        if missing is not None and missing in said.lower():
            return ""
        if ("ccess" in said and "denied" in said) or "ermission denied" in said:
            raise CredentialsError(
                f"Slurm does not permit `{' '.join(command[:3])}`: {said}",
                hint="reservations take Slurm's operator level",
            )
        raise LaunchError(f"`{' '.join(command[:3])}` failed: {said or f'exit {done.returncode}'}")


def _runner(place: SlurmPlace) -> Runner:
    def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        words, environ = list(command), {**os.environ, **_UTC}
        if not place.here:
            there = shlex.join(["env", *(f"{name}={value}" for name, value in _UTC.items()), *command])
            config = Path.home() / ".slurm" / "config"
            words = ["ssh", "-F", str(config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
            words += ["--", place.cluster, there]
        return subprocess.run(  # noqa: S603
            *(words,), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environ
        )

    return run


def _fields(line: str) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in line.split() if "=" in word)


def _booking(row: dict[str, str]) -> Booking:
    start, end = _moment(row["StartTime"]), _moment(row["EndTime"])
    if start is None or end is None:
        raise LaunchError(f"Slurm gives no times for reservation {row['ReservationName']}")
    name = row["ReservationName"]
    return Booking(name, name, int(row.get("NodeCnt") or 0), start, end)


def _moment(text: str) -> datetime | None:
    """A time as Slurm writes it in UTC; it also writes Unknown, NONE or N/A."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None


def _unusable(state: str) -> bool:
    return state.lower().startswith(_UNUSABLE) or state.endswith("*")


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stderr or done.stdout).split())[:300]
