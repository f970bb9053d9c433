"""The trainer that samples answers and learns from their rewards: grpo."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from jobs.evaluate import Measure, Scores
from jobs.frameworks import exchanged
from jobs.ingredients import Ingredients
from jobs.rewards import Reward, exact_match, load_rewards
from jobs.spec_rules import prompt_piece
from jobs.training import Training
from providers.errors import UsageError

Judged = list[tuple[float, float | None]]


def build_grpo(of: Ingredients) -> Training:
    """Several sampled answers to each prompt, each judged against the mean of its group.

    A micro-batch is a number of answers, not of prompts; all answers of an optimizer step are sampled at once,
    so that a checkpoint never lies between sampling and learning.

    Raises:
        UsageError: A reward cannot be used, or the answers of a step do not make whole groups.
    """
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer import grpo_trainer

    rollout, rewards = of.job.rollout, load_rewards(of.job.rollout.rewards, of.train.column_names)
    rows = of.settings["per_device_train_batch_size"] * of.settings["gradient_accumulation_steps"]
    _need_whole_groups(of, rows * of.processes)
    pieces = _pieces(of, rows)
    settings = GRPOConfig(
        num_generations=rollout.generations,
        max_completion_length=rollout.completion_tokens,
        temperature=rollout.temperature,
        beta=rollout.beta,
        disable_dropout=not of.job.method.dropout,
        generation_kwargs=pieces,
        **of.settings,
    )
    # the frozen copy beside a full fine-tuning cannot be given to the trainer: it loads the job's own base
    with exchanged(grpo_trainer, "create_model_from_path", lambda *_, **__: of.reference()):
        trainer = GRPOTrainer(args=settings, reward_funcs=rewards, **of.of_trl())
    measure = Judge(of.tokenizer, rewards, rollout.completion_tokens, rows, pieces).measure()
    return Training(trainer, of.eval or {}, RolloutCounter(trainer), measure, lambda rows: {"rows": rows})


def _pieces(of: Ingredients, rows: int) -> dict[str, int]:
    """How `generate` takes the prompts."""
    longest = max(len(str(prompt)) for prompt in of.train["prompt"])  # a token is one character at least
    piece = prompt_piece(rows, longest, of.job.method.kind, in_shards="fsdp" in of.settings)
    return {} if piece is None else {"prefill_chunk_size": piece}


def _need_whole_groups(of: Ingredients, answers: int) -> None:
    if answers % of.job.rollout.generations:
        hint = "make train.global_batch a multiple of rollout.generations"
        message = f"{answers} answers a step do not make whole groups of {of.job.rollout.generations}"
        raise UsageError(message, hint=hint, code="bad_job", path="rollout.generations")


@dataclass(frozen=True, slots=True)
class RolloutCounter:
    """Counts this process's share of the tokens of prompts and answers that all have learned from."""

    trainer: Any

    @property
    def real(self) -> int:
        """Tokens, padding not counted."""
        return int(self.trainer._total_train_tokens) // int(self.trainer.accelerator.num_processes)

    @property
    def padded(self) -> int:
        """The trainer does not count padding."""
        return self.real


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores the most likely answer to each held-out prompt.

    Attributes:
        rewards: What is added up.
        completion_tokens: Longest answer.
        rows: Answers sampled at once: as many as for a step of the training, whose memory is there.
        pieces: How `generate` takes the prompts.
    """

    tokenizer: Any
    rewards: list[Reward]
    completion_tokens: int
    rows: int
    pieces: dict[str, int]

    def measure(self) -> Measure:
        """Mean reward, and exact match where the data has answers."""
        return Measure(self._of_batch, _total, lambda row: 1, most_rows=self.rows)

    def _of_batch(self, model: Any, batch: dict[str, Any]) -> Judged:
        rows = batch["rows"]
        completions = self._answers(model, [row["prompt"] for row in rows])
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        given = {"prompts": columns.pop("prompt"), "completions": completions, **columns}
        judged = [reward(**given) for reward in self.rewards]
        sums = [sum(value or 0.0 for value in values) for values in zip(*judged, strict=True)]
        exact = exact_match(completions, columns["answer"]) if "answer" in columns else [None] * len(rows)
        return list(zip(sums, exact, strict=True))

    def _answers(self, model: Any, prompts: list[Any]) -> list[Any]:
        talk = isinstance(prompts[0], list)
        texts = [self._as_text(prompt) if talk else prompt for prompt in prompts]
        side, self.tokenizer.padding_side = self.tokenizer.padding_side, "left"
        tokens = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not talk)
        self.tokenizer.padding_side = side
        tokens = tokens.to(model.device)
        made = model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            max_new_tokens=self.completion_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=self.tokenizer.pad_token_id,
            **self.pieces,
        )
        start = tokens["input_ids"].shape[1]
        answers = self.tokenizer.batch_decode(made[:, start:], skip_special_tokens=True)
        return [[{"role": "assistant", "content": text}] for text in answers] if talk else answers

    def _as_text(self, prompt: Any) -> str:
        return str(self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))


def _total(partial: list[Judged]) -> Scores:
    rows = [row for part in partial for row in part]
    values = {"reward": fmean(reward for reward, _ in rows)}
    exact = [found for _, found in rows if found is not None]
    if exact:
        values["exact_match"] = fmean(exact)
    return Scores(len(rows), values)
