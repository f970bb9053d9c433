"""Predictions for published runs read what a run states, never what it measured."""

import csv
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from planner.backtest import (
    COLUMNS,
    OUTCOME_COLUMNS,
    UnsupportedRunError,
    estimate_run,
    predict,
    predictions,
    read_run,
)
from planner.cli.main import cli

RUNS = Path(__file__).parents[2] / "benchmarks" / "data" / "measured_runs.csv"
ROW = {
    "id": "x-1", "model": "meta-llama/Llama-3.1-8B", "method": "lora", "lora_rank": "16", "lora_targets": "q,v",
    "precision": "bf16", "gpu": "A100-80GB", "gpu_mem_gb": "80", "num_gpus": "1", "num_nodes": "1", "seq_len": "2048",
    "micro_batch": "2", "framework": "trl SFTTrainer", "date": "2026-01-01",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    with RUNS.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_one_row_a_run_in_order(rows):
    answers = list(predictions(rows))
    assert [a["id"] for a in answers] == [r["id"] for r in rows]
    assert all(tuple(a) == COLUMNS for a in answers)
    for answer in answers:
        assert bool(answer["unsupported_reason"]) != bool(answer["verdict"])


def test_numbers_are_numbers_and_in_order(rows):
    for answer in predictions(rows):
        if answer["unsupported_reason"]:
            continue
        sizes = [float(answer[f"predicted_{kind}_gib"]) for kind in ("allocated", "reserved", "nvml")]
        assert sizes == sorted(sizes)
        assert sizes[-1] < float(answer["memory_upper_gib"]) < math.inf
        if answer["tokens_per_s_p10"]:
            names = ("tokens_per_s_p10", "predicted_tokens_per_s_total", "tokens_per_s_p90")
            rates = [float(answer[name]) for name in names]
            assert 0 < rates[0] < rates[1] < rates[2]


def test_outcomes_are_never_read(rows):
    blanked = [{k: ("" if k in OUTCOME_COLUMNS else v) for k, v in row.items()} for row in rows]
    absurd = [{k: ("1e9" if k in OUTCOME_COLUMNS else v) for k, v in row.items()} for row in rows]
    assert list(predictions(rows)) == list(predictions(blanked)) == list(predictions(absurd))
    for name in rows[0]:
        if name.startswith(("measured_", "oom")) or name == "mem_gib_norm":
            assert name in OUTCOME_COLUMNS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "nobody/knows-this"}, "not known"), ({"model": ""}, "model is not stated"),
        ({"gpu": "Cerebras WSE"}, "not known"), ({"gpu": ""}, "gpu is not stated"),
        ({"seq_len": ""}, "seq_len is not stated"), ({"micro_batch": ""}, "micro_batch is not stated"),
        ({"method": "mezo"}, "method 'mezo'"),
        ({"task": "knowledge distillation"}, "task"), ({"task": "VLM SFT"}, "task"),
        ({"method": "spectrum"}, "spectrum's share"),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_keeps_its_row_with_a_reason(change, reason):
    answer = predict(ROW | change)
    assert answer["id"] == "x-1"
    assert reason in answer["unsupported_reason"]
    assert not any(value for name, value in answer.items() if name not in ("id", "unsupported_reason"))
    with pytest.raises(UnsupportedRunError):
        estimate_run(ROW | change)


@pytest.mark.parametrize(
    "gpu",
    ["H200", "B200", "B300", "MI325X", "MI355X", "A6000", "TITAN-V", "RTX3080", "Gaudi2", "Gaudi3", "GB300"],
)
def test_other_cards_are_predicted(gpu):
    answer = predict(ROW | {"gpu": gpu, "gpu_mem_gb": ""})
    assert answer["unsupported_reason"] == ""
    assert float(answer["predicted_tokens_per_s_total"]) > 0


def test_a_card_known_by_its_memory_has_a_verdict_and_no_speed():
    answer = predict(ROW | {"gpu": "24GB-class GPU", "gpu_mem_gb": "24"})
    assert answer["verdict"]
    assert answer["predicted_tokens_per_s_total"] == ""


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"parallelism": "TP4 PP2", "num_gpus": "16"}, ("mixed", 2, 4, 2)),
        ({"parallelism": "ZeRO-3", "num_gpus": "8"}, ("zero3", 8, 1, 1)),
        ({"parallelism": "FSDP", "num_gpus": "4"}, ("fsdp", 4, 1, 1)),
        ({"parallelism": "", "num_gpus": "2"}, ("ddp", 2, 1, 1)),
        ({"parallelism": "", "num_gpus": "8", "method": "full"}, ("fsdp", 8, 1, 1)),
        ({"parallelism": "device_map(naive)", "num_gpus": "2"}, ("pp", 1, 1, 2)),
    ],
)
def test_parallelism(change, seen):
    parallel = read_run(ROW | change).setup.parallelism
    assert (parallel.kind, parallel.data, parallel.tensor, parallel.pipeline) == seen


@pytest.mark.parametrize(
    ("name", "chip", "gib"),
    [("Gaudi2 HL-225", "Gaudi2", 96), ("GRID A100", "A100", 40), ("Blackwell B200", "B200", 180),
     ("16 A100 (40GB)", "A100", 40), ("A100 64GB", "A100", 64), ("A100-SXM-64GB", "A100", 64),
     ("RTX 4090 48GB", "RTX4090", 48), ("RTX 3080 20GB", "RTX3080", 20), ("RTX 2080 Ti 22G", "RTX2080-Ti", 22),
     ("H100 64GB", "H100", 64), ("Tesla V100-DGXS-32GB", "V100-32GB", 32), ("MI300", "MI300X", 192),
     ("RTX 3080 12GB", "RTX3080-12GB", 12), ("GB200 NVL4", "GB200", 186), ("RTX 3090", "RTX3090", 24)],
)  # fmt: skip
def test_spellings_of_boards_and_their_memory(name, chip, gib):
    run = read_run(ROW | {"gpu": name, "gpu_mem_gb": "", "num_gpus": "8"})
    assert (run.cluster.gpu.name, run.cluster.gpu_mem_gib or run.cluster.gpu.memory_gib) == (chip, gib)
    assert run.speed_known


def test_a_board_that_no_table_has_is_told_by_its_memory():
    """What fits is known, not how fast."""
    small = {"model": "meta-llama/Llama-3.2-1B", "method": "qlora", "micro_batch": "1"}
    answer = predict(ROW | small | {"gpu": "Radeon RX 590", "gpu_mem_gb": "8"})
    assert (answer["verdict"], answer["predicted_tokens_per_s_total"]) == ("fits", "")
    assert "not known" in predict(ROW | {"gpu": "Radeon RX 590", "gpu_mem_gb": ""})["unsupported_reason"]
    assert "not known" in predict(ROW | {"gpu": "TPU v4", "gpu_mem_gb": "32"})["unsupported_reason"]


@pytest.mark.parametrize(
    ("text", "kind", "shards", "replicas"),
    [
        ("HSDP", "fsdp", 8, 4), ("FSDP hybrid_shard", "fsdp", 8, 4), ("hsdp dp_replicate=8 dp_shard=4", "fsdp", 4, 8),
        ("HSDP 2x16", "fsdp", 16, 2), ("ZeRO-1 (zero1=8, within node)", "zero1", 8, 4), ("MiCS", "zero3", 8, 4),
        ("FSDP", "fsdp", 32, 1), ("ZeRO++", "zero3", 32, 1), ("FSDP NO_SHARD", "ddp", 32, 1),
        ("HSDP TP2", "fsdp", 4, 4),
    ],
)  # fmt: skip
def test_copies_that_are_sharded_each_for_itself(text, kind, shards, replicas):
    row = ROW | {"method": "full", "num_gpus": "32", "num_nodes": "4", "parallelism": text}
    setup = read_run(row).setup
    assert (setup.parallelism.kind, setup.shards, setup.replicas) == (kind, shards, replicas)


def test_shards_within_a_machine_need_what_one_machine_alone_needs():
    spread = ROW | {"method": "full", "num_gpus": "32", "num_nodes": "4"}
    whole, hybrid = (estimate_run(spread | {"parallelism": text}) for text in ("FSDP", "HSDP"))
    alone = estimate_run(ROW | {"method": "full", "num_gpus": "8", "parallelism": "FSDP"})
    assert hybrid.memory.allocated_bytes == alone.memory.allocated_bytes > whole.memory.allocated_bytes
    assert 3 < hybrid.step.tokens_per_s_total.p50 / alone.step.tokens_per_s_total.p50 < 4


def test_layers_that_are_only_laid_out_compute_one_gpu_at_a_time():
    """device_map spreads a model and makes nothing faster; one micro-batch's activations are held, not one a stage."""
    laid_out = ROW | {"num_gpus": "4", "parallelism": "device_map(naive)", "grad_accum": "16"}
    naive, alone = estimate_run(laid_out), estimate_run(ROW | {"grad_accum": "16"})
    speed = naive.step.tokens_per_s_total.p50 / alone.step.tokens_per_s_total.p50
    assert 0.95 < speed < 1.05
    once = estimate_run(laid_out | {"grad_accum": "1"})
    assert naive.memory.components_bytes["activations"] == once.memory.components_bytes["activations"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [("bf16", "bf16"), ("fp16-mixed", "amp_fp16"), ("16-mixed", "amp_fp16"), ("amp_fp8", "amp_fp8"), ("mxfp8", "fp8"),
     ("NF4 bf16", "bf16"), ("tf32", "tf32"), ("32-true", "fp32"), ("", "bf16")],
)  # fmt: skip
def test_precision(text, seen):
    assert read_run(ROW | {"precision": text}).setup.precision == seen


def test_unpacked_rows_are_shorter_than_the_longest():
    padded = ROW | {"packing": "false", "dataset_tokens": "400000", "steps": "500", "global_batch": "4"}
    setup = read_run(padded).setup
    assert setup.sequence_tokens == 2048
    assert 200 < setup.row_tokens < 400
    assert setup.real_tokens_share < 1


def test_command(tmp_path):
    source, out = tmp_path / "runs.csv", tmp_path / "predictions.csv"
    with source.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ROW)
        writer.writeheader()
        writer.writerow(ROW)
        writer.writerow(ROW | {"id": "x-2", "seq_len": ""})
    result = CliRunner().invoke(cli, ["backtest", str(source), "--out", str(out)])
    assert result.exit_code == 0, result.output
    with out.open(newline="") as stream:
        answers = list(csv.DictReader(stream))
    assert [a["id"] for a in answers] == ["x-1", "x-2"]
    assert answers[0]["verdict"] == "fits"
    assert answers[1]["unsupported_reason"] == "seq_len is not stated"
    assert json.loads(answers[0]["predicted_allocated_gib"]) > 15


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00"])
def test_command_refuses_other_files(tmp_path, content):
    source = tmp_path / "runs.csv"
    source.write_bytes(content)
    result = CliRunner().invoke(cli, ["backtest", str(source)])
    assert result.exit_code == 2
    assert "error: " in result.output


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_gpus": "9" * 40}, "num_gpus"), ({"seq_len": "1e12"}, "seq_len '1e12' is no whole number that a run can"),
        ({"micro_batch": "9" * 40}, "micro_batch"), ({"model": "m" * 5000}, "model 'mmm"),
    ],
)  # fmt: skip
def test_no_prediction_of_what_no_run_can_have(change, reason):
    answer = predict(ROW | change)
    assert answer["unsupported_reason"].startswith(reason)
    assert len(answer["unsupported_reason"]) < 250
    assert answer["verdict"] == ""


def test_all_gpus_count_however_they_are_spread():
    """Nine GPUs do not fill two machines; more machines than GPUs there are none."""
    for change, gpus in (
        ({"num_gpus": "9"}, 9),
        ({"num_gpus": "4", "num_nodes": "99"}, 4),
        ({"num_gpus": "15"}, 15),
    ):
        run = read_run(ROW | {"num_nodes": ""} | change)
        assert run.setup.parallelism.gpus_total == gpus
        assert run.cluster.nodes <= gpus
    assert read_run(ROW | {"num_gpus": "", "gpu": "16 A100 (40GB)"}).setup.parallelism.gpus_total == 16
    assert predict(ROW | {"steps": "0"})["predicted_wall_clock_h"] == ""


def test_command_reads_long_remarks(tmp_path):
    source = tmp_path / "runs.csv"
    with source.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*ROW, "notes"])
        writer.writeheader()
        writer.writerow(ROW | {"notes": "n" * 200_000})
    result = CliRunner().invoke(cli, ["backtest", str(source)])
    assert result.exit_code == 0, result.output


NASTY = (
    "",
    "0",
    "-1",
    "nan",
    "1e400",
    "8-16",
    "2 x A100",
    "TP8 PP0",
    "tp0",
    "\x00",
    "é" * 300,
    "bf16/fp8",
    "9" * 30,
)


OTHERS = (
    "grad_accum", "global_batch", "quant_bits", "optimizer", "parallelism", "dataset_tokens", "epochs", "steps",
    "packing", "offload", "task", "flash_attn", "grad_checkpointing", "liger_fused",
)  # fmt: skip


@pytest.mark.parametrize("column", [*sorted(set(ROW) - {"id"}), *OTHERS])
def test_odd_cells_never_crash(column):
    for text in NASTY:
        answer = predict(ROW | {"packing": "false"} | {column: text})
        assert bool(answer["verdict"]) != bool(answer["unsupported_reason"]), (column, text)
