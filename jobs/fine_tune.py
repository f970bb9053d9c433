"""The stages of one fine-tuning: data, base, training, evaluation, the finished model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jobs.adapter_config import tidy_adapter
from jobs.attempt import RESTORED, Attempt
from jobs.base_model import BaseKeeper, bring_base
from jobs.build import built
from jobs.checkpoint import Restored
from jobs.choice import load_best
from jobs.committed import fetch_files, read_manifest
from jobs.console import say
from jobs.data import Examples, data_hashes, load_examples
from jobs.disk import is_full_disk
from jobs.evaluate import metric_of
from jobs.frameworks import import_frameworks
from jobs.history import History
from jobs.inputs import bring_inputs
from jobs.model import model_class, save_processor, save_tokenizer
from jobs.output_copy import copy_output
from jobs.parts import Parts, PartSender
from jobs.patience import Patience, why_not_waited
from jobs.pinned_data import pin_data
from jobs.preemption import Stopped
from jobs.progress import CheckpointRef, MetricResult
from jobs.pulse import Pulse
from jobs.resume import check_resumable
from jobs.scoring import Scoring
from jobs.sharded import Sharding
from jobs.trackers import open_tracker
from jobs.tracking import Tracking
from jobs.trainer import TrainingOver, after_first_step, attach
from jobs.training import Training
from jobs.uploader import OnCommit, Uploader
from providers.errors import StorageError

_SWEEP_GRACE_S = 3600.0
_HURRY_S = 10.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What is handed over beside the weights.

    Attributes:
        step: Whose weights they are.
        last: Step that training ended at.
        metrics: Of base and tuned.
        labels: Class names by index.
        data_sha256: Of the data as it was read, by use.
        history: Losses and evaluations.
    """

    step: int
    last: int
    metrics: tuple[MetricResult, ...]
    labels: tuple[str, ...]
    data_sha256: dict[str, str]
    history: History


def fine_tune(attempt: Attempt) -> str | None:
    """Train a job to its end and commit the finished model.

    Returns:
        Why training ended before its last step, or did not begin; None if it did not end early.

    Raises:
        Stopped: It had to stop early, after a checkpoint if there was time for one.
        TuneplanError: It cannot go on.
    """
    job = attempt.job
    installed_s = _installed_s(attempt.base)
    if installed_s is not None:
        attempt.clock.add("environment", installed_s)
    with attempt.stage("download", "loading"):
        if attempt.group.leads_machine:
            attempt.insist(lambda: bring_inputs(job.inputs, attempt.base))
        attempt.group.wait()
        attempt = bring_base(attempt)
    with attempt.stage("data"):
        examples = load_examples(
            job.data,
            job.task,
            attempt.base,
            eval_samples=job.evaluate.samples,
            guard=job.evaluate.guard,
        )
        metric = metric_of(job, examples.format)
        hashes = data_hashes(job.data, attempt.base)
        say(f"{len(examples.train)} examples to learn from, {len(examples.eval)} held out")
    with attempt.stage("setup"):
        import_frameworks(job)
    with attempt.stage("download"):
        restored = _restore(attempt)
    training = _build(attempt, examples)
    pin_data(attempt, hashes)
    keeper = BaseKeeper(attempt.job, attempt.store) if attempt.group.leads else None
    if job.train.sharding == "fsdp":
        Sharding(training.trainer, attempt.group)
    scoring = Scoring(attempt, training, metric)
    scoring.score_base()
    enough = scoring.base_meets_goal()
    if enough is not None:
        return enough
    if restored is not None:
        scoring.go_on(History.read(attempt.work / RESTORED))
    with _tracked(attempt, scoring) as tracking:
        last = _train(attempt, training, restored, scoring, tracking, keeper)
        step = load_best(attempt, training, scoring, last)
        metrics = scoring.score_tuned(step)
        done = Finished(step, last, metrics, examples.label_names, hashes, scoring.history)
        _hand_over(attempt, training, done)
    if keeper is not None:
        keeper.drop()
    return scoring.standing.ended


@contextmanager
def _tracked(attempt: Attempt, scoring: Scoring) -> Iterator[Tracking | None]:
    """What tells the job's tracker, None without one; rank 0 speaks for all."""
    kind = attempt.job.track
    if kind is None or not attempt.group.leads:
        yield None
        return
    tracking = Tracking(partial(open_tracker, kind, attempt.job, attempt.store, attempt.work))
    try:
        yield tracking
    except BaseException as error:
        state = "failed"
        if isinstance(error, Stopped):
            state = "capped" if error.kind == "capped" else "preempted"
        tracking.close(state, scoring.history, (), _HURRY_S)
        raise
    result = attempt.progress.document
    kept = result.guard is None or result.guard.passed
    tracking.close("done" if kept else "regressed", scoring.history, result.metrics)


def _installed_s(base: Path) -> float | None:
    """What `jobs/install.sh` took on this machine, None where it did not run."""
    try:
        return float((base / "env" / "seconds").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _restore(attempt: Attempt) -> Restored | None:
    checkpoints = attempt.checkpoints
    target, group, restored = attempt.work / RESTORED, attempt.group, None
    if group.leads:
        with suppress(StorageError):  # left-overs cost disk, they do not stop a run
            checkpoints.sweep(grace_s=_SWEEP_GRACE_S)
        restored = attempt.insist(lambda: checkpoints.restore(target, check_resumable))
    restored = group.share(restored)
    if restored is not None and group.leads_machine and not group.leads:
        manifest = restored.manifest
        attempt.insist(lambda: fetch_files(attempt.store, manifest, target))
    group.wait()
    if restored is None:
        say("no checkpoint yet: starting at step 0")
        return None
    for problem in restored.damaged:
        say(f"passed over a damaged checkpoint: {problem}")
    step = restored.manifest.step
    lost = max(0, attempt.earlier.step - step) if attempt.earlier else 0
    attempt.progress.update(
        step=step, resumed_from_step=step, lost_steps=attempt.progress.document.lost_steps + lost
    )
    say(f"resuming from step {step}, {lost} steps to do again")
    before = sum(entry.path.startswith("rng_state") for entry in restored.manifest.files)
    if before != group.size:
        say(
            f"{before} processes saved it, {group.size} go on: from the same rows, but not bit by bit as it would have"
        )
    return restored


def _build(attempt: Attempt, examples: Examples) -> Training:
    job, size = attempt.job, attempt.group.size
    return built(job, attempt.base, examples, attempt.work / "saving", size, attempt.stage)


def _train(
    attempt: Attempt,
    training: Training,
    restored: Restored | None,
    scoring: Scoring,
    tracking: Tracking | None,
    keeper: BaseKeeper | None,
) -> int:
    """Train to the end; the number of steps done."""
    group = attempt.group

    def committed(reference: CheckpointRef, seconds: float) -> None:
        _committed(attempt, reference, seconds)
        if keeper is not None:
            keeper.send()
        if tracking is not None:
            newest = attempt.checkpoints.head.newest or reference
            tracking.committed(scoring.history, newest.step)

    uploader, sender = _uploads(attempt, committed)
    pulse = Pulse(
        attempt.job.checkpoints, attempt.stop, attempt.progress, uploader or sender, training.tokens, group
    )
    attach(training.trainer, pulse, scoring)
    patience = None
    try:
        with attempt.stage("train"):
            step = _run_trainer(attempt, training.trainer, restored)
        patience = Patience(attempt.stop) if pulse.stopped is None else Patience(limit_s=_HURRY_S)
    except Exception as error:
        if pulse.is_saving and is_full_disk(error):
            raise _no_room(attempt) from error
        raise
    finally:
        attempt.clock.move("train", "save", pulse.save_seconds)
        if uploader:
            uploader.close(None if patience is None else patience.wait)
    if sender:  # only now: after an error nobody would let it end
        sender.close()
    if uploader and uploader.fenced:
        raise uploader.fenced
    done = group.share(uploader is not None and uploader.committed_step == step)
    if pulse.stopped:
        raise Stopped(*pulse.stopped, committed=done)
    _go_on_unless_away(attempt, uploader, committed=done)
    return step


def _go_on_unless_away(attempt: Attempt, uploader: Uploader | None, *, committed: bool) -> None:
    """End as if preempted where the store was waited for in vain already."""
    away = uploader.away if uploader else None
    given_up = attempt.group.share(None if away is None else why_not_waited(away, attempt.stop))
    if given_up is not None:
        raise Stopped(*given_up, committed=committed)


def _uploads(attempt: Attempt, committed: OnCommit) -> tuple[Uploader | None, PartSender | None]:
    """What commits, in the leading process; what sends this process's shards, in the others of a sharded training."""
    group = attempt.group
    sharded = attempt.job.train.sharding == "fsdp" and group.size > 1
    between = group.sibling() if sharded else group
    if group.leads:
        others = Parts(between) if sharded else None
        return Uploader(attempt.checkpoints, committed, _not_committed, others), None
    return None, PartSender(attempt.store, between) if sharded else None


def _no_room(attempt: Attempt) -> StorageError:
    step = attempt.progress.document.step
    message = f"no checkpoint of step {step} can be saved: the disk of this machine is full"
    hint = "free some disk space, or take a machine with a larger disk; committed checkpoints stand"
    return StorageError(message, hint=hint, code="disk_full")


def _run_trainer(attempt: Attempt, trainer: Any, restored: Restored | None) -> int:
    from transformers import set_seed

    set_seed(_seed_of(attempt))  # evaluating the base must not change what follows
    directory = None if restored is None else attempt.work / RESTORED
    if directory is not None and attempt.group.leads_machine:
        # only then: a slower process may still read its random state
        after_first_step(trainer, partial(shutil.rmtree, directory, ignore_errors=True))
    with suppress(TrainingOver):  # trained to the end, but not handed over
        trainer.train(resume_from_checkpoint=None if directory is None else str(directory))
    return int(trainer.state.global_step)


def _seed_of(attempt: Attempt) -> int:
    """Processes that sample answers to the same prompt must not sample the same ones."""
    own = attempt.group.rank if attempt.job.task == "grpo" else 0
    return attempt.job.train.seed + own


def _committed(attempt: Attempt, reference: CheckpointRef, seconds: float) -> None:
    attempt.clock.add("upload", seconds)
    attempt.stop.upload_s = max(attempt.stop.upload_s, seconds)
    newest = attempt.checkpoints.head.newest
    if newest is not None and newest.step == reference.step:  # the best one may come after a newer one
        attempt.progress.update(last_checkpoint=reference)
    mib = reference.bytes / (1 << 20)
    say(f"checkpoint of step {reference.step} committed: {mib:.1f} MiB in {seconds:.1f} s")


def _not_committed(error: StorageError) -> None:
    say(f"checkpoint not committed: {error.message}")


def _hand_over(attempt: Attempt, training: Training, done: Finished) -> None:
    """Commit the finished model, and copy it to where the job wants it."""
    output = attempt.work / "output"
    with attempt.stage("save", "saving"):
        training.trainer.save_model(str(output))  # together, where the model is sharded
    with attempt.stage("upload", "syncing"):
        if attempt.group.leads:
            save_tokenizer(training.trainer.processing_class, output)
            model = training.trainer.model
            if attempt.job.method.kind == "full":
                save_processor(attempt.job, attempt.base, model, output)
            auto_class = model_class(attempt.job, model.config).__name__
            _publish(attempt, output, done, auto_class)
        attempt.group.wait()


def _publish(attempt: Attempt, output: Path, done: Finished, auto_class: str) -> None:
    tidy_adapter(output, attempt.job)
    guard = attempt.progress.document.guard
    result = {
        "run_id": attempt.job.run_id,
        "step": done.step,
        "trained_steps": done.last,
        "metrics": [asdict(one) for one in done.metrics],
        "guard": None if guard is None else asdict(guard),
        "labels": list(done.labels),
        "auto_class": auto_class,
        "data_sha256": done.data_sha256,
    }
    (output / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    done.history.write(output)
    attempt.progress.update(output_step=done.step)
    attempt.progress.flush()  # what came of it is known before it counts as finished
    reference = attempt.insist(lambda: attempt.checkpoints.publish_output(output, done.last))
    attempt.progress.update(output_manifest_sha256=reference.manifest_sha256)
    if attempt.job.output.uri is not None:
        uri = attempt.job.output.uri
        attempt.insist(lambda: copy_output(output, uri))
    say(f"finished model committed: {reference.bytes / (1 << 20):.1f} MiB")


def copy_finished(attempt: Attempt) -> None:
    """Copy the finished model of an earlier attempt to where the job wants it: that one may have died before it did.

    Raises:
        CorruptDataError: A file of it is missing or damaged.
        StorageError: It cannot be read or copied.
    """
    uri, finished = attempt.job.output.uri, attempt.checkpoints.head.output
    if uri is None or finished is None or not attempt.group.leads:
        return
    output = attempt.work / "output"
    with attempt.stage("upload", "syncing"):
        attempt.insist(lambda: fetch_files(attempt.store, read_manifest(attempt.store, finished), output))
        attempt.insist(lambda: copy_output(output, uri))
