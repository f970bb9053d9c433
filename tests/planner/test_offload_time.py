"""What weights, gradients, states and activations on the host cost in time."""

import pytest

from planner.architecture import parameter_counts
from planner.backtest.rows import read_run
from planner.setup import Parallelism
from planner.throughput import estimate_step
from planner.throughput.offload import host_step_seconds, offload_seconds, pinned_bytes_per_s
from tests.planner.setups import cluster, lora, setup, spread
from tests.planner.test_backtest import ROW

FULL = setup(framework="hf", sequence_tokens=512)
PARAMETERS = parameter_counts(FULL.arch).total


def zero(kind="zero3", gpus=1, **fields):
    return FULL._replace(parallelism=Parallelism(kind, gpus), **fields)


def test_each_micro_batch_fetches_weights_and_takes_gradients_there_and_back():
    """Before, copies were counted once a step, and weights never: steps of many micro-batches were said up to five
    times too quick.
    """
    where, away = cluster("V100"), zero(offload="parameters", precision="fp16", grad_accum=8)
    host = offload_seconds(away, where)
    assert host.queued == pytest.approx((3 * 2 + 2 * 2) * PARAMETERS / 11e9, rel=0.01)
    assert host.once == pytest.approx(4 * PARAMETERS / 11e9, rel=0.01)
    many, few = (estimate_step(away._replace(grad_accum=n), where).step_time_s.p50 for n in (8, 1))
    assert many - few > 7 * host.queued


def test_weights_that_stay_are_not_fetched_and_come_back_once():
    stays = offload_seconds(zero(offload="optimizer"), cluster("V100"))
    assert stays.queued == pytest.approx(2 * 2 * PARAMETERS / 11e9, rel=0.01)
    assert stays.once == pytest.approx(PARAMETERS * (4 / 11e9 + 2 / 6e9), rel=0.01)


def test_zero2_leaves_a_single_micro_batchs_gradients_to_the_step():
    one, many = (offload_seconds(zero("zero2", offload="optimizer", grad_accum=n), cluster()) for n in (1, 8))
    assert one.queued == 0
    assert many.queued > 0


def test_memory_that_is_not_pinned_makes_the_gpu_wait():
    pinned = offload_seconds(zero(offload="optimizer"), cluster("H100"))
    paged = offload_seconds(zero(offload="optimizer", pins_host_memory=False), cluster("H100"))
    assert pinned.waited == 0
    assert paged.waited > 5 * pinned.queued
    frozen = zero(offload="parameters", adapter=lora())
    fetched = [
        offload_seconds(frozen._replace(pins_host_memory=pins), cluster()).queued for pins in (True, False)
    ]
    assert fetched[1] > 3 * fetched[0]


def test_ranks_share_uplinks_and_cores():
    assert pinned_bytes_per_s(cluster(gpus=8)) == pinned_bytes_per_s(cluster()) / 2
    alone = host_step_seconds(zero(offload="optimizer"), cluster(), 28.0)
    two = host_step_seconds(zero(gpus=2, offload="optimizer"), cluster(gpus=2), 28.0)
    assert two == pytest.approx(alone)  # half of the parameters each, with one thread


def test_fsdp2_adds_gradients_on_the_cpu():
    base = spread(FULL._replace(framework="torchtune", offload="parameters"), "fsdp", 2)
    once, often = (offload_seconds(base._replace(grad_accum=n), cluster(gpus=2)).waited for n in (1, 4))
    assert once == 0
    assert often > 0
    waits = spread(FULL._replace(framework="trl", offload="parameters", grad_accum=4), "fsdp", 2)
    assert offload_seconds(waits, cluster(gpus=2)).once > 0


def test_torchs_optimizer_without_fused_kernels_is_slow_on_a_cpu():
    base = spread(FULL._replace(offload="parameters"), "fsdp", 2)
    plain, fused = (
        host_step_seconds(base._replace(optimizer=name), cluster(gpus=2), 40.0)
        for name in ("adamw", "adamw_fused")
    )
    assert plain > 3 * fused
    few = base._replace(adapter=lora())
    assert host_step_seconds(few, cluster(gpus=2), 40.0) < 0.01 * plain


def test_checkpoints_on_the_host_are_waited_for_unless_their_stream_is_another():
    base = FULL._replace(offloads_activations=True, micro_batch=8, sequence_tokens=4096)
    there_and_back = 2 * 32 * 8 * 4096 * 4096 * 2 / 22e9
    assert offload_seconds(base, cluster()).waited == pytest.approx(there_and_back)
    other = offload_seconds(base._replace(framework="torchtune"), cluster())
    assert (other.waited, other.behind) == (0, pytest.approx(there_and_back))


def test_nothing_on_the_host_costs_nothing():
    assert not any(offload_seconds(FULL, cluster()))
    assert "offload" not in estimate_step(FULL, cluster()).terms_s


def test_the_more_the_host_decides_the_less_sure():
    many = FULL._replace(framework="hf", sequence_tokens=4096)
    kept, away = (
        estimate_step(
            many._replace(parallelism=Parallelism("zero3"), offload=offload, grad_accum=8), cluster()
        )
        for offload in ("none", "parameters")
    )
    assert away.spread > 1.4 * kept.spread
    assert "host" in away.spread_reason


def test_accelerates_own_settings_pin_nothing():
    names = ("HF Trainer deepspeed", "TRL + accelerate, DeepSpeed ZeRO-3")
    assert [read_run(ROW | {"framework": name}).setup.pins_host_memory for name in names] == [True, False]
