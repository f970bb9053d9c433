"""The bars of ACCURACY.md hold on the published runs, and the document says what the program says."""

import statistics
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import accuracy  # noqa: E402
import same_job  # noqa: E402


@pytest.fixture(scope="module")
def summary():
    done = accuracy.results(accuracy.read(accuracy.DATA))
    assert len(done) > 600
    return accuracy.summary(done)


@pytest.mark.parametrize(
    ("name", "most"),
    [("memory_macro_median", 0.08), ("memory_p90", 0.25), ("truth_above_upper", 0.02), ("time_macro_median", 0.14),
     ("time_p90", 0.40), ("verdict_borderline", 0.15), ("oom_missed", 2)],
)  # fmt: skip
def test_errors_stay_below(summary, name, most):
    assert summary[name] <= most


@pytest.mark.parametrize(
    ("name", "least"), [("memory_within_20", 0.85), ("interval_coverage", 0.80), ("verdict_right", 0.90)]
)
def test_shares_stay_above(summary, name, least):
    assert summary[name] >= least


def test_a_probe_of_the_same_job_leaves_little():
    found = same_job.errors()
    assert sum(map(len, found.values())) >= 10
    for pairs in found.values():
        before, after = map(statistics.median, zip(*pairs, strict=True))
        assert after < 0.08
        assert after < before


def test_the_document_states_the_current_figures(summary):
    text = (ROOT / "ACCURACY.md").read_text(encoding="utf-8")
    for name in (
        "memory_macro_median",
        "memory_p90",
        "time_macro_median",
        "interval_coverage",
        "verdict_right",
    ):
        assert accuracy.percent(summary[name]) in text, name


def test_almost_every_complete_row_is_predicted():
    rows = accuracy.read(accuracy.DATA)
    asked = [r for r in rows if all(r[n] for n in ("gpu", "num_gpus", "seq_len", "micro_batch", "model"))]
    answered = accuracy.results(asked)
    counted = [r for r in asked if r["quality"] not in accuracy.DOUBTFUL]
    assert len(answered) >= 0.95 * len(counted)
