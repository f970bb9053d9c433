"""What the frozen base knows already: a logistic regression on its mean token vectors, the same rows, no fine-tuning.

    python examples/tiny-sentiment/linear_probe.py

A fine-tune that is not better than this has learned nothing that the base did not know.
"""

import argparse
import json
from pathlib import Path

HERE = Path(__file__).parent
RIDGE = 1e-4


def rows(path):
    """Texts, and 1 for each good one."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in found], [float(row["label"] == "good") for row in found]


def vectors(texts, base):
    """Mean of each text's last hidden states, as sentence-transformers pools them."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModel.from_pretrained(base).eval()
    means = []
    with torch.no_grad():
        for start in range(0, len(texts), 256):
            batch = tokenizer(texts[start : start + 256], return_tensors="pt", padding=True)
            mask = batch["attention_mask"].unsqueeze(-1)
            hidden = model(**batch).last_hidden_state * mask
            means.append(torch.nn.functional.normalize(hidden.sum(1) / mask.sum(1)))
    return torch.cat(means)


def accuracy(base):
    """Of the held-out rows."""
    import torch

    (texts, labels), (held_out, answers) = rows(HERE / "train.jsonl"), rows(HERE / "eval.jsonl")
    inputs, targets = vectors(texts, base), torch.tensor(labels)
    weights = torch.zeros(inputs.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        scores = inputs @ weights[1:] + weights[0]
        value = (
            torch.nn.functional.binary_cross_entropy_with_logits(scores, targets)
            + RIDGE * weights.square().sum()
        )
        value.backward()
        return value

    optimizer.step(loss)
    said = vectors(held_out, base) @ weights[1:] + weights[0] > 0
    return float((said == torch.tensor(answers).bool()).float().mean())


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--base", type=Path, default=HERE / "base")
    print(f"{accuracy(asked.parse_args().base):.3f}")
