"""Which machine a probe measures."""

import pytest

from planner.answer import estimate_spec
from planner.errors import NothingFitsError
from planner.probe import probe_order, probe_spec
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of
from tests.planner.test_calibration_ledger import GOAT


@pytest.fixture(scope="module")
def plans():
    spec = spec_of()
    offers = snapshot_of(
        *(offer_of(gpu, region=place) for gpu in ("A100-80GB", "H100") for place in ("a", "b"))
    )
    asked = (spec, probe_spec(spec, 30, rented=True))
    return tuple(estimate_spec(one, GOAT.base_dir, offers, NOW).plan() for one in asked)


def test_the_probe_runs_on_the_very_offer_of_the_whole_job(plans):
    whole, probe = plans
    chosen = whole.candidates[-1]  # not what the short probe alone would take
    order = probe_order(whole._replace(recommended=chosen.candidate_id), probe)
    first = order.candidate(order.recommended)
    assert first.offer == chosen.offer
    assert {
        (row.offer.gpu, row.offer.gpus_per_node, row.nodes, row.micro_batch) for row in order.candidates
    } == {(chosen.offer.gpu, chosen.offer.gpus_per_node, chosen.nodes, chosen.micro_batch)}
    assert len(order.candidates) < len(probe.candidates)


def test_no_probe_where_the_job_does_not_fit(plans):
    whole, probe = plans
    with pytest.raises(NothingFitsError):
        probe_order(whole._replace(recommended=None), probe)
    with pytest.raises(NothingFitsError):
        probe_order(whole, probe._replace(candidates=()))


def test_only_a_rented_probe_writes_to_the_specs_store():
    spec = spec_of()
    spec = spec.model_copy(update={"checkpoints": spec.checkpoints.model_copy(update={"uri": "s3://b/runs"})})
    assert probe_spec(spec, 30).checkpoints.uri is None
    assert probe_spec(spec, 30, rented=True).checkpoints.uri == "s3://b/runs"
