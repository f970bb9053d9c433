"""What `plan estimate` shows: the answer, and what was asked for beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from planner.answer import Answer
from planner.cli.estimate_table import render_estimate, render_job, render_nearest
from planner.intake import Overrides
from planner.specfile import LoadedSpec
from planner.whatif import WhatIf, other_gpus, what_if
from providers.offers import PriceSnapshot

if TYPE_CHECKING:
    from planner.tracing import Traced

Changes = tuple[tuple[WhatIf, ...], tuple[WhatIf, ...]]


class Views(NamedTuple):
    """An answer with its views.

    Attributes:
        answer: The answer.
        explain: Candidate to explain, None for none.
        changes: What single changes and other GPUs would do, None if not asked.
        plot: Draw in the terminal.
        traced: A traced step of the best candidate, None if not asked.
    """

    answer: Answer
    explain: str | None
    changes: Changes | None
    plot: bool
    traced: Traced | None = None

    def document(self) -> dict[str, Any]:
        """The JSON answer, with further keys for what was asked."""
        found = self.answer.document()
        if self.explain is not None and self.answer.estimate.candidates:
            from planner.explain import explain, explanation_document

            found["explanation"] = explanation_document(explain(self.answer.estimate, self.explain))
        if self.changes is not None:
            from planner.cli.why_text import what_if_document

            names = ("relaxations", "other_gpus")
            for name, rows in zip(names, self.changes, strict=True):
                found[name] = [what_if_document(row) for row in rows]
        if self.traced is not None:
            found["trace"] = self.traced.document()
        return found

    def text(self, limit: int, width: int) -> str:
        """The text answer.

        Args:
            limit: Rows of the table, 0 for all.
            width: Columns of the terminal.
        """
        return "\n\n".join([*self._main(limit, width), *self._more(width)])

    def _main(self, limit: int, width: int) -> Iterator[str]:
        """The table, or the explanation in its place."""
        estimate, spec = self.answer.estimate, self.answer.spec
        if self.explain is not None and estimate.candidates:
            from planner.cli.explain_text import render_explanation
            from planner.explain import explain

            yield render_job(estimate, spec)
            yield render_explanation(explain(estimate, self.explain), width)
            return
        yield render_estimate(estimate, spec, rows=limit or len(estimate.candidates), width=width)
        if not estimate.candidates:
            yield render_nearest(self.answer.nearest)

    def _more(self, width: int) -> Iterator[str]:
        if self.traced is not None:
            yield self.traced.text()
        if self.plot:
            from planner.cli.terminal_plot import plot_in_terminal

            yield plot_in_terminal(self.answer.estimate, width)
        if self.changes is not None:
            from planner.cli.why_text import render_changes, render_rejected

            yield render_rejected(self.answer.estimate.rejected)
            if self.answer.estimate.candidates:
                changes, gpus = self.changes
                yield render_changes("what one change would do to the best candidate", changes)
                yield render_changes("and another GPU", gpus)


def what_if_changes(loaded: LoadedSpec, snapshot: PriceSnapshot, answer: Answer, fixed: Overrides) -> Changes:
    """Single changes of the spec and other GPUs against the best candidate; empty if there is none."""
    estimate = answer.estimate
    if not estimate.candidates:
        return (), ()
    return what_if(answer.spec, loaded.base_dir, snapshot, estimate, overrides=fixed), other_gpus(estimate)
