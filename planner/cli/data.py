"""`plan data inspect`: what is in the training data, and what it costs in tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from planner.cli.context import App, pass_app
from planner.cli.data_fetch import command as fetch_command
from planner.cli.output import echo_err, emit_json, output_option
from planner.cli.telling import telling

if TYPE_CHECKING:
    from planner.inspect.tally import Counter
    from planner.model_facts import ModelSource

_EXAMPLE = """\b
Examples:
  plan data inspect train.jsonl
  plan data inspect train.jsonl --eval eval.jsonl --model meta-llama/Llama-3.1-8B --sequence-length 4096
  plan data inspect part-*.parquet -o json
"""
_FORMATS = ("auto", "messages", "prompt_completion", "preference", "unpaired", "label", "text", "prompt")
_WORDS = {
    "broken": "broken lines",
    "empty": "nothing to learn from",
    "too_long": "longer than a row",
    "duplicate": "exact duplicates",
    "near_duplicate": "near duplicates",
    "leaked": "also in the held-out data",
    "nearly_leaked": "nearly in the held-out data",
    "email": "e-mail addresses",
    "phone": "phone numbers",
    "card": "payment cards",
    "iban": "bank accounts (IBAN)",
    "social_security": "US social security numbers",
    "key": "keys or tokens of services",
    "odd_script_latin": "English, seldom here",
    "odd_script_latin_not_english": "another language in Latin letters, seldom here",
}
_SOURCES = {
    "counted": "counted by the model's tokenizer",
    "sampled": "sampled with the model's tokenizer",
    "guessed": "guessed from words, digits and scripts",
}
_BAR, _LINES, _REASONS = 40, 5, 3
_DEFAULT_VOCAB = 128_000


@click.group("data", epilog=_EXAMPLE)
def command() -> None:
    """Look at training data before it costs money."""


command.add_command(fetch_command)


@command.command("inspect", epilog=_EXAMPLE)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--model", help="Hub id or directory: its tokenizer if it is here, else its vocabulary's size.")
@click.option("--eval", "held_out", type=click.Path(path_type=Path), help="Held-out data that must not leak.")
@click.option(
    "--format",
    "wanted",
    type=click.Choice(_FORMATS),
    default="auto",
    show_default=True,
    help="Of each example.",
)
@click.option(
    "--sequence-length", type=click.IntRange(1), default=2048, show_default=True, help="Tokens of a row."
)
@output_option("table", "json")
@pass_app
def inspect(
    app: App,
    files: tuple[Path, ...],
    model: str | None,
    held_out: Path | None,
    wanted: str,
    sequence_length: int,
    output: str,
) -> None:
    """Count the tokens of FILEs (jsonl, csv, tsv, parquet, text) and find what is wrong with them.

    One pass with bounded memory. A line that cannot be read is a finding, not the end. Personal data is found
    by its looks: it may be missed, and what looks like it may be something else. Nothing leaves this machine.
    """
    from planner.inspect import inspect_files
    from planner.inspect.document import inspection_document
    from planner.inspect.records import DataFormat

    counter, vocab = _tokenizer(model, app.models())
    chosen = next((kind for kind in get_args(DataFormat) if kind == wanted), None)
    with telling("records") as tell:
        found = inspect_files(
            files,
            held_out=held_out,
            wanted=chosen,
            sequence_tokens=sequence_length,
            vocab=vocab,
            counter=counter,
            told=tell,
        )
    document = inspection_document(found, model=model, sequence_tokens=sequence_length)
    if output == "json":
        emit_json("data_inspect", document, now=app.now())
    else:
        click.echo(render_inspection(document))


def _tokenizer(model: str | None, models: ModelSource) -> tuple[Counter | None, int]:
    """The model's tokenizer if it is at hand, and its vocabulary's size."""
    if model is None:
        return None, _DEFAULT_VOCAB
    from planner.tokenizer_files import find_tokenizer, is_installed, load_counter

    vocab = models(model, Path(), None).arch.vocab
    path = find_tokenizer(model)
    if path is None:
        echo_err(f"the tokenizer of {model} is not on this machine: tokens are guessed")
        return None, vocab
    counter = load_counter(path)
    if counter is None:
        why = "it cannot be read" if is_installed() else "pip install 'tuneplan[data]' reads it"
        echo_err(f"{path} is not used, tokens are guessed: {why}")
    return counter, vocab


def render_inspection(document: dict[str, Any]) -> str:
    """The answer as text."""
    total, each = document["tokens_total"], document["tokens_per_record"]
    doubt = "" if total["p10"] == total["p90"] else f" ({total['p10']:,.0f}-{total['p90']:,.0f})"
    source = _SOURCES[document["tokens_source"]]
    lines = [f"records   {document['records']:,}"]
    lines.append(
        f"tokens    {total['p50']:,.0f}{doubt}, {source}; {document['answer_share']:.0%} learned from"
    )
    lines.append(
        f"a record  {each['mean']:,.0f} on average, median {each['p50']:,.0f}, p90 {each['p90']:,.0f},"
        f" p99 {each['p99']:,.0f}, longest {each['longest']:,.0f}"
    )
    lines += ["", *_plot(document), "", *_rows(document), "", *_findings(document), *_labels(document)]
    return "\n".join(lines)


def _plot(document: dict[str, Any]) -> list[str]:
    bins = document["histogram"]
    most = max(one["records"] for one in bins)
    return [
        f"{one['from_tokens']:>9,.0f}  {'#' * max(round(one['records'] / most * _BAR), one['records'] > 0):<{_BAR}}"
        f"  {one['records']:,.0f}"
        for one in bins
    ]


def _rows(document: dict[str, Any]) -> list[str]:
    packing = document["packing_efficiency"]
    padding = ", ".join(f"{one['micro_batch']}: {one['share']:.0%}" for one in document["padding"])
    return [
        f"rows of {document['sequence_length']:,} tokens: {document['truncated_share']:.1%} of the records are cut,"
        f" {document['lost_token_share']:.1%} of the tokens lost",
        f"packed    {packing['best_fit']:.0%} full by best fit, {packing['wrapped']:.0%} wrapped",
        f"unpacked  padding by micro-batch: {padding}",
    ]


def _findings(document: dict[str, Any]) -> list[str]:
    if not document["findings"]:
        return ["nothing found wrong"]
    lines = [f"{'finding':<28}  {'records':>9}  {'share':>6}  {'tokens':>12}  where"]
    for one in document["findings"]:
        kind = one["kind"]
        words = _WORDS.get(kind) or f"script {kind.removeprefix('odd_script_')}, seldom here"
        where = ", ".join(
            (one["examples"] or one["lines"])[:_LINES] if "leak" in kind else one["lines"][:_LINES]
        )
        more = ", ..." if one["records"] > _LINES else ""
        if kind == "broken" and one["examples"]:
            more += f": {'; '.join(one['examples'][:_REASONS])}"
        lines.append(
            f"{words:<28}  {one['records']:>9,}  {one['share']:>6.1%}  {one['tokens']:>12,.0f}  {where}{more}"
        )
    return lines


def _labels(document: dict[str, Any]) -> list[str]:
    labels = document["labels"]
    if not labels:
        return []
    return ["", "labels    " + ", ".join(f"{one['label']}: {one['share']:.1%}" for one in labels[:10])]
