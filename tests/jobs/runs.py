"""Starts, interrupts and inspects real training runs."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs import stop_request
from jobs.committed import fetch_files, read_head, read_manifest
from jobs.manifest import Head
from jobs.preemption import StopSignal
from jobs.progress import Progress, read_progress
from jobs.spec import CheckpointsJob, DataJob, EvaluateJob, JobSpec, MethodJob, ModelJob, TrainJob
from jobs.train import main, run
from providers.directory_store import DirectoryStore
from providers.errors import StorageError
from providers.stores import open_store
from tests.jobs.tiny_models import GOAT
from tests.jobs.zygote import Zygote

SFT_ROWS = 64


class Runs:
    """Runs below one directory, each with its own store."""

    def __init__(self, zygote: Zygote, root: Path) -> None:
        self.zygote = zygote
        self.root = root

    def sft(
        self, name: str, *, kind: str = "lora", steps: int = 24, every: int = 4, keep: int = 3
    ) -> JobSpec:
        """A short supervised fine-tuning with dropout and accumulation, over more than two epochs."""
        data = self.root / "data"
        data.mkdir(exist_ok=True)
        for file, rows in (("train.jsonl", SFT_ROWS), ("eval.jsonl", 20)):
            lines = (GOAT / file).read_text().splitlines()[:rows]
            (data / file).write_text("\n".join(lines) + "\n")
        return JobSpec(
            run_id=name,
            name="subtract",
            model=ModelJob("goat", path=str(GOAT / "base")),
            data=DataJob(str(data / "train.jsonl"), str(data / "eval.jsonl")),
            checkpoints=CheckpointsJob(self.store(name).uri, every_steps=every, keep=keep),
            method=MethodJob(kind=kind, rank=4, dropout=0.1),  # type: ignore[arg-type]
            train=TrainJob(
                steps=steps,
                sequence_length=32,
                micro_batch=4,
                grad_accum=2,
                learning_rate=1e-3,
                precision="fp32",
                gradient_checkpointing=False,
            ),
            evaluate=EvaluateJob("exact_match"),
        )

    def store(self, name: str) -> DirectoryStore:
        """The run's store."""
        return DirectoryStore(self.root / name / "store")

    def start(self, job: JobSpec, function: str = "jobs.train:main") -> int:
        """Start an attempt; its pid."""
        directory = self.root / job.run_id
        directory.mkdir(exist_ok=True)
        (directory / "job.json").write_text(job.to_json())
        return self.zygote.start(function, [str(directory / "job.json")], self.log_path(job.run_id))

    def start_together(
        self, job: JobSpec, processes: int, function: str = "tests.jobs.runs:train_as_rank"
    ) -> list[int]:
        """Start an attempt of several processes; their pids, the leader's first."""
        directory = self.root / job.run_id
        directory.mkdir(exist_ok=True)
        (directory / "job.json").write_text(job.to_json())
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = str(taken.getsockname()[1])
        given = [str(directory / "job.json")]
        log = self.log_path(job.run_id)
        return [
            self.zygote.start(function, [*given, str(rank), str(processes), port], log)
            for rank in range(processes)
        ]

    def finish(self, job: JobSpec) -> int:
        """Run an attempt to its end; the exit code."""
        return self.zygote.wait(self.start(job))

    def complete(self, job: JobSpec) -> Progress:
        """Run an attempt that must succeed."""
        code = self.finish(job)
        assert code == 0, self.log(job.run_id)
        return self.progress(job.run_id)

    def interrupt(
        self,
        job: JobSpec,
        when: Callable[[], bool],
        how: signal.Signals = signal.SIGKILL,
        function: str = "jobs.train:main",
    ) -> int:
        """Start an attempt and send it a signal at the first moment the condition holds, unless it ends first.

        Returns:
            The exit code.
        """
        return self.stop_when(self.start(job, function), when, how)

    def stop_when(self, pid: int, when: Callable[[], bool], how: signal.Signals = signal.SIGKILL) -> int:
        """Send an attempt a signal at the first moment the condition holds, unless it ends first; the exit code."""
        while not when() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.002)
        os.kill(pid, how)
        return self.zygote.wait(pid)

    def log_path(self, name: str) -> Path:
        """What the run's attempts wrote."""
        return self.root / name / "log"

    def log(self, name: str) -> str:
        """Text of all attempts, empty before the first line."""
        path = self.log_path(name)
        return path.read_text() if path.exists() else ""

    def head(self, name: str) -> Head:
        """HEAD, empty before the first attempt."""
        return read_head(self.store(name)) or Head()

    def newest_step(self, name: str) -> int:
        """Newest committed step, 0 if there is none."""
        newest = self.head(name).newest
        return newest.step if newest else 0

    def progress(self, name: str) -> Progress:
        """What the run last said."""
        found = read_progress(self.store(name))
        assert found is not None
        return found

    def output(self, name: str) -> Path:
        """The finished model, verified and put into a directory."""
        store, pointer = self.store(name), self.head(name).output
        assert pointer is not None
        target = self.root / name / "fetched"
        fetch_files(store, read_manifest(store, pointer), target)
        return target

    def weights(self, name: str) -> str:
        """Hash of the finished model's weights."""
        files = sorted(self.output(name).glob("*.safetensors"))
        assert files
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def train_on_a_jumping_clock(arguments: list[str]) -> int:
    """Train by a clock that shows a second until the first checkpoint is committed, then half an hour."""
    path = Path(arguments[0])
    job = JobSpec.load(path)
    store = open_store(job.checkpoints.uri)

    class JumpingClock(StopSignal):
        def elapsed_s(self) -> float:
            head = read_head(store)
            return 1800.0 if head is not None and head.checkpoints else 1.0

    return run(job, path.parent, path.parent / "work", JumpingClock(job.limits, time.monotonic()))


def train_looking_often(arguments: list[str]) -> int:
    """Train, and look for a stop request at once whenever there may be one."""
    stop_request.POLL_S = 0.01
    return main(arguments)


def train_as_rank(arguments: list[str]) -> int:
    """Train as one process of several: job.json, rank, processes, port."""
    job, rank, size, port = arguments
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update(told, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    return main([job])


def train_as_rank_that_breaks(arguments: list[str]) -> int:
    """As `train_as_rank`; process 1 fails by itself once it has asked ten times whether to stop."""
    reason, asked = StopSignal.reason, []

    def breaks(stop: StopSignal) -> Any:
        asked.append(stop)
        if arguments[1] == "1" and len(asked) > 10:
            raise ZeroDivisionError("as the test wants it")
        return reason(stop)

    StopSignal.reason = breaks  # type: ignore[method-assign]
    return train_as_rank(arguments)


def train_measuring_slowly(arguments: list[str]) -> int:
    """Train, alone or as a rank, where an evaluation has a batch for each row.

    At the step in `slow` beside the job, each of them is told of and takes a while.
    """
    from jobs import evaluate
    from jobs.scoring import Scoring

    evaluate._BATCH_BYTES = 1
    slow, at = Path(arguments[0]).with_name("slow").read_text(), {"step": "0", "batches": 0}
    move = evaluate.moved

    def slowly(*words: Any) -> Any:
        if at["step"] == slow:
            at["batches"] += 1  # type: ignore[operator]
            print(f"batch {at['batches']} at step {slow}", flush=True)
            time.sleep(0.1)
        return move(*words)

    def known(method: Callable[..., Any]) -> Callable[..., Any]:
        def score(self: Any, *words: Any) -> Any:
            at["step"] = str(words[0] if words else self.history.unmeasured)
            return method(self, *words)

        return score

    evaluate.moved = slowly
    for name in ("score_if_due", "score_unmeasured", "score_tuned"):
        setattr(Scoring, name, known(getattr(Scoring, name)))
    return main(arguments) if len(arguments) == 1 else train_as_rank(arguments)


def train_on_a_rented_machine(arguments: list[str]) -> int:
    """Train where the metadata server is the one named beside the job, and asked all the time."""
    from jobs import notices

    os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = Path(arguments[0]).with_name("metadata").read_text()
    os.environ.pop("AWS_EC2_METADATA_DISABLED", None)
    notices.POLL_S = 0.01
    return main(arguments)


def train_on_a_small_disk(arguments: list[str]) -> int:
    """Train where the disk has room for what is restored, but for no optimizer once training began."""
    import resource

    from jobs import fine_tune

    train = fine_tune._run_trainer

    def on_a_small_disk(*words: Any) -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))
        return train(*words)

    fine_tune._run_trainer = on_a_small_disk
    return main(arguments)


def train_while_the_store_comes_and_goes(arguments: list[str]) -> int:
    """Train where the store is away when the attempt begins, and again once it is trained.

    `away.json` beside the job says for how many requests at each time, and how many seconds the worker waits; it may
    be away from the last checkpoint on, too.
    """
    from jobs import attempt, fine_tune, patience
    from jobs.uploader import Uploader

    told = json.loads(Path(arguments[0]).with_name("away.json").read_text())
    left = {"requests": told["at_begin"]}
    patience.FIRST_WAIT_S, patience.LIMIT_S = 0.01, told["patience_s"]
    attempt._HURRY_S = 0.1

    def away(method: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*words: Any, **named: Any) -> Any:
            if left["requests"] > 0:
                left["requests"] -= 1
                raise StorageError("nobody answers", code="unreachable")
            return method(*words, **named)

        return asked

    for name in ("put_file", "put_if_absent", "compare_and_swap", "get", "get_file", "put", "delete"):
        setattr(DirectoryStore, name, away(getattr(DirectoryStore, name)))
    hand_over = fine_tune._hand_over

    def at_the_end(*words: Any) -> None:
        left["requests"] = told["at_end"]
        hand_over(*words)

    fine_tune._hand_over = at_the_end
    submit = Uploader.submit

    def at_the_last(self: Any, directory: Path, step: int, **named: Any) -> None:
        if step == told.get("last_step"):
            left["requests"] = 10**6
        submit(self, directory, step, **named)

    Uploader.submit = at_the_last  # type: ignore[method-assign]
    return main(arguments)


def train_where_commits_fail(arguments: list[str]) -> int:
    """Train; `failing.json` beside the job says how often the commit of each step fails."""
    from jobs.checkpoint import CheckpointStore

    left = json.loads(Path(arguments[0]).with_name("failing.json").read_text())
    publish = CheckpointStore.publish

    def failing(self: Any, directory: Path, step: int, **named: Any) -> Any:
        if left.get(str(step), 0) > 0:
            left[str(step)] -= 1
            raise StorageError("nobody answers", code="unreachable")
        return publish(self, directory, step, **named)

    CheckpointStore.publish = failing  # type: ignore[method-assign]
    return main(arguments)


def train_where_no_commit_is_repeated(arguments: list[str]) -> int:
    """The same, where a commit that failed is given up."""
    from jobs.uploader import Uploader

    Uploader._later = lambda *_: None  # type: ignore[method-assign, assignment]
    return train_where_commits_fail(arguments)


def train_and_die_once_finished(arguments: list[str]) -> int:
    """Train, and be killed as soon as the finished model is committed."""
    from jobs.checkpoint import CheckpointStore

    publish_output = CheckpointStore.publish_output

    def and_die(*words: Any) -> Any:
        publish_output(*words)
        os.kill(os.getpid(), signal.SIGKILL)

    CheckpointStore.publish_output = and_die  # type: ignore[method-assign]
    return main(arguments)


def train_until_the_loss_is_nan(arguments: list[str]) -> int:
    """Train; the loss of the seventh step is no number."""
    from trl import SFTTrainer

    compute = SFTTrainer.compute_loss

    def spoiled(self: Any, *words: Any, **named: Any) -> Any:
        loss = compute(self, *words, **named)
        return loss * float("nan") if self.state.global_step == 6 else loss

    SFTTrainer.compute_loss = spoiled
    return main(arguments)


def train_with_a_scaler(arguments: list[str]) -> int:
    """Train as on a GPU in fp16, which scales the loss; the scale grows every third step."""
    import torch
    from accelerate import Accelerator

    begin = Accelerator.__init__

    def scaled(self: Any, *words: Any, **named: Any) -> None:
        begin(self, *words, **named)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)

    Accelerator.__init__ = scaled
    return main(arguments)


def train_from_the_hubs_cache(arguments: list[str]) -> int:
    """Train where the Hub's files are those below `hub` beside the job, and no others."""
    from huggingface_hub import constants

    constants.HF_HUB_CACHE = str(Path(arguments[0]).with_name("hub"))
    return main(arguments)


def train_on_a_fresh_machine(arguments: list[str]) -> int:
    """Train where the Hub is the one in `machine.json` beside the job, and nothing of it is here yet."""
    from huggingface_hub import constants

    told = json.loads(Path(arguments[0]).with_name("machine.json").read_text())
    os.environ.update(told["environment"])
    constants.HF_HUB_CACHE = told["cache"]
    constants.HF_HUB_OFFLINE = False
    constants.HUGGINGFACE_CO_URL_TEMPLATE = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(
        constants.ENDPOINT, told["hub"]
    )
    constants.ENDPOINT = told["hub"]
    return main(arguments)


def renamed(runs: Runs, job: JobSpec, name: str) -> JobSpec:
    """The same job as a run of its own."""
    checkpoints = replace(job.checkpoints, uri=runs.store(name).uri)
    return replace(job, run_id=name, checkpoints=checkpoints)
