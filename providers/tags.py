"""Tags of what is rented, as every cloud can hold them."""

from __future__ import annotations

import re


def tag_value(text: str) -> str:
    """A text as a tag: the narrowest rule is GCP's.

    >>> tag_value("Goat.7")
    'goat-7'
    """
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]
