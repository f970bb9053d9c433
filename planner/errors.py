"""Errors of planning and running. The whole tree is drawn in `providers.errors`."""

from __future__ import annotations

from dataclasses import dataclass

from providers.errors import TuneplanError, UsageError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in a file, with its place.

    Attributes:
        message: What is wrong, without the place.
        path: Dotted key, as in `method.rank`; empty for the whole file.
        file: File name as the user gave it.
        line: 1-based line, None if unknown.
        column: 1-based column, None if unknown.
        code: Stable machine-readable name, snake_case.
        hint: How to mend it.
        excerpt: The source line with a caret under the place, for a terminal.
    """

    message: str
    path: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    code: str = "invalid"
    hint: str | None = None
    excerpt: str | None = None

    def __str__(self) -> str:
        """`file:line:column: path: message`, leaving out what is unknown."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return ": ".join(part for part in (place, self.path, self.message) if part)


class SpecError(UsageError):
    """A file that a person wrote is wrong; carries every finding at once."""

    code = "spec"

    def __init__(self, findings: list[Finding]) -> None:
        """Keep all findings; the message is one line a finding."""
        super().__init__("\n".join(str(finding) for finding in findings))
        self.findings = findings


class NothingFitsError(TuneplanError):
    """No priced offer can hold the job: relax the spec as the nearest changes say."""

    exit_code = 3
    code = "nothing_fits"


class OverBudgetError(TuneplanError):
    """Over the budget, or the price moved since the plan: estimate again or raise the budget."""

    exit_code = 5
    code = "over_budget"


class CapReachedError(TuneplanError):
    """The run stopped at its cap after a committed checkpoint: resume with a raised cap."""

    exit_code = 8
    code = "cap_reached"


class PolicyError(TuneplanError):
    """The deadline or a policy forbids it: move the deadline or relax the policy."""

    exit_code = 9
    code = "policy"


class RunFailedError(TuneplanError):
    """The run ended in failure: read its log."""

    exit_code = 10
    code = "run_failed"


class RunCancelledError(TuneplanError):
    """The run was cancelled."""

    exit_code = 11
    code = "run_cancelled"


class QualityError(TuneplanError):
    """A model is worse than was asked for: look at the metrics, and use it or train it anew."""

    exit_code = 12
    code = "quality"
