"""Checks of this installation and its surroundings: coded findings, each with a way to mend it.

Nothing heavy is imported, nothing is asked over the network, and no secret is read: whether a credential is there
is seen from the name of a file or an environment variable alone.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from planner.config import Directories
from planner.credentials import CLOUDS, found_credentials, readable_by_others
from planner.extras import EXTRAS, installed_versions
from planner.filesystem import network_file_system
from planner.ledger_version import NEWEST_LEDGER, ledger_version
from planner.place_names import idle_overrides
from planner.places import Places
from planner.price_age import SECONDS_PER_DAY, price_age
from planner.price_overrides import PriceOverride
from planner.pricebook import open_pricebook
from providers.errors import StorageError, TuneplanError

Level = Literal["ok", "note", "warning", "blocking"]

_LEAST_PYTHON = (3, 11)
_GIB = 2.0**30
_LITTLE_DISK_GIB, _NO_DISK_GIB = 20.0, 0.5
#: No clock was before this when this version was made.
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        code: P001 ... , stable.
        subject: What was looked at.
        level: ok; note (something is not there that one may not need); warning; blocking.
        message: What was found.
        fix: What to do, None if nothing is to be done.
    """

    code: str
    subject: str
    level: Level
    message: str
    fix: str | None = None


def examine(
    directories: Directories,
    now: datetime,
    environ: Mapping[str, str],
    home: Path,
    max_price_age_s: float,
    overrides: Sequence[PriceOverride] = (),
) -> list[Check]:
    """Every check, in the order of their codes.

    Args:
        directories: Where tuneplan keeps its files.
        now: UTC.
        environ: Environment variables; only their names matter.
        home: Where the clouds' own tools keep credentials.
        max_price_age_s: Older prices are warned about.
        overrides: Your own prices.
    """
    return [
        _python(),
        _platform(),
        _clock(now, directories.state),
        *_state(directories.state),
        _ledger(Places(directories.state).ledger),
        _disk(directories.state),
        *_prices(directories.cache, now, max_price_age_s),
        *_overrides(directories.cache, overrides),
        *_extras(),
        *_credentials(environ, home),
    ]


def _python() -> Check:
    version = sys.version_info
    text = f"{version.major}.{version.minor}.{version.micro} at {sys.executable}"
    if version[:2] < _LEAST_PYTHON:
        return Check("P001", "python", "blocking", text, "install Python 3.11 or newer")
    return Check("P001", "python", "ok", text)


def _platform() -> Check:
    if os.name != "posix":
        fix = "launch from Linux, macOS or WSL"
        return Check(
            "P002", "platform", "warning", f"{sys.platform}: estimates work, launching does not", fix
        )
    return Check("P002", "platform", "ok", sys.platform)


def _clock(now: datetime, state: Path) -> Check:
    """A clock that is behind makes prices from the future and deadlines wrong."""
    if now < _BUILT:
        return Check("P003", "clock", "blocking", f"it says {now:%Y-%m-%d %H:%M} UTC", "set the clock")
    ledger = Places(state).ledger
    if ledger.exists() and ledger.stat().st_mtime > now.timestamp() + 300:
        message = f"it says {now:%Y-%m-%d %H:%M} UTC, the run database was written later"
        return Check("P003", "clock", "warning", message, "set the clock")
    return Check("P003", "clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")


def _state(state: Path) -> Iterator[Check]:
    place = _nearest(state)
    if not os.access(place, os.W_OK | os.X_OK):
        fix = "make it writable, or set PLAN_HOME to a directory that is"
        yield Check("P010", "state directory", "blocking", f"{place} is not writable", fix)
        return
    network = network_file_system(place)
    if network is not None:
        message = f"{state} lies on a network file system ({network}), where the run database can be damaged"
        fix = "set PLAN_HOME to a directory on a local disk"
        yield Check("P011", "state directory", "blocking", message, fix)
        return
    if os.name == "posix" and state.exists() and stat.S_IMODE(state.stat().st_mode) & 0o022:
        fix = f"chmod go-w {state}"
        yield Check("P012", "state directory", "warning", f"others may write to {state}", fix)
        return
    yield Check("P010", "state directory", "ok", str(state))


def _ledger(path: Path) -> Check:
    """Reads only: a doctor migrates nothing."""
    if not path.exists():
        return Check("P020", "run database", "ok", "none yet")
    try:
        version = ledger_version(path)
    except StorageError as error:
        fix = f"move {path} away, or restore it from a backup"
        return Check("P022", "run database", "blocking", error.message, fix)
    if version > NEWEST_LEDGER:
        fix = "upgrade tuneplan; the file is left as it is"
        return Check("P021", "run database", "blocking", f"a newer tuneplan wrote {path}", fix)
    return Check("P020", "run database", "ok", f"{path}, version {version}")


def _disk(state: Path) -> Check:
    place = _nearest(state)
    free_gib = shutil.disk_usage(place).free / _GIB
    text = f"{free_gib:.1f} GiB free at {place}"
    fix = "free some space, or set PLAN_HOME to a larger disk"
    if free_gib < _NO_DISK_GIB:
        return Check("P030", "disk", "blocking", text, fix)
    if free_gib < _LITTLE_DISK_GIB:
        return Check("P031", "disk", "warning", f"{text}: local runs and checkpoints need room", fix)
    return Check("P030", "disk", "ok", text)


def _prices(cache: Path, now: datetime, max_age_s: float) -> Iterator[Check]:
    try:
        book = open_pricebook(cache)
    except TuneplanError as error:
        yield Check("P040", "prices", "blocking", error.message, error.hint or "plan prices update")
        return
    age = price_age(book.snapshot.offers, now, max_age_s)
    total = len(book.snapshot.offers)
    text = f"{total:,} offers ({book.origin}), newest of {(age.newest_as_of_at or 'unknown')[:10]}"
    if age.stale:
        days = max_age_s / SECONDS_PER_DAY
        message = f"{text}: {age.stale:,} older than {days:g} days or undated"
        yield Check("P041", "prices", "warning", message, "plan prices update")
    else:
        yield Check("P040", "prices", "ok", text)
    partial = [cover.cloud for cover in book.snapshot.coverage if not cover.complete]
    if partial:
        message = f"known in part only: {', '.join(partial)}"
        yield Check("P042", "price coverage", "note", message, "plan prices update")


def _overrides(cache: Path, overrides: Sequence[PriceOverride]) -> Iterator[Check]:
    """Your own prices that change nothing."""
    try:
        idle = list(idle_overrides(overrides, open_pricebook(cache).snapshot)) if overrides else []
    except TuneplanError:
        return  # said of the prices themselves
    for number, why in idle:
        message = f"prices.overrides {number + 1} matches no offer: {why}"
        yield Check("P043", "own prices", "warning", message, "correct it in config.yaml, or take it out")


def _extras() -> Iterator[Check]:
    for index, extra in enumerate(EXTRAS):
        code, subject = f"P{index // 10}5{index % 10}", f"[{extra.name}]"
        versions = installed_versions(extra)
        missing = [name for name, version in versions.items() if version is None]
        there = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
        if missing:
            message = f"not installed: {', '.join(missing)}; needed for {extra.unlocks}"
            yield Check(code, subject, "note", message, f"pip install 'tuneplan[{extra.name}]'")
        else:
            yield Check(code, subject, "ok", f"{there}: {extra.unlocks}")


def _credentials(environ: Mapping[str, str], home: Path) -> Iterator[Check]:
    for cloud in CLOUDS:
        names = found_credentials(cloud, environ, home)
        open_files = readable_by_others(cloud, home)
        if open_files:
            message = f"others may read {', '.join(open_files)}"
            yield Check("P061", cloud.name, "warning", message, f"chmod go= {' '.join(open_files)}")
        elif names:
            yield Check("P060", cloud.name, "ok", f"credentials by name: {', '.join(names)}")
        else:
            yield Check("P060", cloud.name, "note", "no credentials", cloud.login)


def _nearest(path: Path) -> Path:
    """The path, or its innermost parent that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def worst(checks: Iterable[Check]) -> Level:
    """The gravest level among checks.

    >>> worst([Check("P001", "x", "ok", ""), Check("P002", "y", "warning", "")])
    'warning'
    """
    order: tuple[Level, ...] = ("ok", "note", "warning", "blocking")
    return max((check.level for check in checks), key=order.index, default="ok")
