"""The errors a person can act on, shared by every layer.

Each class names one action; `exit_code` is what `plan` ends with. The whole tree::

    TuneplanError                1   report it: this is a bug
    ├── UsageError               2   correct the command, spec or file
    │   ├── MissingExtraError    2   pip install the extra
    │   └── SpecError            2   correct the spec (planner.errors: carries file, line, column)
    ├── NothingFitsError         3   relax the spec (planner.errors)
    ├── CredentialsError         4   log in, or grant the permission
    ├── OverBudgetError          5   raise the budget, or estimate again (planner.errors)
    ├── LaunchError              6   look at the reason, then launch again
    ├── CleanupPendingError      7   money may be running: run the named command
    ├── CapReachedError          8   raise the cap and resume (planner.errors)
    ├── PolicyError              9   move the deadline, or relax the policy (planner.errors)
    ├── RunFailedError          10   read the run's log (planner.errors)
    ├── RunCancelledError       11   resume it if that was not meant (planner.errors)
    ├── QualityError            12   look at the metrics (planner.errors)
    └── StorageError             1   the object store or the disk refused
        ├── CorruptDataError     1   stored bytes do not match their hash
        ├── StoreAccessError     4   as CredentialsError, which it is too
        └── FencedError          1   a newer attempt owns the run (jobs.checkpoint)
"""

from __future__ import annotations


class TuneplanError(Exception):
    """Base of all errors that tuneplan raises on purpose.

    Args:
        message: One sentence, no full stop, what happened and where.
        hint: What the person can do about it, a sentence or a command.
        code: Stable machine-readable name, snake_case.
        path: File or dotted key that is meant, if there is one.
    """

    exit_code: int = 1
    code: str = "internal"

    def __init__(
        self, message: str, *, hint: str | None = None, code: str | None = None, path: str | None = None
    ) -> None:
        """Keep the message and what goes with it."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = path
        if code is not None:
            self.code = code


class UsageError(TuneplanError):
    """The command, spec or a file of the user's is wrong: correct it."""

    exit_code = 2
    code = "usage"


class MissingExtraError(UsageError):
    """An optional dependency is not installed: run the pip line in the hint."""

    code = "missing_extra"

    def __init__(self, extra: str, needed_for: str) -> None:
        """Name the extra and what it is needed for."""
        super().__init__(
            f"{needed_for} needs the optional dependencies [{extra}]", hint=f"pip install 'tuneplan[{extra}]'"
        )
        self.extra = extra


class CredentialsError(TuneplanError):
    """No credentials, or not enough rights: log in or grant the permission."""

    exit_code = 4
    code = "credentials"


class LaunchError(TuneplanError):
    """The job could not be started: nothing is running, launch again after mending the cause."""

    exit_code = 6
    code = "launch_failed"


class CleanupPendingError(TuneplanError):
    """Something may still cost money: run the command in the hint."""

    exit_code = 7
    code = "cleanup_pending"


class StorageError(TuneplanError):
    """The object store or the disk refused an operation."""

    code = "storage"


class StoreAccessError(CredentialsError, StorageError):
    """The object store refused the login: what can go on without the store does, else log in."""


class CorruptDataError(StorageError):
    """Stored bytes do not match their recorded size or hash: never use them."""

    code = "corrupt_data"
