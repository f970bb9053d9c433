"""Peaks of real steps of quantised bases that peft prepared; a script: cases as JSON on stdin, bytes on stdout."""

import json
import sys
import tempfile
import warnings

warnings.simplefilter("ignore")


def peak(config, attention, recomputed, autocast, targets, tokens):
    """Bytes that torch's CPU allocator held at most beside weights, adapters and optimizer."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from torch.profiler import ProfilerActivity, profile
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    from benchmarks.step_peaks import most_held

    fields = dict(config)
    built = AutoConfig.for_model(fields.pop("model_type"), use_cache=False, **fields)
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=four_bits, dtype=torch.bfloat16, attn_implementation=attention
        )
    model = prepare_model_for_kbit_training(
        model, use_gradient_checkpointing=recomputed, gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    model = get_peft_model(model, LoraConfig(r=8, target_modules=targets, lora_dropout=0.0))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    ids = torch.zeros((1, tokens), dtype=torch.long)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        step()
    return most_held(seen)


def main():
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    json.dump([peak(*case) for case in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
