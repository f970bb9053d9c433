"""What must be computed, on any machine: parameters, tokens, steps and FLOPs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from planner.architecture import parameter_counts
from planner.explain.terms import Section, Term, Value
from planner.question import Question
from planner.setup import Adapter

_EXACT = "none, counted as transformers builds the model"


def parameters(question: Question) -> Section:
    """Parameters of the model with its task's head."""
    arch, counts = question.arch, question.counts
    shape = {"hidden": arch.hidden, "blocks": arch.layers + arch.decoder_layers}
    return Section(
        key="parameters",
        title="parameters",
        source=f"{arch.id}: {arch.source or 'its config.json'}",
        terms=(
            Term(
                "embedding",
                counts.embedding,
                "",
                "vocabulary x width, positions and token types",
                {"vocabulary": arch.vocab, "width": arch.embedding_width or arch.hidden},
            ),
            Term(
                "linear",
                counts.linear,
                "",
                "linear modules of all blocks, biases included",
                _linear(question),
            ),
            Term("head", counts.head, "", _head_formula(question), {"vocabulary": arch.vocab, **shape}),
            Term("other", counts.other, "", "norms and the rest", shape),
        ),
        total=Term("total", counts.total, "", "sum", error=_EXACT),
        notes=(
            Term("active", counts.active, "", "those that one token meets", error=_EXACT),
            _trained(question),
        ),
    )


def _linear(question: Question) -> Mapping[str, Value]:
    arch = question.arch
    facts = {"query": arch.q_size, "key and value": arch.kv_size, "MLP": arch.intermediate}
    return {**facts, "experts": arch.experts} if arch.is_moe else facts


def _head_formula(question: Question) -> str:
    if question.base.task in ("classification", "reward"):
        return "the task's head"
    return "tied to the embedding" if question.arch.tied_embeddings else "vocabulary x hidden"


def _trained(question: Question) -> Term:
    adapter = question.base.adapter
    if adapter is None:
        return Term("trained", question.trainable, "", "all of them", error=_EXACT)
    formula = "sum over the target modules of r x (inputs + outputs)"
    return Term("trained", question.trainable, "", formula, _adapter(adapter), error=_EXACT)


def _adapter(adapter: Adapter) -> Mapping[str, Value]:
    return {"r": adapter.rank, "kind": adapter.kind, "targets": ", ".join(adapter.targets)}


def workload(question: Question) -> Section:
    """Rows, tokens, steps and FLOPs."""
    job = question.job
    rows = {"global_batch": job.global_batch, "rows an example": job.rows_per_example}
    tokens = {"full steps": job.full_steps, "tokens a full step": job.tokens_per_full_step}
    per_token = question.flops_total / job.tokens_total
    return Section(
        key="workload",
        title="work",
        source="spec and data",
        terms=(
            *_assumed(question),
            Term(
                "tokens a row",
                job.row_tokens,
                "tokens",
                _row_formula(question),
                {"longest": job.sequence_tokens},
            ),
            Term(
                "tokens a full step",
                job.tokens_per_full_step,
                "tokens",
                "global_batch x rows an example x tokens a row",
                rows,
            ),
            Term("steps", job.steps, "", "train.steps, or epochs x rows / global_batch, rounded up", rows),
            Term(
                "full steps",
                job.full_steps,
                "",
                "rows / global_batch: the last step of a pass has what is left",
                {"steps": job.steps},
            ),
            Term("tokens", job.tokens_total, "tokens", "full steps x tokens a full step", tokens),
            Term(
                "FLOPs a token",
                per_token,
                "FLOP",
                *_flops(question),
                error="under 2 %: norms and softmax left out",
            ),
            Term("FLOPs", question.flops_total, "FLOP", "tokens x FLOPs a token, recomputation not counted"),
        ),
    )


def _assumed(question: Question) -> Iterator[Term]:
    for row in question.job.assumptions:
        yield Term(
            row.name, row.value, row.unit, "given" if row.source == "spec" else "taken", source=row.source
        )


def _row_formula(question: Question) -> str:
    return (
        "packed: rows are full"
        if question.job.packed
        else "mean length of an example, cut at the sequence length"
    )


def _flops(question: Question) -> tuple[str, Mapping[str, Value]]:
    base = question.base
    computed = parameter_counts(base.arch, base.task, base.labels).matmul_active
    apart = question.job.attended_tokens
    rows: dict[str, Value] = {"rows of": question.job.row_tokens} if apart is None else {"samples of": apart}
    n = {"N": computed, **rows}
    if question.base.adapter is None:
        return "6 N + attention", n
    return "4 N + 6 n + attention (a frozen weight needs no gradient)", {**n, "n": question.trainable}
