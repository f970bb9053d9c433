"""Peaks of real steps by torch's CPU allocator beside traced ones; a script: JSON cases on stdin, pairs on stdout."""

import json
import sys
import warnings

warnings.simplefilter("ignore")


def allocator_peak(setup, config):
    """Bytes that the CPU allocator held at most above what was there before the step."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from transformers import AutoConfig, AutoModelForCausalLM

    from benchmarks.step_peaks import most_held

    fields = dict(config)
    built = AutoConfig.for_model(fields.pop("model_type"), **fields)
    built.use_cache = False
    model = AutoModelForCausalLM.from_config(built, attn_implementation="eager", dtype=torch.float32)
    model.train()
    if setup.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ids = torch.zeros((setup.micro_batch, setup.sequence_tokens), dtype=torch.long)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        model(input_ids=ids, labels=ids).loss.backward()
    return most_held(seen)


def main():
    import torch
    import transformers

    from planner.architecture.hf_config import read_config
    from planner.setup import TrainingSetup
    from planner.trace import trace_step

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    pairs = []
    for config, fields in json.load(sys.stdin):
        setup = TrainingSetup(
            read_config(config, "tiny", "test"), framework="hf", attention="eager", **fields
        )
        traced = trace_step(setup, config, steps=1)
        pairs.append((allocator_peak(setup, config), traced.peak_bytes - traced.static_bytes, traced.phase))
    json.dump(pairs, sys.stdout)


if __name__ == "__main__":
    main()
