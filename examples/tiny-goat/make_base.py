"""Makes this example's base model and data: a tiny Llama that can add, and subtractions for it to learn.

    python examples/tiny-goat/make_base.py

Everything follows from the seed. `base/`, `train.jsonl` and `eval.jsonl` are what it wrote.
Answers are written least significant digit first, so that each digit depends only on what is before it.
"""

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
SEED = 20
DIGITS = 2
TRAIN_ROWS = 4000
EVAL_ROWS = 200
CHARACTERS = ["<pad>", "<s>", "</s>", *"0123456789+-="]


def split_pairs(rng):
    """All pairs of numbers, shuffled; no pair is in both parts, not even swapped."""
    top = 10**DIGITS
    pairs = [(a, b) for a in range(top) for b in range(a + 1)]
    rng.shuffle(pairs)
    return pairs[:EVAL_ROWS], pairs[EVAL_ROWS : EVAL_ROWS + TRAIN_ROWS], pairs[EVAL_ROWS:]


def row(a, b, sign):
    """One example: `47-5=` and `24`, which is 42 backwards."""
    return {"prompt": f"{a}{sign}{b}=", "completion": str(a - b if sign == "-" else a + b)[::-1]}


def make_tokenizer():
    """One token a character."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, **{"unk_token": CHARACTERS[0]}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def pretrain(tokenizer, pairs, rng, steps=1500, rows=64):
    """Learn to add, in either order of the two numbers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(CHARACTERS),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        loss = model(**batch(tokenizer, rng.choices(pairs, k=rows), rng)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 250 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    return model


def batch(tokenizer, pairs, rng):
    """Padded additions; only the answer and the end count."""
    import torch

    rows, labels = [], []
    for pair in pairs:
        a, b = pair if rng.random() < 0.5 else pair[::-1]
        example = row(a, b, "+")
        prompt = tokenizer(example["prompt"])["input_ids"]
        answer = tokenizer(example["completion"], add_special_tokens=False)["input_ids"] + [2]
        rows.append(prompt + answer)
        labels.append([-100] * len(prompt) + answer)
    length = max(map(len, rows))
    ids = torch.tensor([one + [0] * (length - len(one)) for one in rows])
    targets = torch.tensor([one + [-100] * (length - len(one)) for one in labels])
    return {"input_ids": ids, "labels": targets, "attention_mask": (ids != 0).long()}


def write(name, pairs):
    """One subtraction a line."""
    lines = [json.dumps(row(a, b, "-")) for a, b in pairs]
    (HERE / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    """Write everything beside this file."""
    rng = random.Random(SEED)
    held_out, train, known = split_pairs(rng)
    write("eval.jsonl", held_out)
    write("train.jsonl", train)
    tokenizer = make_tokenizer()
    model = pretrain(tokenizer, known, rng)
    model.save_pretrained(HERE / "base")
    tokenizer.save_pretrained(HERE / "base")


if __name__ == "__main__":
    main()
