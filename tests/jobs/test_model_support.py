"""The lists of what transformers has no class for, against transformers itself."""

from __future__ import annotations

import json
import subprocess
import sys

from jobs.spec_rules import FUSED_EXPERTS
from planner.architecture import known_models, load_architecture
from planner.model_support import NO_CLASSIFIER, OWN_CODE

_ASK = """
import json, sys
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN as experts
from peft.utils.transformers_weight_conversion import _MOE_TARGET_MODULE_MAPPING as kinds
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as classifiers

known = [family for family in json.loads(sys.argv[1]) if family in CONFIG_MAPPING]
without = [family for family in known if CONFIG_MAPPING[family] not in classifiers]
fused = [family for family in known if experts.get(family, family) in kinds]
print(json.dumps({"known": known, "without": without, "fused": fused}))
"""


def test_the_lists_are_those_of_transformers_and_peft():
    families = {load_architecture(name).model_type for name in known_models()}
    asked = [sys.executable, "-c", _ASK, json.dumps(sorted(families))]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert families & NO_CLASSIFIER == set(told["without"])
    assert families >= NO_CLASSIFIER
    # gemma4_moe is a name of this registry's: the family's config has another, with a tower for pictures
    assert families - set(told["known"]) - {"gemma4_moe"} == OWN_CODE
    assert families & FUSED_EXPERTS == set(told["fused"])
