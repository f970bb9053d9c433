"""Which weights are handed over: the last, or those of the best evaluation."""

from __future__ import annotations

from jobs.attempt import Attempt
from jobs.committed import fetch_files
from jobs.console import say
from jobs.manifest import Manifest
from jobs.scoring import Scoring
from jobs.training import Training
from providers.errors import CorruptDataError


def load_best(attempt: Attempt, training: Training, scoring: Scoring, last: int) -> int:
    """Load the weights that are handed over, if they are not the last; their step.

    Every process of the training must call this.

    Raises:
        Stopped: The store stayed away.
        StorageError: The store or the disk failed.
    """
    if attempt.job.evaluate.choose == "last" or scoring.is_best(last):
        return last
    group, target = attempt.group, attempt.work / "best"
    found = group.share(_fetched(attempt) if group.leads else None)
    wanted = scoring.standing.best
    if wanted is not None and (found is None or found.step != wanted.step):
        say(f"step {wanted.step} has the best evaluation, but no intact checkpoint of it is committed")
    if found is None or scoring.best_of(found.step, last) == last:
        say(f"handing over the last step, {last}")
        return last
    if group.leads_machine and not group.leads:
        manifest = found
        attempt.insist(lambda: fetch_files(attempt.store, manifest, target))
    group.wait()
    training.trainer._load_from_checkpoint(str(target))
    which = "the best evaluation" if wanted is None or found.step == wanted.step else "the best of those left"
    say(f"handing over step {found.step}, {which}; training ended at step {last}")
    return found.step


def _fetched(attempt: Attempt) -> Manifest | None:
    """The committed checkpoint that was the best when it was committed, on this machine's disk."""
    try:
        return attempt.insist(lambda: attempt.checkpoints.fetch_best(attempt.work / "best"))
    except CorruptDataError as error:
        say(f"the best checkpoint is damaged: {error.message}")
        return None
