"""Where a model that was asked for on the Hub comes from, and what a person should know of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Publication(NamedTuple):
    """A model's page on the Hub, at one commit.

    Attributes:
        commit: 40 hexadecimal digits; plans are pinned to it.
        license: As its card says, None if it does not.
        gate: None if open; "auto" or "manual" if its terms must be accepted before it can be loaded.
        remote_code: The repository brings Python code that defines the model.
        asked_at: RFC 3339 UTC, when the Hub said so.
        notes: (code, message) of doubts about the facts.
        stored_bytes: Of its safetensors files, None if it has none.
    """

    commit: str
    license: str | None
    gate: str | None
    remote_code: bool
    asked_at: str
    notes: tuple[tuple[str, str], ...] = ()
    stored_bytes: int | None = None

    def warnings(self, model_id: str, *, trusted: bool) -> Iterator[tuple[str, str]]:
        """What a person should know before the model is used.

        Args:
            model_id: For the texts.
            trusted: Whether the spec allows the repository's code to run.
        """
        yield from self.notes
        if self.license is None:
            yield "license_unknown", f"the card of {model_id} names no licence: look before you train on it"
        if self.gate is not None:
            yield (
                "gated_model",
                f"{model_id} is gated: its terms must be accepted, and HF_TOKEN be among environment.secrets",
            )
        if self.remote_code and trusted:
            yield "remote_code", f"code of {model_id} at {self.commit[:12]} will run where it is trained"
        elif self.remote_code:
            yield (
                "remote_code",
                f"{model_id} brings code of its own, which does not run unless model.trust_remote_code is true",
            )
