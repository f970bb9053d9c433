"""Reads `config.yaml` as strictly as a spec: an unknown key is an error with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from planner.spec import Seconds, Section
from planner.units import parse_usd
from planner.validation import validate
from planner.yaml_source import read_yaml


def _price(value: Any) -> float:
    """An hourly price; 0 is free."""
    return 0.0 if value in (0, "0") and not isinstance(value, bool) else parse_usd(value)


class PricesSection(Section):
    """Section `prices`."""

    max_age: Seconds | None = Field(default=None, description="Older prices are warned about, as in 7d")


class LocalSection(Section):
    """Section `local`."""

    usd_per_hour: Annotated[float, BeforeValidator(_price)] | None = Field(
        default=None, description="What an hour on this machine costs; 0 is free"
    )


class ConfigFile(Section):
    """Everything that `config.yaml` may hold."""

    prices: PricesSection = Field(default_factory=PricesSection)
    local: LocalSection = Field(default_factory=LocalSection)


def read_config_file(path: Path) -> ConfigFile:
    """Read and check the file.

    Raises:
        SpecError: With every finding.
    """
    return validate(read_yaml(path), ConfigFile)
