"""The lists of what transformers has no class for, against transformers itself."""

from __future__ import annotations

import json
import subprocess
import sys

from jobs.spec_rules import FUSED_EXPERTS
from planner.architecture import known_models, load_architecture
from planner.model_support import CLASSIFIED_TOWERS, NO_CLASSIFIER, OWN_CODE, TEXT_ALONE, TOWERS_LEFT

_ASK = """
import json, sys
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN as experts
from peft.utils.transformers_weight_conversion import _MOE_TARGET_MODULE_MAPPING as kinds
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as writers
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as of_images
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as classifiers

known = [family for family in json.loads(sys.argv[1]) if family in CONFIG_MAPPING]
without = [family for family in known if CONFIG_MAPPING[family] not in classifiers]
fused = [family for family in known if experts.get(family, family) in kinds]
towers = [family for family in known if CONFIG_MAPPING[family].sub_configs]
alone = [family for family in towers if family in writers and writers[family] != of_images.get(family)]
told = {"known": known, "without": without, "fused": fused, "towers": towers, "alone": alone}
print(json.dumps(told))
"""


def _told(families):
    asked = [sys.executable, "-c", _ASK, json.dumps(sorted(families))]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_lists_are_those_of_transformers_and_peft():
    families = {load_architecture(name).model_type for name in known_models()}
    told = _told(families)
    assert families & NO_CLASSIFIER == set(told["without"])
    assert families >= NO_CLASSIFIER
    assert families - set(told["known"]) == OWN_CODE
    assert families & FUSED_EXPERTS == set(told["fused"])


def test_models_with_several_towers_are_loaded_as_the_lists_say():
    """transformers gives the text tower of some alone; a classifier exists for few."""
    whole = {load_architecture(name).published_type for name in known_models()} - {""}
    told = _told(whole | TOWERS_LEFT | TEXT_ALONE)
    assert set(told["towers"]) >= TOWERS_LEFT | TEXT_ALONE
    assert set(told["alone"]) - {"mllama"} == TEXT_ALONE
    assert (TOWERS_LEFT | TEXT_ALONE) - set(told["without"]) == CLASSIFIED_TOWERS
