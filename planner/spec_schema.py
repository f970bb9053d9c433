"""The JSON Schema of `spec.yaml`, kept to draft-07, which editors understand.

`planner/schemas/spec.json` is shipped ready, so that printing it loads no pydantic. After a change of the
models: `python -m planner.spec_schema > planner/schemas/spec.json`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from planner.spec import FineTuneSpec

DRAFT = "http://json-schema.org/draft-07/schema#"


def spec_schema() -> dict[str, Any]:
    """The schema, generated from the models; shorthands are accepted where the spec accepts them."""
    generated = _draft_07(FineTuneSpec.model_json_schema())
    return {"$schema": DRAFT, **generated, "title": "tuneplan spec"}


def _draft_07(value: Any) -> Any:
    """From 2020-12; what differs here is the name of the definitions and what may stand beside a `$ref`."""
    if isinstance(value, list):
        return [_draft_07(item) for item in value]
    if not isinstance(value, dict):
        return value
    out = {
        key: _draft_07(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))
    }
    if "$defs" in out:
        out["definitions"] = out.pop("$defs")
    if "$ref" in out:
        reference = out.pop("$ref").replace("#/$defs/", "#/definitions/")
        # Draft-07 ignores whatever stands beside a $ref.
        return {**out, "allOf": [{"$ref": reference}]} if out else {"$ref": reference}
    return out


if __name__ == "__main__":
    sys.stdout.write(json.dumps(spec_schema(), indent=2) + "\n")
