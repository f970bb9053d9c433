"""Models small enough to train in seconds, and the data they can learn."""

from __future__ import annotations

import json
import random
from pathlib import Path

GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"
GOOD = ("good", "great", "fine", "nice")
BAD = ("bad", "awful", "poor", "sad")


def make_classifier(arguments: list[str]) -> None:
    """An untrained BERT of two layers with one token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "the", "it", "was", "day", *GOOD, *BAD]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
        )
    )
    model.save_pretrained(arguments[0])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        arguments[0]
    )


def make_decoder(arguments: list[str]) -> None:
    """An untrained Llama with the tiny Goat's tokens, wide enough for blocks of 64 quantised weights."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(GOAT / "base")
    torch.manual_seed(0)
    size = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size)).save_pretrained(arguments[0])
    tokenizer.save_pretrained(arguments[0])


#: Writes as Qwen's templates do: tools first, a call as JSON between marks.
TOOL_TEMPLATE = (
    "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '\\n' }}{% endif %}"
    "{% for m in messages %}<{{ m.role[0] }}>{% if m.content %}{{ m.content }}{% endif %}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}"
    '<call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "{% endfor %}{% endif %}</s>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def make_caller(arguments: list[str]) -> None:
    """An untrained Llama of one layer with a token a byte and a template that writes calls of tools."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **size)).save_pretrained(arguments[0])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", chat_template=TOOL_TEMPLATE
    ).save_pretrained(arguments[0])


def write_reviews(directory: Path, train: int = 160, held_out: int = 60) -> None:
    """Sentences whose label is that of their one telling word."""
    rng = random.Random(5)
    directory.mkdir(parents=True, exist_ok=True)
    for name, count in (("train.jsonl", train), ("eval.jsonl", held_out)):
        rows = []
        for index in range(count):
            word = rng.choice((BAD, GOOD)[index % 2])
            rest = rng.sample(["the", "it", "was", "day"], 3)
            rest.insert(rng.randrange(4), word)
            rows.append(json.dumps({"text": " ".join(rest), "label": ("negative", "positive")[index % 2]}))
        (directory / name).write_text("\n".join(rows) + "\n")
