"""The commented `spec.yaml` that `plan init` writes."""

from __future__ import annotations

import json
import re

SCHEMA_FILE = ".tuneplan-schema.json"
_SIMPLE = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*", re.ASCII)

_TEMPLATE = """\
# yaml-language-server: $schema=./@SCHEMA@
#
# What to fine-tune, on what, until when and for how much.
#   plan estimate @FILE@      will it fit, on what, how long, how much
#   plan launch @FILE@        run it
#   plan schema               every key there is
# Paths are relative to this file. What is commented out shows the default or an example.
spec_version: 1
name: @NAME@
# project: default
# labels: {team: research}

model: @MODEL@              # Hugging Face id, or a directory with config.json

method:
  kind: lora                # full, lora, qlora (lora on a 4-bit base), dora, rslora, ia3, ...
  rank: 16
  # alpha: 32               # default 2 x rank
  targets: all-linear       # or attention, or [q_proj, v_proj]
# quantization: none        # of the frozen base: none, 8bit, 4bit, fp8

task: sft                   # sft, classification, dpo, reward, kto, grpo

data:
@DATA@
  # eval: eval.jsonl        # held-out examples, same format
  # format: auto            # prompt_completion, messages, text, label, preference, ...

train:
  epochs: 1                 # or steps: 1000
  sequence_length: 2048     # tokens; longer examples are cut
  packing: false            # fill each row with several examples
  global_batch: 16          # examples between optimizer steps, over all GPUs
  micro_batch: auto         # examples a GPU holds at once
  learning_rate: 2e-4
  # offload: parameters     # weights, gradients and optimizer in the host's memory: slow, but little of the GPU's

# preference: {beta: 0.1}   # for dpo and kto
# rollout: {generations: 8, completion_tokens: 256, rewards: [exact_match]}  # for grpo

# evaluate:
#   metric: auto            # measured on the base and on the tuned model
#   every: 100 steps        # also during training
#   patience: 3             # stop after so many evaluations without a better one
#   choose: best            # hand over the best evaluation's weights, not the last step's
#   guard: {data: general.jsonl, at_most_worse: 0.05}  # a general hold-out that must not get worse

goal:
  objective: cheapest       # fastest, fastest_within_budget, best_value, cheapest_by_deadline
  # within: 24h             # or deadline: 2030-01-31T18:00:00Z
  # budget: 50usd           # for the whole job

where:
  market: [spot, on_demand]
  # clouds: [aws, gcp]
  # gpus: ["A100-80GB", "H100:1..8"]
  # gpu_memory: 24GB..80GB
  # nodes: 1..4

# environment:
#   secrets: [HF_TOKEN]     # names only; values are read from your environment at launch

# track: mlflow             # wandb, tensorboard; addresses and keys by environment

# checkpoints:
#   every: auto             # 100 steps, 15m
#   keep: 2
"""

_DATA_KNOWN = "  train: @TRAIN@"
_DATA_UNKNOWN = """\
  # train: train.jsonl      # one example a line, as {"prompt": ..., "completion": ...}
  samples: 10000            # without the file: how many examples there are
  tokens_per_sample: 500    # and how long they are on average"""


def spec_template(*, file: str, name: str, model: str, train: str | None) -> str:
    """Text of a spec.

    Args:
        file: Its name, for the commands in its head.
        name: Of the run.
        model: Hub id or directory.
        train: Training file, None if there is none yet; then an amount stands in its place.
    """
    data = _DATA_UNKNOWN if train is None else _DATA_KNOWN.replace("@TRAIN@", quoted(train))
    values = {
        "SCHEMA": SCHEMA_FILE,
        "FILE": file,
        "NAME": quoted(name),
        "MODEL": quoted(model),
        "DATA": data,
    }
    return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], _TEMPLATE)


def quoted(text: str) -> str:
    """As YAML: in quotes unless it is plainly text."""
    plain = _SIMPLE.fullmatch(text) and text.lower() not in ("true", "false", "null")
    return text if plain else json.dumps(text, ensure_ascii=False)
