"""How long a row may be: what the planner says, what the worker says, and what transformers' models do."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from jobs.build import within_positions
from jobs.spec import CheckpointsJob, DataJob, JobSpec, ModelJob
from planner.architecture.hf_config import read_config
from planner.positions import most_tokens
from providers.errors import UsageError

_ASK = """
import json
import torch, transformers as t
from jobs.build import most_positions

torch.set_num_threads(1)
BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
GPT = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 32}
ENDS = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
CONFIGS = {
    "roberta": {**BERT, "max_position_embeddings": 34},
    "bert": {**BERT, "max_position_embeddings": 32},
    "distilbert": {"dim": 8, "n_layers": 1, "n_heads": 1, "hidden_dim": 8, "max_position_embeddings": 32},
    "electra": {**BERT, "embedding_size": 8, "max_position_embeddings": 32},
    "deberta-v2": {
        **BERT, "max_position_embeddings": 32, "relative_attention": True, "position_biased_input": False
    },
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "opt": {**BERT, "word_embed_proj_dim": 8, "ffn_dim": 8, "max_position_embeddings": 32},
    "llama": {**BERT, "max_position_embeddings": 32},
}

def is_computed(model, tokens):
    try:
        model(torch.full((1, tokens), 5))
    except (IndexError, RuntimeError):
        return False
    return True

found = {}
for family, values in CONFIGS.items():
    config = t.AutoConfig.for_model(family, **values, **ENDS)
    model = t.AutoModel.from_config(config).eval()
    told = [is_computed(model, tokens) for tokens in (32, 33)]
    found[family] = [config.to_dict(), told, most_positions(model)]
print(json.dumps(found))
"""


def test_planner_and_worker_know_where_a_table_of_positions_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=300, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 9
    for family, (config, computed, most) in found.items():
        ends = family not in ("deberta-v2", "llama")
        assert computed == [True, not ends], family
        assert most == most_tokens(read_config(config, family, "test")) == (32 if ends else None), family


def test_the_worker_cuts_rows_and_refuses_answers_that_have_no_positions() -> None:
    job = JobSpec("run", "job", ModelJob("m"), DataJob("rows.jsonl"), CheckpointsJob("file:///x"))
    assert within_positions(job, None) is within_positions(job, 4096) is job
    assert within_positions(job, 512).train.sequence_length == 512
    learned = replace(job, method=replace(job.method, kind="prompt_tuning", virtual_tokens=20))
    assert within_positions(learned, 512).train.sequence_length == 492
    with pytest.raises(UsageError, match="answers of 256 tokens"):
        within_positions(replace(job, task="grpo"), 128)
