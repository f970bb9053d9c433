"""One candidate as the JSON answers, plan files and the ledger hold it, and read back from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from planner.calibration import Basis
from planner.candidates import Candidate, CandidateMemory, CandidateRisk, RiskSignal
from planner.money import micro_usd, usd_text, usd_text_of_micro
from planner.offer_document import amount, offer_document, offer_from_document
from planner.quantiles import Quantiles
from planner.setup import Parallelism

_LINES = ("compute", "rework", "reprovision", "storage", "requests", "egress", "controller", "idle")
#: Quantiles of `CandidateRisk`.
_HOURS = ("rework_h", "restart_h", "wait_h")


def candidate_document(candidate: Candidate) -> dict[str, Any]:
    """One candidate as JSON types."""
    return {
        "id": candidate.candidate_id,
        "rank": candidate.rank,
        "pareto": candidate.pareto,
        "offer": offer_document(candidate.offer),
        "nodes": candidate.nodes,
        "gpus_total": candidate.gpus_total,
        "parallelism": candidate.parallelism._asdict(),
        "micro_batch": candidate.micro_batch,
        "grad_accum": candidate.grad_accum,
        "gradient_checkpointing": candidate.gradient_checkpointing,
        "verdict": candidate.verdict,
        "memory_gib_per_gpu": _memory(candidate.memory),
        "host_ram_gib": round(candidate.host_ram_gib, 3),
        "disk_gib": round(candidate.disk_gib, 3),
        "step_time_s": quantiles_document(candidate.step_time_s),
        "tokens_per_s_total": quantiles_document(candidate.tokens_per_s_total),
        "wall_clock_h": quantiles_document(candidate.wall_clock_h),
        "gpu_hours": quantiles_document(candidate.gpu_hours),
        **_cost(candidate),
        "finish_at": _finish(candidate.finish_at),
        "p_finish_by_deadline": candidate.p_finish_by_deadline,
        "basis": None if candidate.basis is None else candidate.basis._asdict(),
        "risk": None if candidate.risk is None else _risk(candidate.risk),
        "after_credits_usd": None
        if candidate.after_credits_usd is None
        else usd_quantiles_document(candidate.after_credits_usd),
    }


def _risk(risk: CandidateRisk) -> dict[str, Any]:
    hours = {name: asdict(getattr(risk, name)) for name in _HOURS}
    signals = [signal._asdict() for signal in risk.signals]
    return {
        **risk._asdict(),
        **hours,
        "expected_cost_usd": usd_text(risk.expected_cost_usd),
        "signals": signals,
    }


def _risk_from(document: Mapping[str, Any] | None) -> CandidateRisk | None:
    if document is None:
        return None
    hours = {name: _quantiles(document[name]) for name in _HOURS}
    return CandidateRisk(
        expected_cost_usd=float(document["expected_cost_usd"]),
        interruptions=float(document["interruptions"]),
        checkpoint_interval_s=float(document["checkpoint_interval_s"]),
        size_factor=float(document.get("size_factor", 1.0)),
        signals_factor=float(document.get("signals_factor", 1.0)),
        signals=tuple(
            RiskSignal(**{name: row[name] for name in RiskSignal._fields})
            for row in document.get("signals", ())  # absent in what an earlier version kept
        ),
        losses_factor=float(document.get("losses_factor", 1.0)),
        losses_why=str(document.get("losses_why", "")),
        **hours,
    )


def _cost(candidate: Candidate) -> dict[str, Any]:
    lines, three = cost_micro_usd(candidate)
    return {
        "cost_usd": {
            name: usd_text_of_micro(value) for name, value in zip(("p10", "p50", "p90"), three, strict=True)
        },
        "cost_tree_usd": {
            name: None if value is None else usd_text_of_micro(value) for name, value in lines.items()
        },
    }


def cost_micro_usd(candidate: Candidate) -> tuple[dict[str, int | None], tuple[int, int, int]]:
    """Cost lines and p10, p50, p90 in whole micro-dollars; the p50 is the sum of the known lines, to the last one."""
    lines = {name: candidate.cost_tree_usd[name] for name in _LINES}
    micro = {name: None if value is None else micro_usd(value) for name, value in lines.items()}
    p50 = sum(value for value in micro.values() if value is not None)
    low, high = micro_usd(candidate.cost_usd.p10), micro_usd(candidate.cost_usd.p90)
    return micro, (min(low, p50), p50, max(high, p50))


def _memory(memory: CandidateMemory) -> dict[str, Any]:
    return {
        "allocated": round(memory.allocated_gib, 4),
        "reserved": round(memory.reserved_gib, 4),
        "nvml": round(memory.nvml_gib, 4),
        "upper": round(memory.upper_gib, 4),
        "limit": round(memory.limit_gib, 4),
        "components": {name: round(value, 4) for name, value in memory.components_gib.items()},
    }


def _finish(finish_at: tuple[str, str, str] | None) -> dict[str, str] | None:
    return None if finish_at is None else dict(zip(("p10", "p50", "p90"), finish_at, strict=True))


def quantiles_document(value: Quantiles) -> dict[str, float]:
    """Q of numbers, unrounded so that products of them stay exact."""
    return {"p10": value.p10, "p50": value.p50, "p90": value.p90}


def usd_quantiles_document(value: Quantiles) -> dict[str, str | None]:
    """Q of amounts, as decimal strings."""
    return {"p10": usd_text(value.p10), "p50": usd_text(value.p50), "p90": usd_text(value.p90)}


def candidate_from_document(document: Mapping[str, Any]) -> Candidate:
    """A candidate read back from its JSON; unknown keys of a newer writer are ignored.

    Raises:
        KeyError, TypeError, ValueError: The document is not one of ours; the caller names the file.
    """
    memory = document["memory_gib_per_gpu"]
    finish, after = document["finish_at"], document.get("after_credits_usd")
    return Candidate(
        candidate_id=document["id"],
        rank=document["rank"],
        pareto=document["pareto"],
        offer=offer_from_document(document["offer"]),
        nodes=document["nodes"],
        parallelism=Parallelism(**document["parallelism"]),
        micro_batch=document["micro_batch"],
        grad_accum=document["grad_accum"],
        gradient_checkpointing=document["gradient_checkpointing"],
        verdict=document["verdict"],
        memory=CandidateMemory(
            *(memory[name] for name in ("allocated", "reserved", "nvml", "upper", "limit", "components"))
        ),
        host_ram_gib=document["host_ram_gib"],
        disk_gib=document["disk_gib"],
        step_time_s=_quantiles(document["step_time_s"]),
        tokens_per_s_total=_quantiles(document["tokens_per_s_total"]),
        wall_clock_h=_quantiles(document["wall_clock_h"]),
        gpu_hours=_quantiles(document["gpu_hours"]),
        cost_usd=_quantiles(document["cost_usd"]),
        cost_tree_usd={name: amount(value) for name, value in document["cost_tree_usd"].items()},
        finish_at=None if finish is None else (finish["p10"], finish["p50"], finish["p90"]),
        p_finish_by_deadline=document["p_finish_by_deadline"],
        basis=basis_from_document(document),
        risk=_risk_from(document.get("risk")),
        after_credits_usd=None if after is None else _quantiles(after),
    )


def _quantiles(document: Mapping[str, Any]) -> Quantiles:
    return Quantiles(float(document["p10"]), float(document["p50"]), float(document["p90"]))


def basis_from_document(document: Mapping[str, Any]) -> Basis | None:
    """What a stored candidate was made of, None if it was stored before that was kept."""
    basis = document.get("basis")
    return None if basis is None else Basis(basis["groups"], basis["priors"])


def bases_from_document(document: Mapping[str, Any]) -> dict[tuple[str, str], Basis]:
    """The bases of all kinds of machines that a run may get, by (cloud, GPU), the planned one first.

    A basis names its machine itself: the document's offer may have been replaced at a resume.
    """
    planned, others = basis_from_document(document), document.get("rented", {}).get("bases", ())
    found = {} if planned is None else {_machine_of(planned, document["offer"]): planned}
    for row in others:  # absent in what an earlier version kept
        found.setdefault((row["cloud"], row["gpu"]), Basis(row["groups"], row["priors"]))
    return found


def _machine_of(basis: Basis, offer: Mapping[str, Any]) -> tuple[str, str]:
    """(cloud, GPU) of a basis; of the offer beside it where an earlier version did not say."""
    cloud, gpu = (
        basis.groups.get("place", "").rpartition("|")[2],
        basis.groups.get("gpu", "").partition("|")[0],
    )
    return cloud or offer["cloud"], gpu or offer["gpu"]
