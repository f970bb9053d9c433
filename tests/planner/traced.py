"""The same small model for the tracer and for the closed form."""

import json
from importlib import resources

from planner.architecture import Adapter
from planner.architecture.hf_config import read_config
from planner.memory import estimate_memory
from planner.setup import TrainingSetup
from planner.stacks import computed_by
from tests.planner.setups import cluster

FACTS = json.loads(resources.files("planner").joinpath("data", "models.json").read_text())["models"]
#: Three blocks, by each name that configurations have for their number. Of a mixture of experts with latent attention
#: the dense ones, which run without a GPU.
_FEWER = dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "first_k_dense_replace"), 3)


def facts_of(name):
    facts = {key: _FEWER.get(key, value) for key, value in FACTS[name].items() if key != "sliding_window"}
    return facts | {"pad_token_id": 0}


def setup_of(arch, fields, adapter):
    """A set-up from its fields and an adapter's, as JSON has them."""
    chosen = adapter and Adapter(
        adapter.get("kind", "lora"),
        adapter["rank"],
        tuple(adapter["targets"]),
        adapter["fp32"],
        adapter.get("dropout", False),
    )
    return TrainingSetup(arch, adapter=chosen, framework="hf", **{"attention": "flash", **fields})


def closed_form(facts, fields, adapter):
    """Allocated bytes of what `traced_peaks.py` is asked: a configuration, fields of a set-up, and an adapter's."""
    setup = setup_of(computed_by("hf", read_config(facts, "traced", "test")), fields, adapter)
    return estimate_memory(setup, cluster("B300")).allocated_bytes
