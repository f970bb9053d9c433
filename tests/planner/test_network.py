import json

import pytest

from planner.estimate import Estimate, build_estimate
from planner.explain import explain
from planner.intake import Overrides
from planner.network import network_of
from providers.offers import Offer
from tests.planner.factories import offer_of, question_of, snapshot_of

_FULL_70B = {
    "model": "meta-llama/Llama-3.1-70B",
    "method": {"kind": "full"},
    "train": {"sequence_length": 2048, "global_batch": 512},
}


def p5(**fields: object) -> Offer:
    return offer_of("H100", 8, 40.0, instance_type="p5.48xlarge", **fields)


def on(offer: Offer, nodes: int, **sections: object) -> Estimate:
    return build_estimate(question_of(Overrides(nodes=nodes), **sections), snapshot_of(offer))


def tokens_per_s(offer: Offer, nodes: int, **sections: object) -> float:
    best = on(offer, nodes, **sections).recommended
    assert best is not None
    return best.tokens_per_s_total.p50


def test_small_machines_with_a_slow_network_are_slower_than_one_machine_with_as_many_gpus() -> None:
    rows = {"train": {"packing": False, "global_batch": 32, "micro_batch": 1}}
    together = tokens_per_s(offer_of("L4", 2, instance_type="g2-standard-24", cloud="gcp"), 1, **rows)
    apart = tokens_per_s(offer_of("L4", 1, instance_type="g6.xlarge"), 2, **rows)
    assert apart < 0.5 * together


def test_kinds_of_machines_differ_by_their_networks() -> None:
    azure = offer_of("H100", 8, 40.0, cloud="azure", instance_type="Standard_ND96isr_H100_v5")
    assert tokens_per_s(azure, 16, **_FULL_70B) < tokens_per_s(p5(), 16, **_FULL_70B)


def test_one_machine_has_no_network() -> None:
    unknown = p5()._replace(instance_type="p5.new")
    assert tokens_per_s(unknown, 1) == tokens_per_s(p5(), 1)
    answer = on(p5(), 1)
    assert "network" not in json.dumps([*answer.assumptions, *answer.warnings])


def test_an_unknown_network_is_slow_and_its_time_is_wide() -> None:
    known = on(p5(), 16, **_FULL_70B).recommended
    unknown = on(p5()._replace(instance_type="p5.new"), 16, **_FULL_70B).recommended
    assert known is not None and unknown is not None
    assert unknown.step_time_s.p50 > known.step_time_s.p50
    assert (
        unknown.step_time_s.p90 / unknown.step_time_s.p50 > 2 * known.step_time_s.p90 / known.step_time_s.p50
    )
    assert unknown.step_time_s.p10 < 1.5 * known.step_time_s.p50


def test_the_network_is_an_assumption_a_note_and_a_term() -> None:
    answer = on(p5(), 16, **_FULL_70B)
    said = next(row for row in answer.assumptions if row.name.startswith("network between machines"))
    assert (said.name, said.value, said.unit) == ("network between machines, aws p5.48xlarge", 100, "Gbit/s")
    assert "karpenter" in said.source
    note = dict(answer.warnings)["network"]
    assert "100 Gbit/s" in note and "3,200 Gbit/s" in note and "use_internal_ips" in note
    sections = explain(answer, "1").sections
    step = next(section for section in sections if section.key == "step")
    collectives = next(term for term in step.terms if term.name == "collectives")
    assert collectives.inputs["link GB/s"] == 12.5
    assert collectives.inputs["network Gbit/s"] == 100


@pytest.mark.parametrize(("cloud", "least"), [("vast", 10), ("slurm", 100)])
def test_what_nobody_states_is_said_to_be_assumed(cloud: str, least: float) -> None:
    network = network_of(cloud, None, 1)
    assert network.gbit_per_s == least
    assert not network.is_stated and "assumed" in network.text()


def test_a_fabric_is_faster_than_what_is_rented_and_says_what_it_takes() -> None:
    kinds = [
        ("aws", "p4d.24xlarge"),
        ("azure", "Standard_ND96asr_v4"),
        ("gcp", "a3-megagpu-8g"),
        ("oci", "BM.GPU4.8"),
    ]
    for cloud, kind in kinds:
        network = network_of(cloud, kind, 8)
        assert network.fabric_gbit_per_s is not None
        assert network.fabric_gbit_per_s > network.gbit_per_s and network.fabric_needs
