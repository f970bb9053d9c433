"""A JSON answer as YAML: the same keys in the same order, read back as the same values by YAML 1.1 and 1.2."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

#: Texts that no reader takes for anything else, so that they need no quotes.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
#: What YAML 1.1 reads as true, false or null.
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class _Representer(SafeRepresenter):
    """Quotes every text that some reader might take for a number, a time, a truth value or a mapping."""


def _text(representer: SafeRepresenter, value: str) -> ScalarNode:
    plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _WORDS
    node: ScalarNode = representer.represent_scalar(
        "tag:yaml.org,2002:str", value, style=None if plain else '"'
    )
    return node


_Representer.add_representer(str, _text)


def yaml_text(document: Mapping[str, Any]) -> str:
    """The document as YAML in ASCII, keys in their order.

    Raises:
        RepresenterError: For anything but plain JSON types.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.default_flow_style = False
    yaml.allow_unicode = False
    yaml.width = 1_000_000  # a folded line is harder to compare
    stream = io.StringIO()
    yaml.dump(dict(document), stream)
    return stream.getvalue().removesuffix("\n")
