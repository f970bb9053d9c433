from __future__ import annotations

import csv
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.deadline.controller import ControllerState, Mission, Observation, step
from planner.deadline.optimum import omniscient_cost_usd
from planner.deadline.placement import Placement
from planner.deadline.policy import LIVE_TIME_SHARE
from planner.deadline.replay import DeadlineJob, Market, replay
from planner.deadline.simulate import (
    POLICIES,
    DrawnJobs,
    drawn_zone,
    monte_carlo,
    policy_of,
    simulate,
    simulate_all,
)
from planner.deadline.traces import COLUMNS, load_jobs, load_traces
from planner.hazards import prior, recorded
from planner.preemption import Preemptions
from planner.risk import PLACE_DOUBT
from providers.errors import UsageError
from tests.planner.spot_markets import invented, market

_TICK_S = 600


def _rle(values: np.ndarray) -> list[list[float]]:
    return [[value, len(list(group))] for value, group in itertools.groupby(values.tolist())]


def _files(folder: Path, jobs: list[tuple[object, ...]]) -> tuple[Path, Path]:
    record = invented(900, _TICK_S, 2, 11)
    traces = [
        {
            "id": f"zone-{region}",
            "campaign": "invented",
            "cloud": "aws",
            "zone": f"z{region}",
            "gpu": "v100_1",
            "nodes": 1,
            "gap_seconds": _TICK_S,
            "history_ticks": 300,
            "od_price": 3.0,
            "count_rle": _rle(record.up[:, region].astype(int)),
            "spot_price_rle": [[0.9, 400], [1.2, 500]] if region else None,
        }
        for region in (0, 1)
    ]
    data, table = folder / "traces.json.gz", folder / "jobs.csv"
    data.write_bytes(gzip.compress(json.dumps({"traces": traces}).encode()))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([(*COLUMNS, "history_h"), *jobs])
    return data, table


_JOBS: list[tuple[object, ...]] = [
    ("a", "zone-0", 310, 8, 9, 0.2, 0),
    ("b", "zone-0;zone-1", 350, 8, 12, 0.5, 48),
    ("c", "zone-1", 420, 4, 8, 0.05, 0),
]


def test_every_policy_on_every_job_is_in_time_and_none_beats_the_optimum(tmp_path: Path) -> None:
    data, table = _files(tmp_path, _JOBS)
    for traced in load_jobs(table, load_traces(data)):
        found = {name: simulate(traced, name) for name in POLICIES}
        assert all(one.outcome is None or not one.outcome.late for one in found.values())
        rules = ("ours", "on_demand") if traced.market.up.shape[1] > 1 else POLICIES
        assert all(found["omniscient"].cost_usd <= found[name].cost_usd + 1e-9 for name in rules)
        assert found["on_demand"].cost_usd == pytest.approx(
            3.0 * _TICK_S / 3600 * -(-(traced.job.work_s + traced.job.overhead_s) // _TICK_S)
        )


def test_decisions_in_a_batch_are_those_of_each_job_alone(tmp_path: Path) -> None:
    data, table = _files(tmp_path, _JOBS)
    traces = load_traces(data)
    batch = [simulate(traced, "ours") for traced in load_jobs(table, traces)]
    alone = [simulate(list(load_jobs(table, traces))[index], "ours") for index in (2, 1, 0)]
    assert batch == alone[::-1]


def test_many_jobs_are_simulated_side_by_side_with_the_answers_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, table = _files(tmp_path, _JOBS)
    jobs = list(load_jobs(table, load_traces(data)))
    alone = [(index, simulate(traced, "ours")) for index, traced in enumerate(jobs)]
    assert sorted(simulate_all(jobs, "ours"), key=lambda one: one[0]) == alone
    monkeypatch.setattr("planner.deadline.simulate._MANY", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert sorted(simulate_all(jobs, "ours"), key=lambda one: one[0]) == alone

    def refused(*_: object) -> None:
        raise OSError("no processes here")

    monkeypatch.setattr("planner.deadline.simulate.ProcessPoolExecutor", refused)
    assert sorted(simulate_all(jobs, "ours"), key=lambda one: one[0]) == alone


def test_price_and_capacity_are_the_records(tmp_path: Path) -> None:
    data, table = _files(tmp_path, _JOBS)
    _, both, last = load_jobs(table, load_traces(data))
    assert both.history is not None and [len(zone) for zone in both.history] == [288, 288]
    assert last.market.spot_usd_per_h[0, 0] == pytest.approx(1.2)
    assert both.market.spot_usd_per_h[0].tolist() == pytest.approx([0.318 * 3, 0.9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("x", "zone-9", 0, 8, 9, 0.2, 0), "zone-9"),
        (("x", "zone-0", 890, 8, 9, 0.2, 0), "do not lie within"),
        (("x", "zone-0", 0, "soon", 9, 0.2, 0), "soon"),
        (("x", "zone-0", 0, 0, 9, 0.2, 0), "positive"),
        (("x", "zone-0", 0, "nan", 9, 0.2, 0), "work_h is nan"),
        (("x", "zone-0", 0, 8, "inf", 0.2, 0), "deadline_h is inf"),
        (("x", "zone-0", 0, 8, 9, 0.2, -48), "not negative"),
    ],
)
def test_a_wrong_job_is_named_by_its_line(tmp_path: Path, change: tuple[object, ...], message: str) -> None:
    data, table = _files(tmp_path, [_JOBS[0], change])
    with pytest.raises(UsageError, match=rf"line 3.*{message}"):
        list(load_jobs(table, load_traces(data)))


def test_files_as_other_programs_write_them(tmp_path: Path) -> None:
    data, table = _files(tmp_path, _JOBS)
    plain = tmp_path / "traces.json"
    plain.write_bytes(gzip.decompress(data.read_bytes()))
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert [traced.job_id for traced in load_jobs(table, load_traces(plain))] == ["a", "b", "c"]
    table.write_text("")
    with pytest.raises(UsageError, match="has no job"):
        list(load_jobs(table, load_traces(plain)))


def test_a_file_that_is_no_trace_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "traces.json.gz"
    path.write_text("{}")
    with pytest.raises(UsageError, match="no trace file"):
        load_traces(path)


def test_the_optimum_is_that_of_an_exhaustive_search() -> None:
    """Every sequence of wait, spot and on-demand over six ticks."""

    class Script:
        def __init__(self, choices: tuple[Placement | None, ...]) -> None:
            self.choices = iter(choices)

        def decide(self, *_: object) -> Placement | None:
            return next(self.choices)

    choices = (None, Placement(0, "spot"), Placement(0, "on_demand"))

    for seed in range(6):
        rng = np.random.default_rng(seed)
        record = market(rng.random((6, 1)) < 0.6, _TICK_S, 0.2 + 0.5 * rng.random((6, 1)))
        job = DeadlineJob(1800 + 300 * (seed % 3), 300 * (seed % 2), 6 * _TICK_S)
        outcomes = [replay(job, record, Script(plan)) for plan in itertools.product(choices, repeat=6)]
        best = min(outcome.cost_usd for outcome in outcomes if not outcome.late)
        assert omniscient_cost_usd(job, record) == pytest.approx(best)


def test_drawn_zones_have_the_hazards_they_are_drawn_from() -> None:
    """Losses of jobs that wait for spot on drawn zones are those of the renewal equations."""
    jobs = DrawnJobs((6.0,), 0.2, None, 1.0, None)
    cost, finish, _ = monte_carlo(jobs, recorded(), 150, 5)["spot"]
    waste = Preemptions(recorded(), 0.2, 0.0).waste(6.0)
    assert cost.mean() == pytest.approx(6.2 + waste.billed_mean_h, rel=0.15)
    assert np.median(finish) == pytest.approx(6.2 + waste.delay_h.p50, rel=0.35)


def test_what_is_not_known_of_a_place_makes_late_ends_later() -> None:
    jobs = DrawnJobs((24.0,), 0.2, None, 1.0, None)
    sure, doubted = (monte_carlo(jobs, prior(), 200, 3, doubt=doubt)["spot"][1] for doubt in (1.0, 2.0))
    told = Preemptions(prior(), 0.2, 0.0, doubt=PLACE_DOUBT).waste(24.0).delay_h.p90 + 24.2
    assert np.quantile(sure, 0.9) < np.quantile(doubted, 0.9)
    assert np.quantile(doubted, 0.9) == pytest.approx(told, rel=0.3)  # what `plan estimate` says
    assert doubted.min() == pytest.approx(sure.min(), rel=0.01)


def test_drawn_zones_start_with_capacity_and_repeat() -> None:
    one, again = (drawn_zone(prior(), 300, 1 / 6, np.random.default_rng(3)) for _ in range(2))
    assert one[0] and (one == again).all()


def test_ours_keeps_the_deadline_and_costs_less_than_on_demand() -> None:
    jobs = DrawnJobs((4.0, 5.0), 0.1, 8.0, 0.3, 1.0)
    found = monte_carlo(jobs, prior(), 40, 1)
    assert set(found) == {"spot", "on_demand", "ours"}
    assert (found["ours"][1] <= 8.0 + 1e-9).all()
    assert found["ours"][0].mean() < 0.7 * found["on_demand"][0].mean()


def test_a_far_deadline_changes_neither_what_on_demand_costs_nor_when_a_launched_run_is_done() -> None:
    near, far = (
        monte_carlo(DrawnJobs((2.0,), 0.2, deadline_h, 0.3, 1.0), prior(), 40, 1) for deadline_h in (24, 168)
    )
    assert far["on_demand"][0].tolist() == near["on_demand"][0].tolist()
    assert near["on_demand"][0].mean() == pytest.approx(2.2, rel=0.02)  # a tick is short beside the work
    waiting = np.quantile(far["spot"][1], 0.9)
    assert np.quantile(far["ours"][1], 0.9) <= waiting + 0.5  # nobody is made to wait for the deadline
    assert far["ours"][0].mean() == pytest.approx(near["ours"][0].mean(), rel=0.1)


def test_a_tick_is_short_beside_short_work_and_long_work_has_few() -> None:
    def finish_h(work_h: float) -> float:
        return float(monte_carlo(DrawnJobs((work_h,), 0.0, None, 0.3, 1.0), prior(), 1, 1)["on_demand"][1][0])

    assert finish_h(0.49) == pytest.approx(0.5)  # whole minutes
    assert finish_h(400.1) == pytest.approx(400.9167)  # 85 minutes


def test_what_is_simulated_decides_as_what_watches_a_launched_run() -> None:
    record = invented(900, 300, 1, 4)
    job = DeadlineJob(3 * 3600, 600, 40 * 3600)
    mission = Mission(3.0, 40.0, 600 / 3600, 300 / 3600, ("here",), (1.0,))
    state = ControllerState.begin(mission)

    class Live:
        def decide(self, *seen: Any) -> Placement | None:
            nonlocal state
            elapsed, work, up, spot, current, left = seen
            state, advice = step(state, Observation(elapsed, work, tuple(up), tuple(spot), current, left))
            return advice.placement

    now = Market(300, record.up, record.spot_usd_per_h, np.ones(1))
    assert replay(job, now, policy_of(job, now, time_share=LIVE_TIME_SHARE)) == replay(job, now, Live())


def test_work_that_no_machine_can_do_in_time_is_late_and_not_left_out() -> None:
    jobs = DrawnJobs((2.0, 6.0), 0.1, 4.0, 0.3, 1.0)
    cost, finish, _ = monte_carlo(jobs, prior(), 40, 1)["ours"]
    assert len(cost) == 40 and np.isfinite(finish).all()
    assert float((finish <= 4.0 + 1e-9).mean()) == 0.5
    assert cost.max() == pytest.approx(6.1, rel=0.03)  # on-demand to its end
    assert "ours" not in monte_carlo(DrawnJobs((6.0,), 0.1, 4.0, 0.3, 1.0), prior(), 40, 1)
